"""One chunk of a part, to bytes and back.

With a reference (the base's elements at the same place, in the same dtype) the delta is tried first:
both sides mapped to ordered integers, subtracted modulo 2^bits, folded (zigzag), and sorted stably by
the reference's exponent field. A fine-tune moves weights by amounts that hardly depend on the weight,
so the *integer* step depends on the exponent: sorted by it, each stretch has one narrow distribution.
The decoder knows the reference, hence the order: sorting costs no bytes.
"""

from __future__ import annotations

import numpy as np

from pv.registry.errors import CorruptPack
from pv.vecstore.codecs.frames import pack_planes, unpack_planes
from pv.vecstore.codecs.layout import LAYOUTS, Layout, Raw, from_ordered, to_ordered

__all__ = ["CHUNK", "decode", "encode"]

CHUNK = 1 << 20
"""Elements in every chunk of a part but the last."""

RAW, PLANES, DELTA = 0, 1, 2
GOOD_ENOUGH = 0.5  # of the raw size: a delta below it is not worth a second try standing alone


def encode(raw: Raw, dtype: str, reference: Raw | None = None) -> bytes:
    """The smallest of raw, planes and delta. `raw` and `reference` are flat storage integers."""
    best = bytes([RAW]) + raw.tobytes()
    if reference is not None:
        best = min(best, bytes([DELTA]) + pack_planes(_delta(raw, reference, LAYOUTS[dtype])), key=len)
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
        return unpack_planes(body, count, layout.itemsize)
    if kind == DELTA and reference is not None:
        return _undelta(unpack_planes(body, count, layout.itemsize), reference, layout)
    raise CorruptPack("a chunk of an unknown kind, or a delta without its base")


def _delta(raw: Raw, reference: Raw, layout: Layout) -> Raw:
    step = to_ordered(raw, layout) - to_ordered(reference, layout)  # modulo 2^bits
    order = _order(reference, layout)
    return _zigzag(step) if order is None else _zigzag(step)[order]


def _undelta(values: Raw, reference: Raw, layout: Layout) -> Raw:
    order = _order(reference, layout)
    if order is not None:
        unsorted = np.empty_like(values)
        unsorted[order] = values
        values = unsorted
    return from_ordered(to_ordered(reference, layout) + _unzigzag(values), layout)


def _order(reference: Raw, layout: Layout) -> Raw | None:
    """Positions sorted by exponent, equal exponents in place (a stable radix sort)."""
    return np.argsort(layout.exponent(reference), kind="stable") if layout.is_float else None


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
