"""Blocks of bytes in zstd frames, written and read with every size known beforehand.

A block: one byte mode (0 stored, 1 zstd, 2 one byte repeated), four bytes little-endian payload
size, payload. A frame's declared size is compared with the expected one before memory is taken.
"""

from __future__ import annotations

import numpy as np
import zstandard

from pv.registry.errors import CorruptPack
from pv.vecstore.tensors.array import Raw

__all__ = ["pack_block", "pack_planes", "unpack_block", "unpack_planes"]

LEVEL = 1  # as small as level 3 on these planes, and faster (research: storage 2.3)
MAX_WINDOW_BYTES = 8 << 20
STORED, ZSTD, CONSTANT = 0, 1, 2


def pack_planes(values: Raw, level: int = LEVEL) -> bytes:
    """Split unsigned integers into byte planes, lowest first, and pack each by itself."""
    planes = values.view(np.uint8).reshape(len(values), values.itemsize)  # (n, bytes per value)
    return b"".join(pack_block(np.ascontiguousarray(planes[:, i]), level) for i in range(values.itemsize))


def unpack_planes(data: memoryview, count: int, itemsize: int) -> tuple[Raw, memoryview]:
    """The inverse: `count` values and the bytes that follow. Raises CorruptPack."""
    planes = np.empty((count, itemsize), np.uint8)
    for i in range(itemsize):
        planes[:, i], data = unpack_block(data, count)
    return planes.reshape(-1).view(f"<u{itemsize}"), data


def pack_block(plane: Raw, level: int = LEVEL) -> bytes:
    """Bytes, in whichever mode is shortest."""
    if len(plane) and (plane == plane[0]).all():
        mode, payload = CONSTANT, plane[:1].tobytes()
    else:
        payload = zstandard.ZstdCompressor(level=level).compress(plane.data)
        mode = ZSTD
        if len(payload) >= len(plane):
            mode, payload = STORED, plane.tobytes()
    return bytes([mode]) + len(payload).to_bytes(4, "little") + payload


def unpack_block(data: memoryview, count: int) -> tuple[Raw, memoryview]:
    """`count` bytes, and what follows the block. Raises CorruptPack."""
    if len(data) < 5:
        raise CorruptPack("a chunk ends before its blocks do")
    mode, size = data[0], int.from_bytes(data[1:5], "little")
    payload, rest = data[5 : 5 + size], data[5 + size :]
    if len(payload) != size:
        raise CorruptPack("a chunk ends inside a block")
    if mode == STORED and size == count:
        return np.frombuffer(payload, np.uint8), rest
    if mode == CONSTANT and size == 1 and count:
        return np.full(count, payload[0], np.uint8), rest
    if mode == ZSTD and count:
        return np.frombuffer(_inflate(payload, count), np.uint8), rest
    raise CorruptPack("a block has an unknown mode or a wrong size")


def _inflate(frame: memoryview, count: int) -> bytes:
    try:
        declared = zstandard.get_frame_parameters(frame)
        if declared.content_size != count or declared.window_size > max(MAX_WINDOW_BYTES, count):
            raise CorruptPack("a zstd frame declares another size than the manifest")
        plain = zstandard.ZstdDecompressor().decompress(frame, max_output_size=count, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptPack(f"a zstd frame does not decode: {error}") from error
    if len(plain) != count:
        raise CorruptPack("a zstd frame holds another size than it declares")
    return plain
