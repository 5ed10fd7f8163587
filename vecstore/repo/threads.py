"""How many threads a verb takes, where nobody said. No result depends on it."""

from __future__ import annotations

import os

__all__ = ["some"]


def some(threads: int | None) -> int:
    return threads or os.cpu_count() or 1
