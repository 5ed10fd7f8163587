"""Chunks that a pack may hold: kind `chunk`. The first line says the dtype, the count and the reference's seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attacks.case import Case, one_file
from support.vectors import array

from pv.registry.dtypes import DTYPES
from pv.vecstore.packs.codecs import rans
from pv.vecstore.packs.codecs.chunks import CHUNK
from pv.vecstore.tensors.array import Raw, storage_dtype

__all__ = ["cases", "frame", "reference", "zeros"]

MAGIC = b"\x28\xb5\x2f\xfd"
MIB = 1 << 20
HOME = (1 << 16).to_bytes(4, "little")


def reference(dtype: str, count: int, seed: int) -> Raw | None:
    """The base's elements that a chunk is decoded against; all of one exponent, so there is one stretch."""
    if not seed:
        return None
    layout = DTYPES[dtype]
    low = array("reference", dtype, count, seed=seed).raw & storage_dtype(layout.name).type(
        (1 << layout.mantissa) - 1
    )
    whole: Raw = low | storage_dtype(layout.name).type(1 << layout.mantissa)
    return whole


def chunk(dtype: str, count: int, seed: int, *body: bytes) -> bytes:
    return f"{dtype} {count} {seed}\n".encode() + b"".join(body)


def frame(
    declared: int | None,
    *blocks: tuple[int, int, bytes],
    window: int | None = None,
    dictionary: int = 0,
    checksum: bool = False,
    tail: bytes = b"",
) -> bytes:
    """A zstd frame (RFC 8878), written by hand so that it can lie: blocks are (type, size, content)."""
    single = window is None and declared is not None
    flag = 3 if declared is not None else 0
    dict_flag = 3 if dictionary else 0
    head = bytes([flag << 6 | single << 5 | checksum << 2 | dict_flag])
    if not single:
        head += bytes([(6 if window is None else window) << 3])
    if dictionary:
        head += dictionary.to_bytes(4, "little")
    if declared is not None:
        head += declared.to_bytes(8, "little")
    body = b""
    for number, (kind, size, content) in enumerate(blocks):
        last = number == len(blocks) - 1
        body += (last | kind << 1 | size << 3).to_bytes(3, "little") + content
    return MAGIC + head + body + tail


def zeros(count: int) -> list[tuple[int, int, bytes]]:
    """Run-length blocks of at most 128 KiB: 32 KiB of zeros to a byte."""
    sizes = [1 << 17] * (count >> 17) + [count % (1 << 17)] * (count % (1 << 17) > 0)
    return [(1, size, b"\0") for size in sizes]


def block(mode: int, payload: bytes, size: int | None = None) -> bytes:
    return bytes([mode]) + (len(payload) if size is None else size).to_bytes(4, "little") + payload


def planes(*blocks: bytes, count: int = 100) -> bytes:
    """A chunk of U8, so that there is one block."""
    return chunk("U8", count, 0, b"\1", *blocks)


def zstd(content: bytes, count: int = 100) -> bytes:
    return planes(block(1, content), count=count)


def cases() -> Iterator[Case]:
    for name, content in honest().items():
        yield one_file("chunk", name, content, taken=("decode",))
    for name, content in (frames() | blocks() | deltas() | codes() | forecasts()).items():
        yield one_file("chunk", name, content)
    yield one_file("chunk", "a zstd frame of 256 MiB of zeros", zstd(frame(256 * MIB, *zeros(256 * MIB))))
    yield one_file(
        "chunk",
        "256 MiB of zeros without a size",
        zstd(frame(None, *zeros(256 * MIB)), CHUNK),
    )
    yield one_file("chunk", "256 MiB of zeros that say 100", zstd(frame(100, *zeros(256 * MIB))))
    # Decodes, and has a right to: what must stay small is the memory that it takes.
    yield one_file("chunk", "62 digits for each of a million", many_digits, taken=("decode",))


def honest() -> dict[str, bytes]:
    """What the lies are told about."""
    return {
        "an honest raw chunk": chunk("BF16", 100, 0, b"\0", bytes(200)),
        "an honest zstd frame": zstd(frame(100, *zeros(100))),
        "an honest cascade": chunk("BF16", 16, 1, b"\2\1", block(0, bytes(2)), block(0, b"") * 4),
        "an honest code": dense(model((0, 4096))),
        "an honest forecast": forecast(code(model((4, 4096)))),
    }


def frames() -> dict[str, bytes]:
    good = frame(100, *zeros(100))
    return {
        "a zstd frame of 1 TiB": zstd(frame(1 << 40, *zeros(100))),
        "a zstd frame of 2^64 - 1": zstd(frame((1 << 64) - 1, *zeros(100))),
        "a zstd frame of 2^64 - 2": zstd(frame((1 << 64) - 2, *zeros(100))),
        "a zstd frame of too few": zstd(frame(100, *zeros(99))),
        "a zstd frame of too many": zstd(frame(100, *zeros(101))),
        "a zstd frame without a size": zstd(frame(None, *zeros(100))),
        "a zstd frame of nothing": zstd(frame(0, (0, 0, b""))),
        "a window of 2^41": zstd(frame(100, *zeros(100), window=31)),
        "a window of 128 MiB": zstd(frame(100, *zeros(100), window=17)),
        "a dictionary": zstd(frame(100, *zeros(100), dictionary=12345)),
        "a zstd frame with a wrong checksum": zstd(frame(100, *zeros(100), checksum=True, tail=b"\1\2\3\4")),
        "two zstd frames": zstd(good + good),
        "two zstd frames of a half": zstd(frame(50, *zeros(50)) * 2),
        "bytes after a zstd frame": zstd(good + b"x"),
        "a skippable frame": zstd(b"\x50\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100)),
        "a skippable frame, then a frame": zstd(
            b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + bytes(4) + good
        ),
        "a zstd frame of an old version": zstd(b"\x27\xb5\x2f\xfd" + bytes(20)),
        "a reserved block": zstd(frame(100, (3, 100, bytes(100)))),
        "a block beyond its frame": zstd(frame(100, (0, 100, bytes(10)))),
        "a zstd frame without its end": zstd(good[:-1]),
        "no zstd frame": zstd(bytes(30)),
        "gzip": zstd(b"\x1f\x8b\x08" + bytes(20)),
        "a zstd frame for nothing": zstd(frame(0, (0, 0, b"")), count=0),
    }


def blocks() -> dict[str, bytes]:
    return {
        "an empty chunk": chunk("U8", 100, 0),
        "an unknown kind of chunk": chunk("U8", 100, 0, b"\4", bytes(100)),
        "raw, too short": chunk("U8", 100, 0, b"\0", bytes(99)),
        "raw, too long": chunk("U8", 100, 0, b"\0", bytes(101)),
        "raw, of half elements": chunk("BF16", 100, 0, b"\0", bytes(199)),
        "no blocks": chunk("BF16", 100, 0, b"\1"),
        "half a block's head": chunk("BF16", 100, 0, b"\1\0\0"),
        "one plane of two": chunk("BF16", 100, 0, b"\1", block(2, b"\7")),
        "three planes of two": chunk("BF16", 100, 0, b"\1", block(2, b"\7") * 3),
        "an unknown mode": planes(block(3, bytes(100))),
        "a block that claims 4 GiB": planes(block(0, bytes(100), (1 << 32) - 1)),
        "a block one byte short": planes(block(0, bytes(99))),
        "a constant of two bytes": planes(block(2, b"\1\2")),
        "a constant of none": planes(block(2, b"")),
        "a constant for nothing": planes(block(2, b"\1"), count=0),
    }


def deltas() -> dict[str, bytes]:
    end = block(0, b"") * 2  # the two planes of BF16, of no values
    ones, none = bytes([0xFF] * 2), bytes(2)
    return {
        "a delta without its base": chunk("BF16", 16, 0, b"\2\1", block(0, none), end),
        "dense without its base": chunk("BF16", 16, 0, b"\3", bytes(40)),
        "grade 0": chunk("BF16", 16, 1, b"\2\0", block(0, none), block(0, b"") * 2, end),
        "grade 3": chunk("BF16", 16, 1, b"\2\3", block(0, bytes(6)), end),
        "grade 16": chunk("BF16", 16, 1, b"\2\x10", end),
        "grade 255": chunk("BF16", 16, 1, b"\2\xff", end),
        "no grades": chunk("BF16", 16, 1, b"\2"),
        "a grade and nothing": chunk("BF16", 16, 1, b"\2\1"),
        "a cascade that grows": chunk(
            "BF16", 16, 1, b"\2\1", block(0, ones), block(0, bytes([0xFF] * 40)), end
        ),
        "a cascade that stops": chunk("BF16", 16, 1, b"\2\1", block(0, ones), block(0, bytes([0xFF] * 4))),
        "a cascade whose last level is short": chunk(
            "BF16",
            16,
            1,
            b"\2\1",
            block(0, ones),
            block(2, b"\xff"),
            block(2, b"\xff"),
            block(0, bytes(15)) * 2,
        ),
        "fields after the last": chunk("BF16", 15, 1, b"\2\1", block(0, b"\0\x80"), block(0, b"") * 2, end),
        "a delta with more": chunk("BF16", 16, 1, b"\2\1", block(0, none), block(0, b"") * 2, end, b"x"),
    }


def model(*tokens: tuple[int, int]) -> bytes:
    """(token, frequency) of one stretch."""
    names = bytes(token for token, _ in tokens)
    return bytes([len(tokens) % 256]) + names + b"".join((f - 1).to_bytes(2, "little") for _, f in tokens)


def dense(
    table: bytes,
    states: bytes = HOME,
    words: bytes = b"",
    digits: bytes = b"",
    *,
    sizes: tuple[int, int, int] | None = None,
    classes: bytes = b"\0\1" + block(2, b"\0"),  # no forecast, one model, for the one exponent
    count: int = 16,
) -> bytes:
    return chunk("BF16", count, 1, b"\3", classes, code(table, states, words, digits, sizes=sizes))


def code(
    table: bytes,
    states: bytes = HOME,
    words: bytes = b"",
    digits: bytes = b"",
    *,
    sizes: tuple[int, int, int] | None = None,
) -> bytes:
    head = sizes or (len(table), len(words), len(digits))
    lengths = b"".join(n.to_bytes(4, "little") for n in head)
    return lengths + block(0, table) + states + words + digits


def forecast(
    factors: bytes,
    rank: int = 1,
    columns: int = 8,
    phase: int = 0,
    size: int | None = None,
    *,
    classes: bytes = b"\1" + block(2, b"\0"),
) -> bytes:
    """16 elements in rows of 8, say, with a factor for each row and column."""
    length = len(factors) if size is None else size
    head = bytes([rank]) + b"".join(
        n.to_bytes(s, "little") for n, s in ((columns, 4), (phase, 4), (0, 2), (length, 4))
    )
    return chunk("BF16", 16, 1, b"\3", head, factors, classes, code(model((0, 4096))))


def codes() -> dict[str, bytes]:
    zero = model((0, 4096))
    return {
        "dense, cut in its sizes": chunk("BF16", 16, 1, b"\3", bytes(8)),
        "a model that sums to 4095": dense(model((0, 4095))),
        "a model that sums to 4097": dense(model((0, 4095), (1, 2))),
        "a model with a token twice": dense(model((0, 2048), (0, 2048))),
        "a model that sums to 65536 times 4096": dense(bytes([0]) + bytes(range(256)) + b"\xff\xff" * 256),
        "a model cut short": dense(zero[:-1]),
        "a model with more": dense(zero + b"x"),
        "no model": dense(b""),
        "a model that claims 4 GiB": dense(zero, sizes=((1 << 32) - 1, 0, 0)),
        "words that claim 4 GiB": dense(zero, sizes=(len(zero), (1 << 32) - 2, 0)),
        "digits that claim 4 GiB": dense(zero, sizes=(len(zero), 0, (1 << 32) - 1)),
        "words of an odd length": dense(zero, words=b"x"),
        "words too many": dense(zero, words=b"xx"),
        "words too few": dense(model((0, 1), (1, 4095)), states=(1 << 16).to_bytes(4, "little")),
        "a state that is zero": dense(zero, states=bytes(4)),
        "a state that does not come home": dense(zero, states=(1 << 17).to_bytes(4, "little")),
        "no states": dense(zero, states=b""),
        "digits missing": dense(model((16, 4096))),
        "digits too many": dense(zero, digits=b"x"),
        "a step that the dtype cannot hold": dense(model((255, 4096)), digits=bytes(16 * 122 // 8)),
        "a step of one digit too many": dense(model((40, 4096)), digits=bytes(16 * 15 // 8)),
    }


def forecasts() -> dict[str, bytes]:
    factors = code(model((4, 4096)))
    most = (1 << 32) - 1
    return {
        "a forecast cut in its head": chunk("BF16", 16, 1, b"\3\1", bytes(13)),
        "a forecast and nothing": chunk("BF16", 16, 1, b"\3"),
        "a forecast of no columns": forecast(factors, columns=0),
        "a forecast of 2^32 - 1 columns": forecast(factors, columns=most),
        "a forecast that begins after its row": forecast(factors, phase=8),
        "a forecast that begins at 2^32 - 1": forecast(factors, phase=most),
        "a forecast of rank 255": forecast(factors, rank=255),
        "a forecast of rank 2 for 16 elements": forecast(factors, rank=2),
        "a forecast of one column": forecast(factors, columns=1),
        "a forecast that claims 4 GiB": forecast(factors, size=most),
        "a forecast one byte short": forecast(factors, size=len(factors) - 1),
        "a forecast of factors that do not fit": forecast(code(model((20, 4096)), digits=bytes(100))),
        "a forecast with a broken code": forecast(code(model((4, 4095)))),
        "a forecast and no models": forecast(factors, classes=b""),
        "no models": dense(model((0, 4096)), classes=b"\0\0" + block(2, b"\0")),
        "a model that is not there": dense(model((0, 4096)), classes=b"\0\1" + block(2, b"\1")),
        "a class too few": forecast(factors, classes=b"\1" + block(0, bytes(15))),
        "255 models for 16 elements": dense(model((0, 4096)), classes=b"\0\xff" + block(2, b"\0")),
    }


def many_digits() -> bytes:
    values = np.full(CHUNK, (1 << 64) - 1, "<u8")
    steps = rans.pack(values, np.zeros(CHUNK, np.intp), 1)
    return chunk("I64", CHUNK, 1, b"\3\0\1", block(2, b"\0"), steps)
