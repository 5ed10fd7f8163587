"""How many threads a verb takes. No result depends on it."""

from __future__ import annotations

import os

from pv.registry.errors import UsageError

__all__ = ["thread_count"]


def thread_count(threads: int | None) -> int:
    """All processors for None or 0. Raises UsageError for anything but a number of threads."""
    if threads is not None and (not isinstance(threads, int) or threads < 0):
        raise UsageError(
            f"threads must be a whole number, 1 or more, not {threads!r}", hint="0 takes all processors"
        )
    return threads or os.cpu_count() or 1
