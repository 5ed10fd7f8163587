"""A second reader, written from docs/FORMAT.md alone: the standard library and zstd, nothing of ours.

It decodes packs that pv wrote, and must get the very bytes. If it and pv disagree, one of them does not
follow the document.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from pv.registry.dtypes import DTYPES
from pv.registry.manifest import TensorRow, VectorManifest
from pv.vecstore.packs.codecs import chunks
from pv.vecstore.packs.codecs import dense as ours
from pv.vecstore.packs.codecs.forecast import Forecast
from pv.vecstore.packs.codecs.ordered import exponent as exponent_of
from pv.vecstore.packs.codecs.ordered import to_ordered
from pv.vecstore.packs.read import Pack
from pv.vecstore.packs.write import Part, write_pack
from pv.vecstore.tensors.array import Raw, storage_dtype

WIDTH = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F64": 8,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "I32": 4,
    "I64": 8,
}
EXPONENT = {
    "BF16": (7, 8),
    "F16": (10, 5),
    "F32": (23, 8),
    "F64": (52, 11),
    "F8_E4M3": (3, 4),
    "F8_E5M2": (2, 5),
}
# so that the bins of the weights below are of all sorts
SHIFT = {"BF16": 228, "F16": 18, "F32": 243, "F64": 2038, "F8_E4M3": 3, "F8_E5M2": 18}
BASE_ID = "0" * 64
KINDS_SEEN: set[int] = set()
RANKS_SEEN: set[int] = set()


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        assert len(piece) == count
        self.at += count
        return piece

    def block(self, n: int) -> bytes:
        mode, size = self.take(1)[0], int.from_bytes(self.take(4), "little")
        payload = self.take(size)
        if mode == 0:
            out = payload
        elif mode == 1:
            out = zstandard.ZstdDecompressor().decompress(payload)
        else:
            out = payload * n
        assert len(out) == n
        return out

    def planes(self, n: int, w: int) -> list[int]:
        found = [self.block(n) for _ in range(w)]
        return [int.from_bytes(bytes(plane[i] for plane in found), "little") for i in range(n)]


def read_pack(path: Path, base: dict[str, bytes]) -> tuple[dict[str, Any], dict[tuple[str, str], bytes]]:
    """(manifest, {(tensor, part): raw bytes}) of a pack; `base` gives a tensor's raw bytes."""
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    metadata = header.pop("__metadata__")
    blank = data[: 8 + n].replace(metadata["sha256"].encode(), b"0" * 64)
    body = data[8 + n :]
    assert hashlib.sha256(blank + hashlib.sha256(body).digest()).hexdigest() == metadata["sha256"]
    document = json.loads(metadata["pv"])
    manifest = document["manifest"]
    parts = {}
    for number, (name, part, sizes) in enumerate(document["parts"]):
        dtype, shape, tensor_id = manifest["tensors"][name][part]
        begin, end = header[str(number)]["data_offsets"]
        payload, w = Cursor(body[begin:end]), WIDTH[dtype]
        left, out, element = int(np.prod(shape, dtype=np.int64)), b"", 0
        for size in sizes:
            count = min(left, 1 << 20)
            reference = base.get(name, b"")[element * w : (element + count) * w]
            out += read_chunk(Cursor(payload.take(size)), count, dtype, reference)
            left, element = left - count, element + count
        prefix = b"pv:tensor:1\n" + json.dumps([dtype, shape], separators=(",", ":")).encode() + b"\n"
        assert hashlib.sha256(prefix + out).hexdigest() == tensor_id
        parts[name, part] = out
    return manifest, parts


def read_chunk(data: Cursor, n: int, dtype: str, reference: bytes) -> bytes:
    w = WIDTH[dtype]
    kind = data.take(1)[0]
    KINDS_SEEN.add(kind)
    if kind == 0:
        return data.take(n * w)
    if kind == 1:
        return b"".join(u.to_bytes(w, "little") for u in data.planes(n, w))
    r = [int.from_bytes(reference[i * w : (i + 1) * w], "little") for i in range(n)]
    m, e = EXPONENT.get(dtype, (0, 0))
    fields = [u >> m & (1 << e) - 1 for u in r]
    d = delta(data, fields, w) if kind == 2 else dense(data, fields)
    assert data.at == len(data.data)
    moved = [(ordered(u, 8 * w, dtype) + step) % (1 << 8 * w) for u, step in zip(r, d, strict=True)]
    return b"".join(unordered(o, 8 * w, dtype).to_bytes(w, "little") for o in moved)


def unfold(v: int) -> int:
    return v // 2 if v % 2 == 0 else -(v + 1) // 2


def ordered(u: int, b: int, dtype: str) -> int:
    if dtype not in EXPONENT:
        return u
    return u ^ ((1 << b) - 1) if u >> (b - 1) else u ^ (1 << (b - 1))


def unordered(o: int, b: int, dtype: str) -> int:
    if dtype not in EXPONENT:
        return o
    return o ^ (1 << (b - 1)) if o >> (b - 1) else o ^ ((1 << b) - 1)


def delta(data: Cursor, fields: list[int], w: int) -> list[int]:
    order = sorted(range(len(fields)), key=fields.__getitem__)
    lengths = [len(list(group)) for _, group in groupby(order, key=fields.__getitem__)]
    grades = list(data.take(len(lengths)))
    stretches: list[list[int]] = [[] for _ in lengths]
    for grade in (1, 2, 4, 8):
        mine = [i for i, g in enumerate(grades) if g == grade]
        if mine:
            values = cascade(data, sum(lengths[i] for i in mine), grade, w)
            for i in mine:
                stretches[i], values = values[: lengths[i]], values[lengths[i] :]
    steps = [0] * len(fields)
    for i, v in zip(order, (v for stretch in stretches for v in stretch), strict=True):
        steps[i] = unfold(v)
    return steps


def cascade(data: Cursor, n: int, g: int, w: int) -> list[int]:
    if g == 8:
        return data.planes(n, w)
    block = data.block(-(-n * g // 8))
    top = (1 << g) - 1
    fields = [block[i * g // 8] >> (i * g % 8) & top for i in range(n)]
    rest = iter(cascade(data, fields.count(top), 2 * g, w))
    return [top + next(rest) if f == top else f for f in fields]


def dense(data: Cursor, fields: list[int]) -> list[int]:
    n = len(fields)
    bins, down = [0] * n, [False] * n
    rank = data.take(1)[0]
    RANKS_SEEN.add(rank)
    if rank:
        columns, phase, shift, size = struct.unpack("<IIhI", data.take(14))
        rows = -(-(phase + n) // columns)
        folded = code(Cursor(data.take(size)), [k for k in range(rank) for _ in range(rows + columns)], rank)
        a = [unfold(v) for v in folded]
        for i in range(n):
            y, x = divmod(phase + i, columns)
            f = sum(a[k * (rows + columns) + y] * a[k * (rows + columns) + rows + x] for k in range(rank))
            down[i] = f < 0
            if f:
                bins[i] = min(max((f * f).bit_length() - 1 - 2 * max(fields[i], 1) + shift, 0), 15)
    models = data.take(1)[0]
    occur = sorted(set(fields))
    width = 16 if rank else 1
    classes = data.block(width * len(occur))
    contexts = [
        classes[width * occur.index(field) + place] for field, place in zip(fields, bins, strict=True)
    ]
    values = code(data, contexts, models)
    return [-unfold(v) if turn else unfold(v) for v, turn in zip(values, down, strict=True)]


def code(data: Cursor, contexts: list[int], models: int) -> list[int]:
    n = len(contexts)
    sizes = struct.unpack("<3I", data.take(12))
    lanes = min(max(1, n // 2048), 4096)
    model = Cursor(data.block(sizes[0]))
    states = list(struct.unpack(f"<{lanes}I", data.take(4 * lanes)))
    words = iter(struct.unpack(f"<{sizes[1] // 2}H", data.take(sizes[1])))
    digits = Cursor(data.take(sizes[2]))
    tables = []
    for _ in range(models):
        count = model.take(1)[0] or 256
        names = model.take(count)
        slots: list[tuple[int, int, int]] = []
        for name, less in zip(names, struct.unpack(f"<{count}H", model.take(2 * count)), strict=True):
            start = len(slots)
            slots += [(name, less + 1, start)] * (less + 1)
        assert len(slots) == 4096
        tables.append(slots)
    tokens: list[int] = []
    for begin in range(0, n, lanes):
        here = range(begin, min(begin + lanes, n))
        for i in here:
            s = states[i - begin]
            token, f, c = tables[contexts[i]][s % 4096]
            states[i - begin] = f * (s // 4096) + s % 4096 - c
            tokens.append(token)
        for lane in range(len(here)):
            if states[lane] < 1 << 16:
                states[lane] = states[lane] << 16 | next(words)
    assert set(states) == {1 << 16} and next(words, None) is None
    values = list(tokens)
    for token in sorted({t for t in tokens if t >= 16}):
        k, x = (token - 16) // 2 + 3, (token - 16) % 2
        places = [i for i, t in enumerate(tokens) if t == token]
        packed = int.from_bytes(digits.take(-(-len(places) * k // 8)), "little")
        for number, i in enumerate(places):
            values[i] = (2 + x) << k | packed >> (number * k) & (1 << k) - 1
    assert digits.at == len(digits.data)
    return values


def pair(dtype: str, n: int, spread: int) -> tuple[np.ndarray, np.ndarray]:
    """A base and a fine-tune of it: most elements unmoved, some a little, few arbitrary."""
    storage = storage_dtype(dtype)
    rng = np.random.Generator(np.random.Philox(n))
    base = rng.integers(0, 1 << 8 * storage.itemsize, n, dtype=np.uint64).astype(storage)
    if dtype == "BF16":
        base = (rng.standard_normal(n, dtype=np.float32) * np.float32(0.02)).view("<u4") >> 16
        base = base.astype(storage)
    step = np.rint(rng.standard_normal(n) ** 3 * spread).astype(np.int64)
    ft = (base.astype(np.int64) + step).astype(storage)
    wild = rng.integers(0, n, n // 200)
    ft[wild] = rng.integers(0, 1 << 8 * storage.itemsize, len(wild), dtype=np.uint64).astype(storage)
    return base, ft


def slices(raw: Raw) -> Callable[[int, int], Raw]:
    return lambda start, stop: raw[start:stop]


@pytest.mark.parametrize("smallest", [False, True], ids=["default", "max"])
@pytest.mark.parametrize("dtype", list(WIDTH))
def test_a_reader_from_the_document_gets_the_bytes(tmp_path: Path, dtype: str, smallest: bool) -> None:
    cases = {
        f"t{n}.{spread}": pair(dtype, n, spread) for n, spread in ((1, 1), (6001, 1), (9000, 40), (0, 1))
    }
    parts = [
        Part(name, "ft", dtype, ft.shape, slices(ft), slices(base)) for name, (base, ft) in cases.items()
    ]

    def manifest(rows: dict[tuple[str, str], TensorRow]) -> VectorManifest:
        return VectorManifest(BASE_ID, "exact", {name: {part: row} for (name, part), row in rows.items()})

    path = tmp_path / "pack"
    with path.open("w+b") as file:
        made = write_pack(file, parts, manifest, smallest=smallest)
    document, found = read_pack(path, {name: base.tobytes() for name, (base, _) in cases.items()})
    assert document == made.to_json()
    assert found == {(name, "ft"): ft.tobytes() for name, (_, ft) in cases.items()}


@pytest.mark.parametrize("dtype", [dtype for dtype in WIDTH if dtype in EXPONENT])
@pytest.mark.parametrize("start", [0, 77])
def test_steps_that_are_forecast(dtype: str, start: int) -> None:
    """By three directions, whatever they are worth, in a chunk that begins at the start of a row or within one."""
    layout, n, columns = DTYPES[dtype], 6000, 90
    reference, ft = pair(dtype, n, 3)
    phase = start % columns
    rows = -(-(phase + n) // columns)
    factors = np.rint(np.sin(np.arange(3.0 * (rows + columns)) ** 2) * 90).astype(np.int8).reshape(-1, 3)
    guess = Forecast(factors[:rows], factors[rows:], phase, SHIFT[dtype])
    steps = to_ordered(ft, layout) - to_ordered(reference, layout)
    raw = b"\3" + ours.code(ours.Guess(guess, steps, exponent_of(reference, layout)))
    assert read_chunk(Cursor(raw), n, dtype, reference.tobytes()) == ft.tobytes()
    assert chunks.decode(memoryview(raw), n, dtype, reference).tobytes() == ft.tobytes()


def test_a_matrix_of_more_than_one_chunk_is_forecast(tmp_path: Path) -> None:
    """Each chunk knows where in its row it begins. The second is short: this reader is slow."""
    columns = 1050
    rows = (1 << 20) // columns + 40  # the second chunk begins within a row
    base = 0x3C00 + (np.arange(rows * columns) % 3).astype("<u2")
    rng = np.random.Generator(np.random.Philox(5))
    change = np.outer(rng.standard_normal(rows), rng.standard_normal(columns)) * 4
    change += rng.standard_normal(change.shape)
    ft = base + np.rint(change).astype("<i2").view("<u2").reshape(-1)
    part = Part("t", "ft", "BF16", (rows, columns), lambda a, b: ft[a:b], lambda a, b: base[a:b])
    path = tmp_path / "pack"
    with path.open("w+b") as file:
        write_pack(
            file,
            [part],
            lambda made: VectorManifest(BASE_ID, "exact", {"t": {"ft": made["t", "ft"]}}),
            smallest=True,
        )
    with Pack(path) as pack:
        index, sizes = pack._chunks["t", "ft"]
        data = bytes(pack._file.read(str(index), 0, sum(sizes)))
        first, second = data[: sizes[0]], data[sizes[0] :]
        assert first[0] == second[0] == 3 and first[1] and second[1]
        assert int.from_bytes(first[2:6], "little") == int.from_bytes(second[2:6], "little") == columns
        assert int.from_bytes(second[6:10], "little") == (1 << 20) % columns > 0
        assert pack.read("t", "ft", lambda a, b: base[a:b]).tobytes() == ft.tobytes()
    rest = read_chunk(Cursor(second), len(ft) - (1 << 20), "BF16", base[1 << 20 :].tobytes())
    assert rest == ft[1 << 20 :].tobytes()


def test_a_part_of_more_than_one_chunk(tmp_path: Path) -> None:
    values = np.arange((1 << 20) + 5, dtype="<u4").view(np.uint8)[: (1 << 20) + 5]
    part = Part("t", "q", "I8", values.shape, lambda a, b: values[a:b])
    path = tmp_path / "pack"
    with path.open("w+b") as file:
        write_pack(file, [part], lambda rows: VectorManifest(BASE_ID, "int8", {"t": {"q": rows["t", "q"]}}))
    _, found = read_pack(path, {})
    assert found["t", "q"] == values.tobytes()


def test_every_kind_of_chunk_was_met() -> None:
    assert {0, 1, 2, 3} == KINDS_SEEN
    assert 0 in RANKS_SEEN and len(RANKS_SEEN) > 1  # with a forecast and without
