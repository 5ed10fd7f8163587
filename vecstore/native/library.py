"""The compiled library, if there is one that was made from this very source."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pv.vecstore.native.compile import LIBRARY, source_id

__all__ = ["library", "numpy_only"]

_off = 0


def library() -> ctypes.CDLL | None:
    """None: numpy computes instead. Calls let go of the interpreter's lock."""
    return None if _off else _loaded()


@contextmanager
def numpy_only() -> Iterator[None]:
    """As if nothing was compiled, in all threads: to hold the two against one another."""
    global _off
    _off += 1
    try:
        yield
    finally:
        _off -= 1


@cache
def _loaded() -> ctypes.CDLL | None:
    if not LIBRARY.is_file():
        return None
    try:
        found = ctypes.CDLL(os.fspath(LIBRARY))
        found.pv_source.restype = ctypes.c_char_p
        told: bytes = found.pv_source()
    except (OSError, AttributeError):  # of another machine
        return None
    return found if told.decode() == source_id() else None
