"""How many threads a verb takes. No result depends on it."""

from __future__ import annotations

import os

from pv.registry.errors import UsageError

__all__ = ["thread_count"]


def thread_count(threads: int | None) -> int:
    """All processors for None or 0. Raises UsageError below that."""
    if threads is not None and threads < 0:
        raise UsageError(f"threads must be 1 or more, not {threads}", hint="0 takes all processors")
    return threads or os.cpu_count() or 1
