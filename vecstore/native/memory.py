"""Freed memory is kept for the next tensor: to have it given back and fetched anew costs more than decoding does.

glibc hands large blocks back to the system as soon as they are free, and each page of the next one is cleared and
mapped again: `pv diff --weights` of numpy took 5.2 s of processor time so, and 2.8 s without
(docs/log.md).
"""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_freed_memory"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT, LARGEST = 1 << 30, 128 << 20


@cache
def keep_freed_memory() -> None:
    """Blocks of up to LARGEST bytes, KEPT bytes of them in all. Nothing where there is no such allocator."""
    try:
        setting = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another system's C library
        return
    setting(MMAP_THRESHOLD, LARGEST)
    setting(TRIM_THRESHOLD, KEPT)
