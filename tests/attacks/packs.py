"""Packs that a stranger wrote, every id and checksum in them right, but for what a case is about: kind `pack`.

And kinds `steeringpack` and `rowspack`: the same for steering vectors and for training rows.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attacks.case import BASE, TENSORS, Case

from pv.registry import ids
from pv.registry.disk.safetensors import header_bytes
from pv.registry.errors import FormatError

__all__ = ["Draft", "cases", "directed", "exact", "pinned"]

NORM, W = sorted(TENSORS)
ZEROS = "0" * 64
EQUAL = b"\1" + b"\2\1\0\0\0\0" * 2  # a chunk of BF16, all elements 0: as many as anyone asks for
SOME_ID = "5a" * 32


@dataclass
class Draft:
    """A pack to be: its description, its payloads, and what else its header says."""

    manifest: Any
    parts: Any
    payloads: list[bytes]
    version: Any = 1
    metadata: dict[str, str] = field(default_factory=dict)
    names: Callable[[int], str] = str
    honest: bool = True  # the manifest's id is what its content gives
    text: str | None = None  # in the place of the description
    damage: bool = False  # one bit of the payload flips after the checksum was taken

    def to_bytes(self) -> bytes:
        if self.honest:
            self.manifest["id"] = true_id(self.manifest)
        description = {"pack": self.version, "manifest": self.manifest, "parts": self.parts}
        text = self.text or json.dumps(description, separators=(",", ":"), sort_keys=True)
        tensors = {self.names(i): ("U8", (len(p),), len(p)) for i, p in enumerate(self.payloads)}
        blank = header_bytes(tensors, {"pv": text, "sha256": ZEROS, **self.metadata})
        data = b"".join(self.payloads)
        checksum = hashlib.sha256(blank + hashlib.sha256(data).digest()).hexdigest()
        if self.damage:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return blank.replace(f'"sha256":"{ZEROS}'.encode(), f'"sha256":"{checksum}'.encode()) + data

    @property
    def id(self) -> str:
        claimed = self.manifest.get("id") if isinstance(self.manifest, dict) else None
        return claimed if isinstance(claimed, str) and ids.is_id(claimed) else SOME_ID


def true_id(manifest: Any) -> str:
    """The id that a manifest's content has, if it can have one."""
    try:
        if manifest["kind"] == "base":
            return ids.base_id((name, *row) for name, row in manifest["tensors"].items())
        rows = [(n, part, row[2]) for n, parts in manifest["tensors"].items() for part, row in parts.items()]
        encoding = manifest["encoding"]
        if manifest["options"]:
            encoding = json.dumps([encoding, manifest["options"]], separators=(",", ":"), sort_keys=True)
        return ids.vector_id(manifest["base"], encoding, rows)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, FormatError, RecursionError):
        return SOME_ID


def row(dtype: str, shape: list[int], raw: bytes | None = None) -> list[Any]:
    return [dtype, shape, SOME_ID if raw is None else ids.tensor_id(dtype, shape, raw)]


def exact() -> Draft:
    """An ordinary vector: one tensor as fine-tuned, kept as it is."""
    raw = TENSORS[W].raw.tobytes()[::-1]
    return vector("exact", {W: {"ft": (row("BF16", [4, 6], raw), [b"\0" + raw])}})


def vector(encoding: str, tensors: dict[str, dict[str, tuple[list[Any], list[bytes]]]], **more: Any) -> Draft:
    """{tensor: {part: (row, chunks)}}"""
    flat = [
        (name, part, *made) for name, parts in sorted(tensors.items()) for part, made in sorted(parts.items())
    ]
    manifest = {
        "schema": 1,
        "kind": "vector",
        "id": ZEROS,
        "base": BASE.id,
        "encoding": encoding,
        "options": {},
        "tensors": {name: {part: made[0] for part, made in parts.items()} for name, parts in tensors.items()},
        **more,
    }
    parts = [[name, part, [len(chunk) for chunk in chunks]] for name, part, _, chunks in flat]
    return Draft(manifest, parts, [b"".join(chunks) for _, _, _, chunks in flat])


def pinned() -> Draft:
    """The base itself, as a pack."""
    chunks = [b"\0" + TENSORS[name].raw.tobytes() for name in sorted(TENSORS)]
    manifest = {**BASE.to_json(), "pinned": True}
    parts = [[name, "w", [len(chunk)]] for name, chunk in zip(sorted(TENSORS), chunks, strict=True)]
    return Draft(manifest, parts, chunks)


def cases() -> Iterator[Case]:
    def case(
        name: str,
        make: Callable[[], Draft],
        exits: frozenset[int] = frozenset({3}),
        taken: frozenset[str] = frozenset(),
    ) -> Case:
        def lay(folder: Path) -> None:
            draft = make()
            data = draft.to_bytes()
            (folder / draft.id[:2]).mkdir(parents=True)
            (folder / draft.id[:2] / draft.id).write_bytes(data)

        return Case(name, "pack", lay, exits, taken)

    yield case("an honest vector", exact, taken=frozenset({"read", "inspect", "vector", "build"}))
    yield case("an honest base", pinned, taken=frozenset({"read", "inspect"}))
    for name, change in edits().items():
        yield case(name, _edited(exact, change))
    for name, make in whole().items():
        yield case(name, make)
    for name, make in swollen().items():
        yield case(name, make, taken=frozenset({"inspect"}))  # which decodes nothing
    for name, make in damaged().items():
        yield case(name, make, taken=frozenset({"inspect"}))
    for name, make in misfits().items():  # good packs of something that does not fit this base
        yield case(name, make, frozenset({2, 3}), taken=frozenset({"inspect", "read"}))
    yield case("a bit that flipped", _edited(exact, lambda d: setattr(d, "damage", True)))
    for name, make in steering().items():
        yield replace(case(name, make), kind="steeringpack")
    for name, make in steering_to_inspect().items():  # which decodes nothing
        yield replace(case(name, make, taken=frozenset({"inspect"})), kind="steeringpack")
    for name, make in steering_misfits().items():
        yield replace(case(name, make, taken=frozenset({"inspect", "read"})), kind="steeringpack")
    honest = case("an honest steering vector", directed, taken=frozenset({"read", "inspect", "open"}))
    yield replace(honest, kind="steeringpack")
    yield case(
        "a steering vector for a task vector", directed, frozenset({2, 3}), frozenset({"inspect", "read"})
    )
    for name, lay in rows().items():
        yield Case(name, "rowspack", lay)
    yield Case("honest rows", "rowspack", rows_pack(ROW, rows_id=TRUE_ROWS), taken=frozenset({"load"}))


def _edited(make: Callable[[], Draft], change: Callable[[Draft], object]) -> Callable[[], Draft]:
    def edited() -> Draft:
        draft = make()
        change(draft)
        return draft

    return edited


def edits() -> dict[str, Callable[[Draft], object]]:
    """What may be wrong in one line of an ordinary vector's description."""

    def sizes(value: Any) -> Callable[[Draft], object]:
        return lambda d: d.parts.__setitem__(0, [W, "ft", value])

    def parts(value: Any) -> Callable[[Draft], object]:
        return lambda d: setattr(d, "parts", value)

    def claim(shape: list[int]) -> Callable[[Draft], object]:
        return lambda d: d.manifest["tensors"][W].update(ft=row("BF16", shape))

    def top(**values: Any) -> Callable[[Draft], object]:
        return lambda d: d.manifest.update(values)

    def says(**values: Any) -> Callable[[Draft], object]:
        def change(draft: Draft) -> None:
            for key, value in values.items():
                setattr(draft, key, value)

        return change

    def named(name: str) -> Callable[[Draft], object]:
        def change(draft: Draft) -> None:
            draft.manifest["tensors"] = {name: draft.manifest["tensors"][W]}
            draft.parts[0][0] = name

        return change

    def part_named(part: str) -> Callable[[Draft], object]:
        def change(draft: Draft) -> None:
            draft.manifest["tensors"][W] = {part: draft.manifest["tensors"][W]["ft"]}
            draft.parts[0][1] = part

        return change

    nest: Any = []
    for _ in range(900):
        nest = [nest]
    good = [W, "ft", [49]]
    return {
        "chunks that are too short": sizes([48]),
        "chunks that are too long": sizes([50]),
        "chunks that are too many": sizes([24, 25]),
        "no chunks": sizes([]),
        "a chunk of nothing": sizes([49, 0]),
        "a chunk of less than nothing": sizes([50, -1]),
        "a chunk of true": sizes([True]),
        "a chunk of 49.0": sizes([49.5]),
        "chunks that are text": sizes("49"),
        "chunks of 2^60": sizes([1 << 60]),
        "a part twice": parts([good, good]),
        "no part": parts([]),
        "a part that the manifest lacks": parts([[W, "tau", [49]]]),
        "a tensor that the manifest lacks": parts([["x", "ft", [49]]]),
        "parts that are an object": parts({"0": good}),
        "a part that is a number": parts([1]),
        "2^47 elements in 49 bytes": claim([1 << 47]),
        "2^48 elements in 49 bytes": claim([1 << 24, 1 << 24]),
        "2^96 elements in 49 bytes": claim([1 << 48, 1 << 48]),
        "minus 24 elements": claim([-24]),
        "an id that is another's": lambda d: (says(honest=False)(d), top(id=SOME_ID)(d)),
        "an id that is a path": lambda d: (says(honest=False)(d), top(id="../../x")(d)),
        "pack version 2": says(version=2),
        "pack version true": says(version=True),
        "pack version as text": says(version="1"),
        "a payload named 00": says(names=lambda i: f"{i:02d}"),
        "a payload named ../0": says(names=lambda i: f"../{i}"),
        "a payload too many": lambda d: d.payloads.append(b"x"),
        "a key too many": says(metadata={"more": "x"}),
        "a checksum that is none": says(metadata={"sha256": "x"}),
        "a checksum in capitals": says(metadata={"sha256": "AB" * 32}),
        "a description of nonsense": says(text="yes"),
        "a description that is a list": says(text="[]"),
        "a description with a key too many": says(text='{"pack":1,"manifest":{},"parts":[],"x":1}'),
        "a description with half a surrogate": says(text='{"pack":1,"manifest":{},"parts":"\\ud800"}'),
        "a description, 900 deep": says(text='{"pack":' * 900 + "1" + "}" * 900),
        "options, 900 deep": lambda d: (says(honest=False)(d), top(options={"a": nest})(d)),
        "options that are a list": top(options=[1]),
        "a new encoding": top(encoding="pickle"),
        "an encoding that is a list": top(encoding=["exact"]),
        "schema 2": top(schema=2),
        "schema true": top(schema=True),
        "a kind of its own": top(kind="model"),
        "a manifest that is text": says(manifest="x", honest=False),
        "a manifest that is null": says(manifest=None, honest=False),
        "a key of the manifest too many": top(run="rm -rf /"),
        "a base that is a path": top(base="../base"),
        "a tensor called \\n": named("a\nb"),
        "a tensor called ESC": named("\x1b[2J"),
        "a tensor with 1025 characters": named("n" * 1025),
        "a part called ESC": part_named("\x1b[2J"),
        "a part with 1025 characters": part_named("n" * 1025),
        "a tensor without parts": lambda d: (d.manifest["tensors"].update({W: {}}), parts([])(d)),
        "a dtype of its own": lambda d: d.manifest["tensors"][W]["ft"].__setitem__(0, "F31"),
    }


def whole() -> dict[str, Callable[[], Draft]]:
    """Packs of a base, where a vector belongs, and lies in them."""
    return {
        "a base with traversing files": _edited(pinned, lambda d: d.manifest.update(files=["../../x"])),
        "a base from nowhere": _edited(pinned, lambda d: d.manifest.update(origin={"kind": "hub"})),
        "a base with a part of its own": _edited(pinned, lambda d: d.parts[0].__setitem__(1, "ft")),
    }


def swollen() -> dict[str, Callable[[], Draft]]:
    """Bases that stand for more than anybody has: every chunk is true, and as good as empty."""

    def base(elements: int) -> Callable[[], Draft]:
        def make() -> Draft:
            draft = pinned()
            chunks = -(-elements // (1 << 20))
            draft.manifest["tensors"] = {"a": row("BF16", [elements])}
            draft.parts = [["a", "w", [len(EQUAL)] * chunks]]
            draft.payloads = [EQUAL * chunks]
            return draft

        return make

    return {"a base of 2 GiB in 6 kB": base(1 << 30), "a base of half a TiB in 3 MB": base(1 << 38)}


MANY = 1 << 19


def made(encoding: str, *parts: tuple[str, list[Any], list[bytes]], tensor: str = W) -> Callable[[], Draft]:
    return lambda: vector(encoding, {tensor: {part: (of, chunks) for part, of, chunks in parts}})


def exactly(of: list[Any], *chunks: bytes) -> Callable[[], Draft]:
    return made("exact", ("ft", of, list(chunks)))


def damaged() -> dict[str, Callable[[], Draft]]:
    """Chunks that do not give what the id says."""
    ft = TENSORS[W].raw.tobytes()
    plain = row("BF16", [4, 6], ft)
    tib = (1 << 40).to_bytes(8, "little")
    return {
        "other bytes than the id's": exactly(row("BF16", [4, 6]), b"\0" + ft),
        "an unknown kind of chunk in a pack": exactly(plain, b"\7" + ft),
        "a delta of nothing": exactly(plain, b"\2"),
        "grades that are none": exactly(plain, b"\2" + b"\xff" * 60),
        "a zstd frame of 1 TiB in a pack": exactly(
            plain, b"\1\1\x10\0\0\0(\xb5/\xfd\xe0" + tib + b"\x01\0\0"
        ),
        "a million elements in 49 bytes": exactly(row("BF16", [1 << 20]), b"\0" + ft),
        "a million elements where the base has 24": exactly(row("BF16", [1 << 20]), EQUAL),
        "2^39 elements of half a million chunks": exactly(row("BF16", [MANY << 20]), *[EQUAL] * MANY),
    }


def misfits() -> dict[str, Callable[[], Draft]]:
    """Well made, and of no use: not what the encoding or the base needs."""
    ft, count = TENSORS[W].raw.tobytes(), 24
    plain = row("BF16", [4, 6], ft)
    return {
        "a vector of a base without that tensor": made("exact", ("ft", plain, [b"\0" + ft]), tensor="x"),
        "a vector of another base": lambda: vector(
            "exact", {W: {"ft": (plain, [b"\0" + ft])}}, base="ab" * 32
        ),
        "the base's elements in another shape": exactly(row("BF16", [6, 4], ft), b"\0" + ft),
        "integers for floats": exactly(row("I64", [4, 6], bytes(192)), b"\0" + bytes(192)),
        "elements that share bytes": exactly(row("F4", [4, 6], bytes(count)), b"\0" + bytes(count)),
        "part ft of another encoding": made("float", ("ft", plain, [b"\0" + ft])),
        "parts that no encoding has": made("int8", ("z", plain, [b"\0" + ft])),
        "int8 with a scale too many": made(
            "int8",
            ("q", row("I8", [4, 6], bytes(count)), [b"\0" + bytes(count)]),
            ("scale", row("F32", [5], bytes(20)), [b"\0" + bytes(20)]),
        ),
        "factors that do not meet": made(
            "lora",
            ("a", row("F32", [2, 6], bytes(48)), [b"\0" + bytes(48)]),
            ("b", row("F32", [4, 3], bytes(48)), [b"\0" + bytes(48)]),
            ("s", row("F32", [], bytes(4)), [b"\0" + bytes(4)]),
        ),
        "factors of rank 0": made(
            "lora",
            ("a", row("F32", [0, 6], b""), []),
            ("b", row("F32", [4, 0], b""), []),
            ("s", row("F32", [], bytes(4)), [b"\0" + bytes(4)]),
        ),
        "gaps that run past the end": made(
            "sparse",
            ("gap", row("U8", [3], b"\xfe\xfe\xfe"), [b"\0\xfe\xfe\xfe"]),
            ("value", row("BF16", [3], bytes(6)), [b"\0" + bytes(6)]),
        ),
        "gaps for other values": made(
            "sparse",
            ("gap", row("U8", [3], b"\xff\1\1"), [b"\0\xff\1\1"]),
            ("value", row("BF16", [3], bytes(6)), [b"\0" + bytes(6)]),
        ),
        "a ternary that is none": made(
            "ternary",
            ("t", row("U8", [6], b"\xff" * 6), [b"\0" + b"\xff" * 6]),
            ("scale", row("F32", [4], bytes(16)), [b"\0" + bytes(16)]),
        ),
    }


SITE = "model.layers.0"
ZERO = b"\1" + b"\2\1\0\0\0\0" * 4  # the same as EQUAL, of F32


def direction(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def directed(
    raw: bytes = direction(1, 2, 3, 4, 5, 6),
    of: list[Any] | None = None,
    chunks: list[bytes] | None = None,
    site: str = SITE,
    part: str = "direction",
    **more: Any,
) -> Draft:
    """A steering vector: one direction of float32 numbers."""
    of = row("F32", [len(raw) // 4], raw) if of is None else of
    return vector("steering", {site: {part: (of, [b"\0" + raw] if chunks is None else chunks)}}, **more)


def steering() -> dict[str, Callable[[], Draft]]:
    """Packs that are no steering vector's, as their headers show."""
    nan = float("nan")
    many = {f"s{i:05}": {"direction": (row("F32", [1]), [b"\0" * 5])} for i in range(10_001)}
    return {
        "a direction of 2^47 numbers in 25 bytes": lambda: directed(of=row("F32", [1 << 47])),
        "a direction of too many chunks": lambda: directed(chunks=[b"\0" + bytes(12)] * 2),
        "a direction of fewer bytes than it says": lambda: _sized(directed(), 24),
        "a direction in fp64": lambda: directed(of=row("F64", [3])),
        "a direction that is NaN, in bf16": lambda: directed(direction(nan), row("BF16", [2])),
        "a direction in no dimension": lambda: directed(direction(1), row("F32", [], direction(1))),
        "a direction called tau": lambda: directed(part="tau"),
        "a direction at ESC": lambda: directed(site="\x1b[2J"),
        "a steering vector with options": lambda: directed(options={"hook": "os.system"}),
        "a steering vector of 10001 sites": lambda: vector("steering", many),
        "a steering vector of another id": lambda: _claimed(directed(), "ab" * 32),
    }


def _sized(draft: Draft, size: int) -> Draft:
    draft.parts[0][2] = [size]
    return draft


def _claimed(draft: Draft, claimed: str) -> Draft:
    draft.honest = False
    draft.manifest["id"] = claimed
    return draft


def steering_to_inspect() -> dict[str, Callable[[], Draft]]:
    """Packs whose directions are not what they say."""
    six = row("F32", [6])
    tib = (1 << 40).to_bytes(8, "little")
    frame = b"(\xb5/\xfd\xe0" + tib + b"\x01\0\0"
    return {
        "directions of 4 GiB in 25 kB": lambda: directed(of=row("F32", [1 << 30]), chunks=[ZERO] * 1024),
        "directions of 1 TiB in 6 MB": lambda: directed(of=row("F32", [1 << 38]), chunks=[ZERO] * (1 << 18)),
        "a direction of other numbers than its id's": lambda: directed(of=six),
        "a direction of a million numbers in 25 bytes": lambda: directed(of=row("F32", [1 << 20])),
        "a direction of 64 MiB of zeros": lambda: directed(of=row("F32", [1 << 24]), chunks=[ZERO] * 16),
        "a direction that is a delta": lambda: directed(of=six, chunks=[b"\2\1" + bytes(30)]),
        "a direction of a zstd frame of 1 TiB": lambda: directed(
            of=six, chunks=[b"\1" + b"\1" + len(frame).to_bytes(4, "little") + frame]
        ),
    }


def steering_misfits() -> dict[str, Callable[[], Draft]]:
    """Packs that are read, and steer nothing here."""
    nan, infinite = float("nan"), float("inf")
    return {
        "a direction of NaN": lambda: directed(direction(1, nan, 3)),
        "a direction to infinity": lambda: directed(direction(1, -infinite, 3)),
        "a direction of another base": lambda: directed(base="ab" * 32),
    }


ROW = b'{"chosen":"b","prompt":[{"content":"a","role":"user"}]}\n'
TRUE_ROWS = hashlib.sha256(b"pv:rows:1\n[" + ROW.strip() + b"]").hexdigest()


def rows_pack(
    data: bytes, *, dtype: str = "U8", name: str = "rows", pv: str | None = None, rows_id: str = SOME_ID
) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        text = json.dumps({"id": rows_id, "kind": "rows", "pack": 1}) if pv is None else pv
        blank = header_bytes({name: (dtype, (len(data),), len(data))}, {"pv": text, "sha256": ZEROS})
        checksum = hashlib.sha256(blank + hashlib.sha256(data).digest()).hexdigest()
        (folder / rows_id[:2]).mkdir(parents=True)
        (folder / rows_id[:2] / rows_id).write_bytes(
            blank.replace(ZEROS.encode(), checksum.encode(), 1) + data
        )

    return lay


def rows() -> dict[str, Callable[[Path], None]]:
    good, pack = ROW, rows_pack
    return {
        "rows of another id": pack(good),
        "rows under another name": pack(good, name="row"),
        "rows of signed bytes": pack(good, dtype="I8"),
        "rows that are no rows": pack(b'{"a":1}\n'),
        "rows that are a pickle": pack(b"\x80\x04."),
        "no rows": pack(b""),
        "rows with half a surrogate": pack(good.replace(b'"b"', b'"\\ud800"')),
        "rows, 900 deep": pack(b'{"prompt":' * 900 + b"1" + b"}" * 900),
        "a line of 33 MiB": pack(good.replace(b'"b"', b'"' + b"b" * (33 << 20) + b'"')),
        "rows described by a list": pack(good, pv="[]"),
        "rows described by half a surrogate": pack(good, pv='{"id":"\\ud800","kind":"rows","pack":1}'),
        "rows with the id of a path": pack(good, pv='{"id":"../../x","kind":"rows","pack":1}'),
    }
