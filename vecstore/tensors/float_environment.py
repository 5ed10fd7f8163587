"""Refuses to compute where floating point is not plain IEEE 754.

Some libraries switch the processor to flush-to-zero when they are loaded, and the switch belongs to the
thread, so a build could lose its subnormals in one worker and keep them in the next. Invariant: the engine's
float operations run only in a thread that `check` has just found to be in the default mode.
"""

from __future__ import annotations

import sys

import numpy as np

from pv.registry.errors import PvError

__all__ = ["check"]

# Bits, not values: a processor that treats subnormals as zero also compares them as zero.
_SMALLEST_NORMAL = np.array([0x00800000], np.uint32).view(np.float32)
_SMALLEST_SUBNORMAL = np.array([0x00000001], np.uint32).view(np.float32)
_ONE = np.array([0x3F800000], np.uint32).view(np.float32)
_QUARTER_STEP = np.array([0x33000000], np.uint32).view(np.float32)  # 2^-25: a quarter of the step above 1
_THREE_QUARTERS = np.array([0x33C00000], np.uint32).view(np.float32)  # 1.5 * 2^-24


def check() -> None:
    """Return if the calling thread computes as the engine needs it; raises PvError. Takes microseconds."""
    if sys.byteorder != "little":
        raise PvError("this machine stores numbers big end first, which pv's engine does not support")
    with np.errstate(all="ignore"):
        # A subnormal result, and a subnormal operand: flush-to-zero and denormals-are-zero.
        halved = np.multiply(_SMALLEST_NORMAL, np.float32(0.5))
        doubled = np.multiply(_SMALLEST_SUBNORMAL, np.float32(2.0))
        # Upward rounding shows in the first; downward and towards zero in the second.
        below_half = np.add(_ONE, _QUARTER_STEP)
        above_half = np.add(_ONE, _THREE_QUARTERS)
    if _bits(halved) != 0x00400000 or _bits(doubled) != 0x00000002:
        raise PvError(
            "this thread flushes subnormal numbers to zero, so a build here would not be reproducible",
            hint="a loaded library changed the processor's mode: build in a fresh process without it, "
            "or call torch.set_flush_denormal(False) in this thread",
        )
    if _bits(below_half) != 0x3F800000 or _bits(above_half) != 0x3F800001:
        raise PvError(
            "this thread does not round to nearest, so a build here would not be reproducible",
            hint="a loaded library changed the processor's mode: build in a fresh process without it",
        )


def _bits(value: np.ndarray) -> int:
    return int(value.view(np.uint32)[0])
