from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.disk.safetensors import MAX_HEADER_BYTES, TensorFile, header_bytes, parse_header
from pv.registry.dtypes import DTYPES
from pv.registry.errors import FormatError


def spec(dtype: str = "F32", shape: object = (2,), begin: int = 0, end: int = 8) -> dict[str, object]:
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": [begin, end],
    }


def write(path: Path, header: object, data: bytes = bytes(8), *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


tables = st.dictionaries(
    st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), max_size=8).filter(
        lambda name: name != "__metadata__"
    ),
    st.tuples(
        st.sampled_from(sorted(d for d, row in DTYPES.items() if row.bits % 8 == 0)),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
    ),
    max_size=4,
)


@given(
    tables, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2), st.sampled_from([0, 4096])
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[str, tuple[str, tuple[int, ...]]],
    metadata: dict[str, str],
    pad_to: int,
) -> None:
    sizes = {}
    for name, (dtype, shape) in table.items():
        count = 1
        for n in shape:
            count *= n
        sizes[name] = (dtype, shape, count * DTYPES[dtype].bits // 8)
    head = header_bytes(sizes, metadata, pad_to=pad_to)
    assert len(head) % 8 == 0
    assert len(head) >= pad_to
    path = tmp_path_factory.mktemp("files") / "model.safetensors"
    raw = {name: bytes([i + 1]) * size[2] for i, (name, size) in enumerate(sizes.items())}
    path.write_bytes(head + b"".join(raw.values()))
    with TensorFile(path) as file:
        assert file.metadata == metadata
        assert {name: (e.dtype, e.shape, e.nbytes) for name, e in file.entries.items()} == sizes
        for name, data in raw.items():
            assert bytes(file.read(name)) == data
            assert bytes(file.read(name, len(data) // 2)) == data[len(data) // 2 :]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "not a JSON object"),
        (b'{"a":{},"a":{}}', "appears twice"),
        (b'{"a": NaN}', "not valid JSON"),
        (b"\xff", "not valid JSON"),
        ({"__metadata__": {"a": 1}}, "strings to strings"),
        ({"__metadata__": "a"}, "strings to strings"),
        ({"w": spec(end=4)}, "needs 8 bytes, not 4"),
        ({"w": spec(end=-8)}, "two sizes"),
        ({"w": spec(begin=8, end=0)}, "needs 8 bytes"),
        ({"w": spec(shape=(1 << 62, 1 << 62))}, "none absurd"),
        ({"w": spec(shape=(1 << 32, 1 << 32))}, "none absurd"),
        ({"w": spec(shape=(0, 1 << 40), end=0)}, "none absurd"),
        ({"w": spec(shape=(-2,))}, "list of at most"),
        ({"w": spec(shape=(2.0,))}, "list of at most"),
        ({"w": spec(shape=(True,))}, "list of at most"),
        ({"w": spec(shape=(1,) * 17)}, "list of at most"),
        ({"w": spec(shape="2")}, "list of at most"),
        ({"w": spec(dtype="I5")}, "unknown dtype"),
        ({"w": spec(dtype="F4", shape=(1,), end=1)}, "needs"),
        ({"w": {**spec(), "data_offsets": [0, 8, 8]}}, "two sizes"),
        ({"w": {**spec(), "data_offsets": [0.0, 8.0]}}, "two sizes"),
        ({"w": {**spec(), "more": 1}}, "exactly dtype"),
        ({"w": [1, 2]}, "exactly dtype"),
        ({"a\x00b": spec()}, "unusable name"),
        ({"n" * 1025: spec()}, "unusable name"),
        (b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "half a surrogate pair"),
        ({"a": spec(), "b": spec()}, "overlap"),
        ({"a": spec(), "b": spec(begin=4, end=12)}, "overlap"),
        ({"a": spec(begin=8, end=16)}, "leave a hole"),
        ({"a": spec(), "b": spec(begin=8, end=16)}, "truncated"),
        ({}, "belong to no tensor"),
    ],
)
def test_lying_headers(tmp_path: Path, header: object, message: str) -> None:
    path = write(tmp_path / "f.safetensors", header)
    with pytest.raises(FormatError, match=message):
        TensorFile(path)


@pytest.mark.parametrize("length", [9, 1 << 40, (1 << 64) - 1, MAX_HEADER_BYTES + 1])
def test_a_length_that_lies_takes_no_memory(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "f.safetensors", b"{}", b"", length=length)
    with pytest.raises(FormatError, match="claims a header"):
        TensorFile(path)


@pytest.mark.parametrize("size", range(8))
def test_a_file_too_short_for_its_length(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(bytes(size))
    with pytest.raises(FormatError, match="truncated"):
        TensorFile(path)


@given(st.binary(max_size=60), st.integers(0, 64))
def test_any_bytes_give_entries_or_a_format_error(header: bytes, data_bytes: int) -> None:
    try:
        entries, _ = parse_header(header, data_bytes=data_bytes, what="it")
    except FormatError:
        return
    assert sum(e.nbytes for e in entries) == data_bytes


def test_names_are_never_paths(tmp_path: Path) -> None:
    path = write(tmp_path / "f.safetensors", {"../../etc/passwd": spec()})
    with TensorFile(path) as file:
        assert bytes(file.read("../../etc/passwd")) == bytes(8)
    assert [p.name for p in tmp_path.iterdir()] == ["f.safetensors"]


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "f.safetensors", {"w": spec()})
    with TensorFile(path) as file:
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(FormatError, match="shorter"):
            file.read("w")
