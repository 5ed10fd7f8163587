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

from pv.registry.dtypes import DTYPES, DType
from pv.registry.errors import CorruptPack
from pv.registry.packs.packfile import CHUNK
from pv.vecstore.native import codecs
from pv.vecstore.packs.codecs import dense, graded
from pv.vecstore.packs.codecs.frames import pack_planes, unpack_planes
from pv.vecstore.packs.codecs.ordered import exponent as exponent_of
from pv.vecstore.packs.codecs.ordered import fold, from_ordered, to_ordered, unfold
from pv.vecstore.tensors.array import Raw

__all__ = ["CHUNK", "decode", "encode"]

RAW, PLANES, DELTA, DENSE = 0, 1, 2, 3
GOOD_ENOUGH = 0.5  # of the raw size: a delta below it is not worth a second try standing alone


def encode(
    raw: Raw,
    dtype: str,
    reference: Raw | None = None,
    *,
    smallest: bool = False,
    columns: int = 0,
    start: int = 0,
) -> bytes:
    """The smallest of raw, planes, delta and, if asked for, dense. `raw` and `reference` are flat storage integers.

    With `smallest`, the delta is entropy-coded closer to its limit, many times more slowly; it then matters
    that the chunk is of a matrix of `columns`, from flat index `start` on.
    """
    best = bytes([RAW]) + raw.tobytes()
    if reference is not None:
        row = DTYPES[dtype]
        best = min(best, bytes([DELTA]) + _sorted(raw, reference, row), key=len)
        if smallest and len(raw):
            steps = to_ordered(raw, row) - to_ordered(reference, row)  # modulo 2^bits
            packed = dense.pack(steps, _exponent(reference, row), columns, start % max(columns, 1))
            best = min(best, bytes([DENSE]) + packed, key=len)
    if len(best) > GOOD_ENOUGH * raw.nbytes:
        best = min(best, bytes([PLANES]) + pack_planes(raw), key=len)
    return best


def decode(data: memoryview, count: int, dtype: str, reference: Raw | None = None) -> Raw:
    """The inverse of `encode`. Raises CorruptPack; what comes out is still to be checked against its id."""
    row = DTYPES[dtype]
    if not len(data):
        raise CorruptPack("an empty chunk")
    kind, body = data[0], data[1:]
    if kind == RAW:
        if len(body) != count * row.itemsize:
            raise CorruptPack("a raw chunk has a wrong size")
        return np.frombuffer(body, row.storage)
    if kind == PLANES:
        values, rest = unpack_planes(body, count, row.itemsize)
        if len(rest):
            raise CorruptPack("a chunk is longer than its planes")
        return values
    if kind in (DELTA, DENSE) and reference is not None:
        if kind == DELTA and codecs.fits(row):
            return _unsorted_at_once(body, np.ascontiguousarray(reference), row)
        if kind == DENSE:
            steps = dense.unpack(body, _exponent(reference, row), row.itemsize)
        else:
            steps = _unsorted(body, reference, row)
        return from_ordered(to_ordered(reference, row) + steps, row)
    raise CorruptPack("a chunk of an unknown kind, or a delta without its base")


def _sorted(raw: Raw, reference: Raw, row: DType) -> bytes:
    if codecs.fits(row):
        raw, reference = np.ascontiguousarray(raw), np.ascontiguousarray(reference)
        counts = codecs.counts(reference, row)
        return graded.pack(codecs.sort(raw, reference, counts, row), counts[counts > 0].tolist())
    order, lengths = _stretches(reference, row)
    folded = fold(to_ordered(raw, row) - to_ordered(reference, row))
    return graded.pack(folded if order is None else folded[order], lengths)


def _unsorted_at_once(body: memoryview, reference: Raw, row: DType) -> Raw:
    counts = codecs.counts(reference, row)
    folded = graded.unpack(body, counts[counts > 0].tolist(), row.itemsize)
    return codecs.unsort(folded, reference, counts, row)


def _unsorted(body: memoryview, reference: Raw, row: DType) -> Raw:
    order, lengths = _stretches(reference, row)
    folded = graded.unpack(body, lengths, row.itemsize)
    if order is None:
        return unfold(folded)
    unsorted = np.empty_like(folded)
    unsorted[order] = folded
    return unfold(unsorted)


def _stretches(reference: Raw, row: DType) -> tuple[Raw | None, list[int]]:
    """Positions sorted by exponent (equal exponents in place), and how many there are of each."""
    if not row.is_float:
        return None, [len(reference)]
    exponent = exponent_of(reference, row)
    counts = np.bincount(exponent)
    return np.argsort(exponent, kind="stable"), [int(n) for n in counts[counts > 0]]


def _exponent(reference: Raw, row: DType) -> Raw:
    return exponent_of(reference, row) if row.is_float else np.zeros(len(reference), np.uint8)
