"""Freed memory is kept for the next tensor: to have it given back and fetched anew costs more than decoding does.

glibc hands large blocks back to the system as soon as they are free, and each page of the next one is cleared and
mapped again: `pv diff --weights` of numpy took 5.2 s of processor time so, and 2.8 s without
(docs/log.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache

__all__ = ["keep_all_freed_memory", "keep_freed_memory"]

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # of malloc.h
KEPT, LARGEST = 1 << 30, 128 << 20
MOST = (1 << 31) - 1  # that mallopt takes


@cache
def keep_freed_memory() -> None:
    """Blocks of up to LARGEST bytes, KEPT bytes of them in all. Nothing where there is no such allocator."""
    _set({MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT})


@cache
def keep_all_freed_memory() -> None:
    """Blocks of any size, for the rest of the process: the logits of every step of a training are alike.

    A step of SmolLM2 took 18.0 s of processor time, and 12.5 s so (docs/log.md).
    """
    _set({MMAP_MAX: 0, TRIM_THRESHOLD: MOST, TOP_PAD: 256 << 20})


def _set(settings: Mapping[int, int]) -> None:
    try:
        setting = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another system's C library
        return
    for name, value in settings.items():
        setting(name, value)
