"""Small unsigned integers, stretch by stretch in fields of 1, 2, 4 or 8 bits, several to a byte.

zstd's entropy coder spends whole bits per byte, at least one. A stretch of steps that are 97 % zero holds
a fifth of a bit each: coded as bytes, it costs five times that. So each stretch has a grade g, the width of
its fields: g-bit fields packed into bytes let the coder see 8/g steps at once. A step of 2^g - 1 or more
fills its field with ones, and what exceeds that goes on to fields of twice the width, at last to bytes.

    blocks of a cascade that begins at grade g:  fields g, 2g, ... 4, then the byte planes of the rest
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pv.registry.errors import CorruptPack
from pv.vecstore.packs.codecs.frames import pack_block, pack_planes, unpack_block, unpack_planes
from pv.vecstore.tensors.array import Raw

__all__ = ["GRADES", "choose", "pack", "unpack"]

GRADES = (1, 2, 4, 8)
SAMPLE = 1 << 15


def choose(stretch: Raw) -> int:
    """The grade that packs a stretch well, judged from a regular sample. Any grade is correct."""
    sample = stretch[:: max(1, len(stretch) // SAMPLE)]
    share = np.bincount(np.minimum(sample, 16).astype(np.int64), minlength=17) / max(1, len(sample))
    if share[0] > 0.8:
        return 1
    if share[:3].sum() > 0.9:
        return 2
    return 4 if share[:15].sum() > 0.85 else 8


def pack(values: Raw, lengths: Sequence[int]) -> bytes:
    """Pack `values`, cut into stretches of these lengths: a grade byte each, then a cascade per grade."""
    ends = np.cumsum(lengths, dtype=np.int64)
    stretches = [values[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    grades = [choose(stretch) for stretch in stretches]
    out = [bytes(grades)]
    for grade in GRADES:
        chosen = [s for s, g in zip(stretches, grades, strict=True) if g == grade]
        if chosen:
            out.append(_cascade(np.concatenate(chosen), grade))
    return b"".join(out)


def unpack(data: memoryview, lengths: Sequence[int], itemsize: int) -> Raw:
    """The inverse. Raises CorruptPack if anything does not fit, is missing or is left over."""
    grades, data = bytes(data[: len(lengths)]), data[len(lengths) :]
    if len(grades) != len(lengths) or not set(grades) <= set(GRADES):
        raise CorruptPack("a chunk names a field width that does not exist")
    values = np.empty(sum(lengths), f"<u{itemsize}")
    ends = np.cumsum(lengths, dtype=np.int64)
    for grade in GRADES:
        places = [i for i, g in enumerate(grades) if g == grade]
        if not places:
            continue
        found, data = _uncascade(data, sum(lengths[i] for i in places), grade, itemsize)
        position = 0
        for i in places:
            values[ends[i] - lengths[i] : ends[i]] = found[position : position + lengths[i]]
            position += lengths[i]
    if len(data):
        raise CorruptPack("a chunk is longer than its stretches")
    return values


def _cascade(values: Raw, grade: int) -> bytes:
    out = []
    while grade < 8:
        top = values.dtype.type((1 << grade) - 1)
        out.append(pack_block(_to_fields(np.minimum(values, top).astype(np.uint8), grade)))
        values = values[values >= top] - top
        grade *= 2
    out.append(pack_planes(values))
    return b"".join(out)


def _uncascade(data: memoryview, count: int, grade: int, itemsize: int) -> tuple[Raw, memoryview]:
    levels: list[tuple[Raw, int]] = []
    while grade < 8:
        top = (1 << grade) - 1
        block, data = unpack_block(data, -(-count * grade // 8))
        fields = _from_fields(block, grade)
        if (fields[count:] != 0).any():
            raise CorruptPack("a chunk has fields after its last step")
        fields = fields[:count]
        levels.append((fields, top))
        count = int(np.count_nonzero(fields == top))
        grade *= 2
    values, data = unpack_planes(data, count, itemsize)
    for fields, top in reversed(levels):
        whole = fields.astype(values.dtype)
        whole[fields == top] += values
        values = whole
    return values, data


def _to_fields(values: Raw, width: int) -> Raw:
    """(n,) values below 2^width -> (ceil(n * width / 8),) bytes, first value in the lowest bits."""
    per_byte = 8 // width
    padded = np.zeros(-(-len(values) // per_byte) * per_byte, np.uint8)
    padded[: len(values)] = values
    columns = padded.reshape(-1, per_byte)  # (bytes, values per byte)
    packed = columns[:, 0].copy()
    for i in range(1, per_byte):
        packed |= columns[:, i] << np.uint8(i * width)
    return packed


def _from_fields(packed: Raw, width: int) -> Raw:
    """(m,) bytes -> (m * 8 / width,) values."""
    per_byte = 8 // width
    columns = np.empty((len(packed), per_byte), np.uint8)
    for i in range(per_byte):
        columns[:, i] = (packed >> np.uint8(i * width)) & np.uint8((1 << width) - 1)
    return columns.reshape(-1)
