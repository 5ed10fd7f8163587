"""Packs: what went in comes out, and no change of a file passes unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vectors import array, base_at, captured, kept, nudged, random_f32, save, small_base, store

from pv.registry import canonical
from pv.registry.dtypes import DTYPES
from pv.registry.errors import CorruptPack, IntegrityError
from pv.registry.manifest import TensorRow, VectorManifest
from pv.vecstore.packs.codecs.chunks import CHUNK
from pv.vecstore.packs.read import Pack, Reference
from pv.vecstore.packs.write import Part, write_pack
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.philox import bits32
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import reference_to

TENSORS = small_base()
BASE_ID = "ab" * 32


@dataclass(frozen=True)
class Made:
    """A pack's bytes, its id, how its parts are decoded, and what they are."""

    data: bytes
    id: str
    references: dict[tuple[str, str], Reference | None]
    parts: dict[tuple[str, str], bytes]


def _made(path: Path, base: Base) -> Made:
    with Pack(path) as pack:
        manifest = pack.manifest
        assert isinstance(manifest, VectorManifest)
        references = {
            (name, part): reference_to(base.manifest.tensors[name], rows, partial(base.raw, name))
            for name, rows in manifest.tensors.items()
            for part in rows
        }
        parts = {key: pack.read(*key, reference).tobytes() for key, reference in references.items()}
        return Made(path.read_bytes(), manifest.id, references, parts)


@pytest.fixture(scope="module", params=["exact", "float", "int8"])
def made(request: pytest.FixtureRequest, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    packs = store(folder)
    if request.param == "exact":
        vector = captured(folder / "ft", nudged(TENSORS, 4), base, packs).id
    else:
        deltas = {n: random_f32(n, t.raw.size) for n, t in TENSORS.items() if t.dtype != "I64"}
        vector = kept(base, packs, deltas, request.param)
    return _made(packs.path(vector), base)


def _write(parts: list[Part], threads: int = 2) -> tuple[bytes, VectorManifest]:
    file = BytesIO()
    manifest = partial(_manifest, BASE_ID)
    made = write_pack(file, parts, manifest, threads=threads)
    assert isinstance(made, VectorManifest)
    return file.getvalue(), made


def _manifest(base: str, rows: dict[tuple[str, str], TensorRow]) -> VectorManifest:
    tensors: dict[str, dict[str, TensorRow]] = {}
    for (name, part), row in rows.items():
        tensors.setdefault(name, {})[part] = row
    return VectorManifest(base, "float", tensors)


def _part(name: str, dtype: str, raw: Raw, reference: Raw | None = None) -> Part:
    against = None if reference is None else (lambda start, stop: reference[start:stop])
    return Part(name, "tau", dtype, raw.shape, lambda start, stop: raw[start:stop], against)


# Round trips


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
@pytest.mark.parametrize("against", [False, True])
def test_chunk_boundaries(tmp_path: Path, count: int, against: bool) -> None:
    raw = bits32(1, "raw", 0, count).astype(np.uint8) & np.uint8(0b1000_0111)
    reference = raw ^ np.uint8(1) if against else None
    data, manifest = _write([_part("w", "F8_E4M3", raw, reference)])
    (tmp_path / "pack").write_bytes(data)
    lookup = None if reference is None else (lambda start, stop: reference[start:stop])
    with Pack(tmp_path / "pack", expect=manifest.id) as pack:
        assert pack.read("w", "tau", lookup).tobytes() == raw.tobytes()
        pieces = list(pack.stream("w", "tau", lookup))
        assert [start for start, _ in pieces] == list(range(0, count, CHUNK))
        assert pack.checksum_holds()


@pytest.mark.parametrize("dtype", [d for d in sorted(DTYPES) if DTYPES[d].bits % 8 == 0])
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    raw = bits32(2, dtype, 0, 500).astype(storage_dtype(dtype))
    data, manifest = _write([_part("w", dtype, raw), _part("v", dtype, raw[:1]), _part("u", dtype, raw[:0])])
    (tmp_path / "pack").write_bytes(data)
    with Pack(tmp_path / "pack") as pack:
        assert pack.manifest == manifest
        assert pack.read("w", "tau").tobytes() == raw.tobytes()
        assert pack.read("v", "tau").tobytes() == raw[:1].tobytes()
        assert pack.read("u", "tau").size == 0


def test_the_same_bytes_for_any_thread_count_and_order() -> None:
    parts = [_part(f"w{i}", "BF16", array(f"w{i}", "BF16", 3000 * i).raw) for i in range(12)]
    first, _ = _write(parts, threads=1)
    assert all(_write(some, threads=n)[0] == first for some, n in [(parts, 2), (parts[::-1], 5)])


def test_a_pack_is_a_safetensors_file(tmp_path: Path, made: Made) -> None:
    from safetensors import safe_open

    (tmp_path / "pack").write_bytes(made.data)
    with safe_open(tmp_path / "pack", "numpy") as file:
        document = json.loads(file.metadata()["pv"])
        assert document["manifest"]["id"] == made.id
        assert sorted(file.keys(), key=int) == [str(i) for i in range(len(made.parts))]
        assert all(file.get_tensor(key).dtype == np.uint8 for key in file.keys())  # noqa: SIM118


def test_the_stated_checksum_is_what_the_format_says(made: Made) -> None:
    """As the module's text has it, computed anew."""
    length = 8 + int.from_bytes(made.data[:8], "little")
    header, data = made.data[:length], made.data[length:]
    stated = json.loads(header[8:])["__metadata__"]["sha256"].encode()
    blank = header.replace(stated, b"0" * 64)
    assert hashlib.sha256(blank + hashlib.sha256(data).digest()).hexdigest().encode() == stated


def test_progress_counts_every_byte() -> None:
    seen: list[int] = []
    raw = array("w", "BF16", CHUNK + 5).raw
    write_pack(BytesIO(), [_part("w", "BF16", raw)], partial(_manifest, BASE_ID), progress=seen.append)
    assert seen == [2 * CHUNK, 10]


def test_a_piece_that_is_not_there(tmp_path: Path, made: Made) -> None:
    (tmp_path / "pack").write_bytes(made.data)
    with Pack(tmp_path / "pack") as pack, pytest.raises(KeyError):
        pack.read("no such tensor", "tau")


# Damage


def _passes(path: Path, made: Made) -> bool:
    """Whether the file is taken for the pack. Whatever is read without an error is right."""
    try:
        with Pack(path, expect=made.id) as pack:
            for (name, part), reference in made.references.items():
                assert pack.read(name, part, reference).tobytes() == made.parts[name, part]
            return pack.checksum_holds()
    except IntegrityError:
        return False


def test_every_flipped_bit_is_noticed(tmp_path: Path, made: Made) -> None:
    path = tmp_path / "pack"
    path.write_bytes(made.data)
    assert _passes(path, made)
    rng = np.random.default_rng(7)
    header = 8 + int.from_bytes(made.data[:8], "little")
    places = [*range(10), *rng.integers(0, header, 50), *rng.integers(header, len(made.data), 60)]
    for place in places:
        data = bytearray(made.data)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        assert not _passes(path, made), f"byte {place} of {len(data)}, header {header}"


def test_the_checksum_covers_what_no_id_does(tmp_path: Path, made: Made) -> None:
    """The spaces behind the header, the checksum itself, a payload that nobody decodes."""
    path = tmp_path / "pack"
    length = 8 + int.from_bytes(made.data[:8], "little")
    stated = made.data.index(b'"sha256":"') + 10
    digit = b"1" if made.data[stated : stated + 1] != b"1" else b"2"
    padding = made.data.rindex(b"}", 0, length) + 1
    assert made.data[padding:length].strip() == b""
    places = [(stated, digit), (len(made.data) - 1, bytes([made.data[-1] ^ 1]))]
    places += [(length - 1, b"\n")] if padding < length else []
    for place, byte in places:
        path.write_bytes(made.data[:place] + byte + made.data[place + 1 :])
        with Pack(path) as pack:
            assert not pack.checksum_holds()


def test_every_truncation_is_noticed(tmp_path: Path, made: Made) -> None:
    path = tmp_path / "pack"
    rng = np.random.default_rng(8)
    for length in [0, 7, 8, 9, len(made.data) - 1, *rng.integers(0, len(made.data), 40)]:
        path.write_bytes(made.data[:length])
        with pytest.raises(CorruptPack) as caught:
            Pack(path, expect=made.id)
        assert "fsck" in (caught.value.hint or "")
    path.write_bytes(made.data + b"\0")
    assert not _passes(path, made)


def test_swapped_stretches_are_noticed(tmp_path: Path, made: Made) -> None:
    path = tmp_path / "pack"
    rng = np.random.default_rng(9)
    for _ in range(40):
        a, b, n = (int(x) for x in rng.integers(0, len(made.data) // 2, 3))
        data = bytearray(made.data)
        data[a : a + n], data[b : b + n] = made.data[b : b + n], made.data[a : a + n]
        if bytes(data) != made.data:
            path.write_bytes(data)
            assert not _passes(path, made)


def test_another_pack_under_the_name(tmp_path: Path, made: Made) -> None:
    (tmp_path / "pack").write_bytes(made.data)
    with pytest.raises(CorruptPack, match=f"holds {made.id[:12]}, not 000000000000"):
        Pack(tmp_path / "pack", expect="0" * 64)


def test_a_delta_against_another_base_is_noticed(tmp_path: Path, base: Base) -> None:
    packs = store(tmp_path)
    vector = captured(tmp_path / "ft", nudged(TENSORS, 4), base, packs).id
    name = "model.embed_tokens.weight"
    with (
        base_at(save(tmp_path / "other", small_base(seed=2))) as other,
        Pack(packs.path(vector)) as pack,
        pytest.raises(CorruptPack),
    ):
        pack.read(name, "ft", lambda start, stop: other.raw(name, start, stop))


# Lies: a whole file, written by somebody who knows the format

Edit = Callable[[dict[str, Any]], object]


def _forged(data: bytes, edit: Edit) -> bytes:
    """The pack with another description, and a checksum to go with it."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    payload = data[8 + length :]
    description = json.loads(header["__metadata__"]["pv"])
    edit(description)
    header["__metadata__"]["pv"] = canonical.dumps(description).decode()
    header["__metadata__"]["sha256"] = "0" * 64
    text = json.dumps(header).encode()
    blank = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(blank + hashlib.sha256(payload).digest()).hexdigest()
    return blank.replace(b"0" * 64, digest.encode()) + payload


def test_the_forger_can_forge(tmp_path: Path, made: Made) -> None:
    (tmp_path / "pack").write_bytes(_forged(made.data, lambda d: None))
    assert _passes(tmp_path / "pack", made)


def _swap_names(d: dict[str, Any]) -> None:
    parts = d["parts"]
    parts[0][:2], parts[1][:2] = parts[1][:2], parts[0][:2]


def _swap_sizes(d: dict[str, Any]) -> None:
    parts = d["parts"]
    parts[0][2], parts[1][2] = parts[1][2], parts[0][2]


def _swap_rows(d: dict[str, Any]) -> None:
    """Two tensors of one shape change places, and the id with them."""
    tensors = d["manifest"]["tensors"]
    a, b = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    tensors[a], tensors[b] = tensors[b], tensors[a]
    d["manifest"]["id"] = VectorManifest(
        d["manifest"]["base"],
        d["manifest"]["encoding"],
        {
            name: {part: TensorRow.from_json(row, "row") for part, row in parts.items()}
            for name, parts in tensors.items()
        },
    ).id


def _set(*path: Any, to: Any) -> Edit:
    def edit(d: dict[str, Any]) -> None:
        at: Any = d
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to

    return edit


NORM = "model.norm.weight"
LIES: dict[str, Edit] = {
    "names swapped": _swap_names,
    "sizes swapped": _swap_sizes,
    "rows swapped": _swap_rows,
    "a part twice": lambda d: d["parts"].__setitem__(1, d["parts"][0]),
    "a part missing": lambda d: d["parts"].pop(),
    "a part too many": lambda d: d["parts"].append(d["parts"][0]),
    "an unknown part": _set("parts", 0, 1, to="other"),
    "a chunk too many": lambda d: d["parts"][0][2].append(1),
    "a chunk cut in two": lambda d: d["parts"][0].__setitem__(2, [1, d["parts"][0][2][0] - 1]),
    "a chunk too long": lambda d: d["parts"][0][2].__setitem__(0, d["parts"][0][2][0] + 1),
    "a chunk of no bytes": _set("parts", 0, 2, to=[0]),
    "a chunk below zero": _set("parts", 0, 2, to=[-1]),
    "a chunk of exabytes": _set("parts", 0, 2, to=[1 << 52]),
    "a true chunk": _set("parts", 0, 2, to=[True]),
    "a part of another form": _set("parts", 0, to={"name": "x"}),
    "no parts": _set("parts", to=[]),
    "parts of another form": _set("parts", to={}),
    "another version": _set("pack", to=2),
    "a key too many": _set("code", to="import os"),
    "another id": _set("manifest", "id", to="0" * 64),
    "another base": _set("manifest", "base", to="0" * 64),
    "another encoding": _set("manifest", "encoding", to="lora"),
    "an unknown encoding": _set("manifest", "encoding", to="quantum"),
    "another kind": _set("manifest", "kind", to="base"),
    "no kind": _set("manifest", "kind", to="rows"),
    "no manifest": _set("manifest", to=None),
    "a tensor of exabytes": lambda d: [
        row.__setitem__(1, [1 << 30, 1 << 30]) for row in d["manifest"]["tensors"][NORM].values()
    ],
    "an unknown dtype": lambda d: [
        row.__setitem__(0, "F31") for row in d["manifest"]["tensors"][NORM].values()
    ],
}


@pytest.mark.parametrize("edit", LIES.values(), ids=LIES.keys())
def test_a_lying_description(tmp_path: Path, made: Made, edit: Edit) -> None:
    (tmp_path / "pack").write_bytes(_forged(made.data, edit))
    assert not _passes(tmp_path / "pack", made)


@pytest.mark.parametrize("edit", [e for n, e in LIES.items() if n not in ("names swapped", "rows swapped")])
def test_most_lies_are_noticed_before_anything_is_read(tmp_path: Path, made: Made, edit: Edit) -> None:
    (tmp_path / "pack").write_bytes(_forged(made.data, edit))
    with pytest.raises(CorruptPack):
        Pack(tmp_path / "pack", expect=made.id)


def test_a_file_that_is_no_pack(tmp_path: Path) -> None:
    folder = save(tmp_path, TENSORS)
    with pytest.raises(CorruptPack, match="is not a pack"):
        Pack(folder / "model.safetensors")
