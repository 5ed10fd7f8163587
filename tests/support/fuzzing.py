"""What must hold for any bytes that a stranger hands to a reader: one property a reader.

`from support.fuzzing import chunk, document, header`. Each takes bytes and returns, or fails: a reader may refuse
with a PvError that can be printed, or give what its format promises; nothing else. tests/fuzz drives them by
coverage (atheris), tests/*/test_fuzz_*.py by structure (hypothesis), and both start from `seeds`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import safetensors
from hypothesis import strategies as st

from pv.registry import canonical, ids
from pv.registry.combine import Combine
from pv.registry.disk.safetensors import header_bytes, parse_header
from pv.registry.dtypes import DTYPES
from pv.registry.errors import CorruptPack, FormatError, PvError
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.registry.steering import Condition, Steering, SteeringTerm
from pv.vecstore.data.rows import parse_rows
from pv.vecstore.packs.codecs import chunks, dense
from pv.vecstore.packs.codecs.forecast import Forecast
from pv.vecstore.packs.codecs.ordered import to_ordered
from pv.vecstore.packs.read import Pack
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.philox import bits32

__all__ = [
    "DOCUMENTS",
    "check_message",
    "chunk",
    "chunk_seeds",
    "document",
    "document_seeds",
    "examples",
    "header",
    "header_seeds",
    "mutated",
]

NAMES = sorted(row.name for row in DTYPES.values() if row.bits % 8 == 0)
MOST_ELEMENTS = 4096
LONGEST_MESSAGE = 4000
DOCUMENTS = ("persona", "base", "vector", "rows", "pack")
ID = "ab" * 32


def examples() -> int:
    """How many inputs a property is tried on: few in every run of the tests, PV_FUZZ_EXAMPLES in a long one."""
    return int(os.environ.get("PV_FUZZ_EXAMPLES", "400"))


def check_message(error: PvError) -> None:
    """An error that can be shown: some words, not a megabyte of a stranger's, no control characters."""
    for text in (str(error), error.hint or "-"):
        assert 0 < len(text) <= LONGEST_MESSAGE, f"a message of {len(text)} characters"
        assert all(ch.isprintable() or ch == "\n" for ch in text), f"unprintable: {text!r}"


# The header of a safetensors file ------------------------------------------------------------------


def header(data: bytes) -> None:
    """Two bytes that say how many data bytes follow, then the header's JSON.

    What is accepted tiles the data, and is what the reference library reads.
    """
    if len(data) < 2:
        return
    room, text = int.from_bytes(data[:2], "little"), data[2:]
    try:
        entries, metadata = parse_header(text, data_bytes=room, what="it")
    except FormatError as error:
        check_message(error)
        return
    position = 0
    for entry in entries:
        assert entry.begin == position
        position = entry.end
        assert 8 * entry.nbytes == DTYPES[entry.dtype].bits * int(np.prod(entry.shape, dtype=object))
    assert position == room
    assert len({entry.name for entry in entries}) == len(entries)
    assert all(isinstance(value, str) for value in metadata.values())
    file = len(text).to_bytes(8, "little") + text + bytes(room)
    theirs = {name: (spec["dtype"], tuple(spec["shape"])) for name, spec in safetensors.deserialize(file)}
    assert theirs == {entry.name: (entry.dtype, entry.shape) for entry in entries}


def header_seeds() -> list[bytes]:
    one = {"a": ("F32", (2, 3), 24)}
    several = {
        "model.norm.weight": ("BF16", (4,), 8),
        "scalar": ("F64", (), 8),
        "empty": ("I8", (0, 7), 0),
        "ünïcode 名": ("BOOL", (3,), 3),
    }
    small = {dtype: (dtype, (8,), DTYPES[dtype].bits) for dtype in NAMES}
    made = []
    for tensors, metadata in ((one, {}), (several, {"format": "pt"}), (small, {"a": "b", "c": '{"d": [1]}'})):
        room = sum(nbytes for _, _, nbytes in tensors.values())
        made.append(room.to_bytes(2, "little") + header_bytes(tensors, metadata)[8:])
    return made


# A chunk of a pack ---------------------------------------------------------------------------------


def chunk(data: bytes) -> None:
    """A dtype, two bytes of count, a reference's seed (0: none), then the chunk.

    What is accepted has the right size and dtype, and survives being packed again, both ways.
    """
    if len(data) < 4:
        return
    dtype, count = NAMES[data[0] % len(NAMES)], int.from_bytes(data[1:3], "little") % (MOST_ELEMENTS + 1)
    reference = _reference(dtype, count, data[3])
    try:
        raw = chunks.decode(memoryview(data)[4:], count, dtype, reference)
    except CorruptPack as error:
        check_message(error)
        return
    assert raw.dtype == storage_dtype(dtype) and raw.shape == (count,)
    if count:
        for smallest in (False, True):
            packed = chunks.encode(raw, dtype, reference, smallest=smallest)
            assert len(packed) <= 1 + raw.nbytes
            again = chunks.decode(memoryview(packed), count, dtype, reference)
            assert again.tobytes() == raw.tobytes()


def _reference(dtype: str, count: int, seed: int) -> Raw | None:
    if not seed:
        return None
    size = DTYPES[dtype].itemsize
    return bits32(seed, "reference", 0, 2 * count).view(np.uint8)[: count * size].view(storage_dtype(dtype))


def chunk_seeds() -> list[bytes]:
    made = []
    for number, dtype in enumerate(NAMES):
        for count, seed, most in ((1, 1, 2), (40, 0, 200), (300, 2, 3), (300, 3, 60), (4096, 4, 2)):
            reference = _reference(dtype, count, seed)
            storage = storage_dtype(dtype)
            step = (bits32(number, "step", 0, count) % np.uint32(most)).astype(storage)
            raw = step if reference is None else reference + step
            head = bytes([number]) + count.to_bytes(2, "little") + bytes([seed])
            tries = [chunks.encode(raw, dtype, reference)]
            if reference is not None:
                layout = DTYPES[dtype]
                steps = to_ordered(raw, layout) - to_ordered(reference, layout)
                exponent = chunks._exponent(reference, layout)
                tries.append(b"\2" + chunks._sorted(steps, reference, layout))
                tries.append(b"\3" + dense.pack(steps, exponent))
                tries.append(b"\3" + _forecast(steps, exponent))
            made += [head + packed for packed in tries if len(packed) < 3000]
    return made


def _forecast(steps: Raw, exponent: Raw) -> bytes:
    """Packed with a forecast of two directions, which says nothing true of these steps."""
    columns = min(len(steps), 16)
    draw = bits32(len(steps), "factors", 0, 2 * (len(steps) // columns + 2 + columns)).astype("<u2")
    factors = (draw % np.uint16(5)).astype(np.int8).reshape(-1, 2) - np.int8(2)
    rows = -(-(len(steps) + 3 % columns) // columns)
    guess = Forecast(factors[:rows], factors[rows : rows + columns], 3 % columns, 260)
    return dense.code(dense.Guess(guess, steps, exponent))


# The documents -------------------------------------------------------------------------------------


def document(data: bytes) -> None:
    """A byte that says which document, then its JSON. Ids that lie are corrected, to see what is behind them.

    What is accepted says of itself what it was read from, again and again.
    """
    if not data:
        return
    kind, text = DOCUMENTS[data[0] % len(DOCUMENTS)], data[1:]
    readers: dict[str, Callable[[bytes], None]] = {
        "persona": _persona,
        "base": lambda text: _manifest(text, BaseManifest),
        "vector": lambda text: _manifest(text, VectorManifest),
        "rows": _rows,
        "pack": _pack,
    }
    try:
        readers[kind](text)
    except PvError as error:
        check_message(error)
        assert error.exit_code in (2, 3), repr(error)


def _persona(text: bytes) -> None:
    persona = Persona.from_bytes(text)
    again = Persona.from_bytes(persona.to_bytes())
    assert again.to_bytes() == persona.to_bytes() and again.id == persona.id


def _manifest(text: bytes, kind: type[BaseManifest] | type[VectorManifest]) -> None:
    manifest = kind.from_bytes(_corrected(text, kind))
    again = kind.from_bytes(manifest.to_bytes())
    assert again.to_bytes() == manifest.to_bytes() and again.id == manifest.id


def _rows(text: bytes) -> None:
    rows = parse_rows(text)
    assert parse_rows(rows.to_bytes()).id == rows.id


def _corrected(text: bytes, kind: type[BaseManifest] | type[VectorManifest]) -> bytes:
    """The same document with the id that its content has, where it has one."""
    try:
        document = json.loads(text)
        document["id"] = _true_id(document, kind)
        return json.dumps(document).encode()
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, PvError):
        return text


def _true_id(document: dict[str, Any], kind: type[BaseManifest] | type[VectorManifest]) -> str:
    if kind is BaseManifest:
        return ids.base_id((name, *row) for name, row in document["tensors"].items())
    parts = [
        (name, part, row[2]) for name, parts in document["tensors"].items() for part, row in parts.items()
    ]
    encoding = document["encoding"]
    if document["options"]:
        encoding = canonical.dumps([encoding, document["options"]]).decode()
    return ids.vector_id(document["base"], encoding, parts)


def _pack(text: bytes) -> None:
    """A pack whose description is `text`, with payloads as long as it says, if that is not much."""
    try:
        document = json.loads(text)
        kind = BaseManifest if document["manifest"].get("kind") == "base" else VectorManifest
        document["manifest"] = json.loads(_corrected(json.dumps(document["manifest"]).encode(), kind))
        sizes = [int(sum(entry[2])) for entry in document["parts"]]
        text = json.dumps(document).encode()
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        sizes = [9]
    if sum(abs(n) for n in sizes) > 1 << 16 or len(sizes) > 100:
        return
    metadata = {"pv": text.decode(errors="replace"), "sha256": ID}
    tensors = {str(i): ("U8", (abs(n),), abs(n)) for i, n in enumerate(sizes)}
    payload = (b"\1" + b"\2\1\0\0\0\7" * 8)[: max(sizes, default=0)]
    fd = os.memfd_create("pack")
    try:
        os.write(fd, header_bytes(tensors, metadata))
        os.write(fd, b"".join(payload.ljust(abs(n), b"\0") for n in sizes))
        with Pack(_path(fd)) as pack:
            for name, part in pack._chunks:
                if pack._row(name, part).numel <= 1 << 16:
                    try:
                        pack.read(name, part)
                    except CorruptPack as error:
                        check_message(error)
    finally:
        os.close(fd)


def _path(fd: int) -> Any:
    from pathlib import Path

    return Path(f"/proc/self/fd/{fd}")


def document_seeds() -> list[bytes]:
    row = TensorRow("F32", (2,), ID)
    base = BaseManifest(
        {"a": row, "b": TensorRow("BF16", (), ID)}, {"kind": "path", "path": "/x"}, ("c.json",)
    )
    exact = VectorManifest(ID, "exact", {"a": {"ft": TensorRow("BF16", (3, 4), ID)}})
    int8 = VectorManifest(
        ID, "int8", {"a": {"q": TensorRow("I8", (2, 8), ID), "scale": row}}, {"x": [1, None]}
    )
    steering = VectorManifest(ID, "steering", {"model.layers.3": {"direction": row}})
    ties = Combine.of("ties", density=0.5, elect="weighted", merge="sum")
    behaviours = {
        "a": Behaviour(0.5, (Term(1.0, ID),)),
        "b.c": Behaviour(-1e-7, (Term(1.0, ID), Term(-2.5, "cd" * 32)), {"*.mlp.*": 0.0, "[!a-c]?": 2.0}),
    }
    when = Condition("cd" * 32, "model.layers.3", -0.25)
    known = {"tested": {"n": 20, "of": ["a", None, True, 0.5]}}
    term = SteeringTerm(-2.5, ID, ("a:input[3/9]", "b"), "reply", when, known, "b.c")
    personas = [
        Persona(ID),
        Persona(ID, behaviours, ties, Output("bf16", "nearest", (1 << 53) - 1)),
        Persona(
            ID, behaviours, steering=Steering("preserve-norm", {"formal": term, "x": SteeringTerm(0.0, ID)})
        ),
    ]
    rows = [
        b'{"prompt":"a","chosen":"b","rejected":"c"}\n{"prompt":"a","completion":"b"}',
        b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}',
        b'\xef\xbb\xbf{"prompt":[{"role":"system","content":"a"}],"chosen":[{"role":"assistant","content":"\\u00e9"}]}',
    ]
    packs = [
        {"pack": 1, "manifest": base.to_json(), "parts": [["a", "w", [13]], ["b", "w", [13]]]},
        {"pack": 1, "manifest": int8.to_json(), "parts": [["a", "q", [7]], ["a", "scale", [25]]]},
    ]
    made = [b"\0" + persona.to_bytes() for persona in personas]
    made.append(b"\1" + base.to_bytes())
    made += [b"\2" + manifest.to_bytes() for manifest in (exact, int8, steering)]
    made += [b"\3" + text for text in rows]
    made += [b"\4" + canonical.dumps(pack) for pack in packs]
    return made


# Changes of a seed ---------------------------------------------------------------------------------

TOKENS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-1", b"1e400", b"NaN", b"-Infinity", b"true", b"null",
    b"9007199254740993", b"1.5", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xff", b"\0", b"\n", b'"__metadata__":{}',
    b'"shape":[0]', b"[[[[[[[[", b"../", b"/", b"4294967296", b'"":', b"\x01\x00\x00\x00\x00", b"\x02\x01\x00\x00\x00",
    b"(\xb5/\xfd", b"P*M\x18", b"\xff\xff\xff\xff",
]  # fmt: skip
"""What a change may put in: pieces that the formats give a meaning to."""


def _stretch(data: bytes, span: int) -> Callable[[int], bytes]:
    return lambda start: data[start : start + span]


@st.composite
def mutated(draw: st.DrawFn, seeds: Iterable[bytes]) -> bytes:
    """A seed with up to eight bytes or stretches of it replaced, left out, doubled or swapped for a token."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data)))
        span = draw(st.sampled_from([0, 1, 1, 2, 4, 16, 64]))
        new = draw(
            st.sampled_from(TOKENS)
            | st.binary(max_size=4)
            | st.just(bytes(data[at : at + span]) * 2)
            | st.integers(0, len(data)).map(_stretch(bytes(data), span))
        )
        data[at : at + span] = new
    return bytes(data)
