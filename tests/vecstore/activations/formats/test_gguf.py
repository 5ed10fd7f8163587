"""GGUF control vectors: against the gguf package both ways, and files that lie."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.steering_formats import BLOCKS, MODEL, WIDTH, random_directions

from pv.registry.errors import BaseMismatch, FormatError, UsageError
from pv.vecstore.activations.formats import gguf
from pv.vecstore.activations.formats.values import Model


def foreign(path: Path, tensors: dict[str, Any], architecture: str = "controlvector") -> Path:
    """A file as the gguf package writes it, with values of every kind beside."""
    writer = package.GGUFWriter(path, architecture)
    writer.add_string(f"{architecture}.model_hint", "llama")
    writer.add_uint32(f"{architecture}.layer_count", len(tensors))
    writer.add_array("some.texts", ["a", "bc"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_float64("some.float", 1.5)
    writer.add_bool("some.bool", True)
    for name, one in tensors.items():
        writer.add_tensor(name, one)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return foreign(tmp_path / "v.gguf", {"direction.2": np.arange(WIDTH, dtype=np.float32)})


def test_what_the_package_writes_is_read(good: Path) -> None:
    found = gguf.read(good, MODEL)
    assert list(found.directions) == ["model.layers.2"]
    assert np.array_equal(found.directions["model.layers.2"], np.arange(WIDTH))
    assert found.coefficient is None
    assert found.facts == {"architecture": "controlvector", "model_hint": "llama", "layer_count": 1}
    assert "cvector-generator" in found.notes[0]


def test_what_is_written_the_package_reads(tmp_path: Path) -> None:
    directions = random_directions(BLOCKS[1], BLOCKS[2])
    gguf.write(tmp_path / "v.gguf", directions, MODEL, coefficient=-2)
    reader = package.GGUFReader(tmp_path / "v.gguf")
    tensors = {one.name: one for one in reader.tensors}
    assert list(tensors) == ["direction.1", "direction.2", "direction.3"]
    assert np.array_equal(tensors["direction.1"].data, -2 * directions[BLOCKS[1]])
    assert not tensors["direction.3"].data.any()
    assert all(one.tensor_type == package.GGMLQuantizationType.F32 for one in tensors.values())
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 3


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.integers(0, 3), st.lists(st.floats(0.5, 2.0, width=32), min_size=3, max_size=3), min_size=1
    ),
    st.sampled_from(gguf.CONVENTIONS),
)
def test_a_round_trip(tmp_path_factory: pytest.TempPathFactory, values: Any, convention: str) -> None:
    path = tmp_path_factory.getbasetemp() / "round.gguf"
    directions = {BLOCKS[i]: np.array(one, np.float32) for i, one in values.items()}
    first, last = {"llama.cpp": (1, 3), "repeng": (0, 3), "cvector-generator": (0, 2)}[convention]
    model = Model(BLOCKS, width=3)
    if min(values) < first or max(values) > last:
        with pytest.raises(UsageError, match="has no direction"):
            gguf.write(path, directions, model, convention=convention)
        return
    gguf.write(path, directions, model, convention=convention)
    found = gguf.read(path, model, convention=convention).directions
    assert found.keys() == directions.keys()
    assert all(np.array_equal(found[site], one) for site, one in directions.items())


def test_the_conventions_differ_as_they_say(good: Path, tmp_path: Path) -> None:
    assert list(gguf.read(good, MODEL, convention="repeng").directions) == ["model.layers.2"]
    assert list(gguf.read(good, MODEL, convention="cvector-generator").directions) == ["model.layers.1"]
    with pytest.raises(UsageError, match="no convention 'mine'"):
        gguf.read(good, MODEL, convention="mine")
    first = foreign(tmp_path / "0.gguf", {"direction.0": np.ones(WIDTH, np.float32)})
    assert list(gguf.read(first, MODEL, convention="repeng").directions) == ["model.layers.0"]
    with pytest.raises(FormatError, match=r"direction\.0"):
        gguf.read(first, MODEL)


def test_what_enters_a_block_is_what_leaves_the_one_before(tmp_path: Path) -> None:
    one = random_directions("model.layers.2:input", "model.layers.1")
    gguf.write(tmp_path / "v.gguf", one, MODEL)
    found = gguf.read(tmp_path / "v.gguf", MODEL).directions
    assert list(found) == ["model.layers.1"]
    assert np.array_equal(found["model.layers.1"], sum(one.values()))


@pytest.mark.parametrize(
    "site", ["model.layers.1.mlp", "model.norm", "model.layers.0:input", "model.layers.9"]
)
def test_a_site_without_a_number_is_refused(tmp_path: Path, site: str) -> None:
    with pytest.raises(UsageError) as caught:
        gguf.write(tmp_path / "v.gguf", random_directions(site), MODEL)
    assert caught.value.hint
    assert not (tmp_path / "v.gguf").exists()


def test_another_model_is_told_apart(good: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatch, match="no place in a model of 2 blocks"):
        gguf.read(good, Model(BLOCKS[:2]))
    with pytest.raises(BaseMismatch, match="64 numbers, and the model's blocks put out 32"):
        gguf.read(good, Model(BLOCKS, width=32))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"direction.1": np.ones(4, np.float16)}, "not F32"),
        ({"direction.1": np.ones((4, 4), np.float32)}, "2 dimensions"),
        ({"token_embd.weight": np.ones(4, np.float32)}, "no direction"),
        ({"direction.01": np.ones(4, np.float32)}, "no direction"),
        ({"direction.1": np.array([1, np.nan], np.float32)}, "NaN"),
        ({"direction.1": np.array([1, np.inf], np.float32)}, "NaN, infinity"),
        ({"direction.1": np.ones(4, np.float32), "direction.2": np.ones(5, np.float32)}, "of 4 and of 5"),
        ({"direction.1": np.zeros(4, np.float32)}, "steers nothing"),
        ({}, "no direction"),
    ],
)
def test_tensors_that_are_no_directions(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        gguf.read(foreign(tmp_path / "v.gguf", tensors), Model(BLOCKS))


def test_a_checkpoint_is_no_control_vector(tmp_path: Path) -> None:
    path = foreign(tmp_path / "v.gguf", {"direction.1": np.ones(4, np.float32)}, architecture="llama")
    with pytest.raises(FormatError, match="architecture is 'llama'"):
        gguf.read(path, MODEL)


def test_every_cut_of_a_file_is_one_clear_error(good: Path) -> None:
    data = good.read_bytes()
    end = data.rindex(np.arange(WIDTH, dtype=np.float32).tobytes()) + 4 * WIDTH  # padding follows
    for length in (*range(end - 4 * WIDTH), *range(end - 4 * WIDTH, end, 16), end - 1):
        good.write_bytes(data[:length])
        with pytest.raises(FormatError):
            gguf.read(good, MODEL)


@given(st.data())
def test_no_flipped_byte_is_more_than_a_format_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    broken = bytearray(gguf.encode(random_directions(BLOCKS[1], width=4), Model(BLOCKS)))
    at = data.draw(st.integers(0, len(broken) - 1))
    broken[at] = data.draw(st.integers(0, 255))
    path.write_bytes(broken)
    try:
        found = gguf.read(path, Model(BLOCKS))
    except (FormatError, BaseMismatch):
        return
    assert all(np.isfinite(one).all() for one in found.directions.values())


@pytest.mark.parametrize("claimed", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_counts_and_sizes_that_lie_take_no_memory(good: Path, claimed: int) -> None:
    data = good.read_bytes()
    size = data.index(b"direction.2") + len(b"direction.2") + 4
    places = {"tensors": 8, "values": 16, "first key": 24, "numbers": size, "offset": size + 12}
    for at in places.values():
        good.write_bytes(data[:at] + struct.pack("<Q", claimed) + data[at + 8 :])
        with pytest.raises(FormatError):
            gguf.read(good, MODEL)


def test_many_tensors_over_the_same_bytes_take_no_memory(tmp_path: Path) -> None:
    row = np.ones(10_000, np.float32)
    one = gguf.encode({BLOCKS[1]: row}, Model(BLOCKS[:2]))
    name = struct.pack("<Q", 11)
    head = one[: one.index(name + b"direction.1")]
    infos = [
        struct.pack("<Q", len(label)) + label + struct.pack("<IQIQ", 1, row.size, 0, 0)
        for label in (b"direction.%d" % number for number in range(1, 1000))
    ]
    data = head[:8] + struct.pack("<Q", len(infos)) + head[16:] + b"".join(infos)
    data += bytes(-len(data) % 32) + row.tobytes()
    (tmp_path / "v.gguf").write_bytes(data)
    with pytest.raises(FormatError, match="more numbers than"):
        gguf.read(tmp_path / "v.gguf", Model(tuple(f"b.{i}" for i in range(1001))))


def test_a_key_twice_and_another_version(good: Path) -> None:
    data = good.read_bytes()
    good.write_bytes(data.replace(b"some.texts", b"some.float"))
    with pytest.raises(FormatError, match="twice"):
        gguf.read(good, MODEL)
    good.write_bytes(data[:4] + struct.pack(">I", 3) + data[8:])
    with pytest.raises(FormatError, match="big-endian"):
        gguf.read(good, MODEL)
