"""One chunk of a part, to bytes and back.

With a reference (the base's elements at the same place, in the same dtype) the delta is tried first:
both sides mapped to ordered integers, subtracted modulo 2^bits, folded (zigzag), and sorted stably by
the reference's exponent field. A fine-tune moves weights by amounts that hardly depend on the weight,
so the *integer* step depends on the exponent: sorted by it, each stretch has one narrow distribution,
and is packed in fields of a width that suits it. The decoder knows the reference, hence the order and
the stretches: sorting costs no bytes.
"""

from __future__ import annotations

import numpy as np

from pv.registry.errors import CorruptPack
from pv.registry.packfile import CHUNK
from pv.vecstore.codecs import graded, rans
from pv.vecstore.codecs.frames import pack_planes, unpack_planes
from pv.vecstore.codecs.layout import LAYOUTS, Layout, Raw, from_ordered, to_ordered

__all__ = ["CHUNK", "decode", "encode"]

RAW, PLANES, DELTA, DENSE = 0, 1, 2, 3
GOOD_ENOUGH = 0.5  # of the raw size: a delta below it is not worth a second try standing alone


def encode(raw: Raw, dtype: str, reference: Raw | None = None, *, smallest: bool = False) -> bytes:
    """The smallest of raw, planes and delta. `raw` and `reference` are flat storage integers.

    With `smallest`, the delta is entropy-coded closer to its limit, several times more slowly.
    """
    best = bytes([RAW]) + raw.tobytes()
    if reference is not None:
        steps, lengths = _steps(raw, reference, LAYOUTS[dtype])
        best = min(best, bytes([DELTA]) + graded.pack(steps, lengths), key=len)
        if smallest:
            best = min(best, bytes([DENSE]) + rans.pack(steps, lengths), key=len)
    if len(best) > GOOD_ENOUGH * raw.nbytes:
        best = min(best, bytes([PLANES]) + pack_planes(raw), key=len)
    return best


def decode(data: memoryview, count: int, dtype: str, reference: Raw | None = None) -> Raw:
    """The inverse of `encode`. Raises CorruptPack; what comes out is still to be checked against its id."""
    layout = LAYOUTS[dtype]
    if not len(data):
        raise CorruptPack("an empty chunk")
    kind, body = data[0], data[1:]
    if kind == RAW:
        if len(body) != count * layout.itemsize:
            raise CorruptPack("a raw chunk has a wrong size")
        return np.frombuffer(body, layout.storage)
    if kind == PLANES:
        values, rest = unpack_planes(body, count, layout.itemsize)
        if len(rest):
            raise CorruptPack("a chunk is longer than its planes")
        return values
    if kind in (DELTA, DENSE) and reference is not None:
        order, lengths = _stretches(reference, layout)
        steps = (graded if kind == DELTA else rans).unpack(body, lengths, layout.itemsize)
        return _undelta(steps, order, reference, layout)
    raise CorruptPack("a chunk of an unknown kind, or a delta without its base")


def _steps(raw: Raw, reference: Raw, layout: Layout) -> tuple[Raw, list[int]]:
    steps = _zigzag(to_ordered(raw, layout) - to_ordered(reference, layout))  # modulo 2^bits
    order, lengths = _stretches(reference, layout)
    return steps if order is None else steps[order], lengths


def _undelta(steps: Raw, order: Raw | None, reference: Raw, layout: Layout) -> Raw:
    if order is not None:
        unsorted = np.empty_like(steps)
        unsorted[order] = steps
        steps = unsorted
    return from_ordered(to_ordered(reference, layout) + _unzigzag(steps), layout)


def _stretches(reference: Raw, layout: Layout) -> tuple[Raw | None, list[int]]:
    """Positions sorted by exponent (equal exponents in place), and how many there are of each."""
    if not layout.is_float:
        return None, [len(reference)]
    exponent = layout.exponent(reference)
    counts = np.bincount(exponent)
    return np.argsort(exponent, kind="stable"), [int(n) for n in counts[counts > 0]]


def _zigzag(step: Raw) -> Raw:
    """0, -1, 1, -2, ... to 0, 1, 2, 3, ...: small steps of both signs become small integers."""
    bits = 8 * step.itemsize
    signed = step.view(f"<i{step.itemsize}")
    folded: Raw = ((signed << 1) ^ (signed >> (bits - 1))).view(step.dtype)
    return folded


def _unzigzag(value: Raw) -> Raw:
    one = value.dtype.type(1)
    step: Raw = (value >> one) ^ (~(value & one) + one)
    return step
