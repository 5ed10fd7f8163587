"""What torch.save writes, read without unpickling: against torch.load, and files that would do harm."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.errors import FormatError
from pv.vecstore.activations.formats import pt


def saved(value: Any, **settings: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **settings)
    return out.getvalue()


def rewritten(data: bytes, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The same archive with other members."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change.get(name.split("/", 1)[1], old.read(name)))
    return out.getvalue()


def program(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith("/data.pkl")))


base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
TENSORS = {
    "plain": base,
    "a view": base[1:3, 2:],
    "transposed": base.T,
    "expanded": torch.ones(1, 6).expand(2, 6),
    "half": base.half(),
    "bfloat16": base.bfloat16(),
    "double": base.double() / 3,
    "a parameter": torch.nn.Parameter(base.clone()),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_what_torch_loads(name: str) -> None:
    data = saved({"x": TENSORS[name], "and": base})  # which may share its storage
    expected = torch.load(io.BytesIO(data), weights_only=True)
    found = pt.load(data, "it")
    for key in expected:
        assert np.array_equal(found[key].f32("it"), expected[key].detach().float().numpy())


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=8,
)


@given(plain)
def test_plain_values_are_what_torch_loads(value: Any) -> None:
    data = saved(value)
    assert pt.load(data, "it") == torch.load(io.BytesIO(data), weights_only=True) == value


def test_an_ordered_dict_is_a_dict() -> None:
    assert pt.load(saved(OrderedDict(a=1)), "it") == {"a": 1}


class Runs:
    """What a pickle does to whoever opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    data = saved({"a": Runs(tmp_path / "was here")}, pickle_protocol=protocol)
    with pytest.raises(FormatError, match="could run code") as caught:
        pt.load(data, "it.pt")
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert not (tmp_path / "was here").exists()
    torch.load(io.BytesIO(data), weights_only=False)
    assert (tmp_path / "was here").exists()  # it would have been


def test_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    for data in (pickle.dumps(Runs(tmp_path / "x")), saved(base, _use_new_zipfile_serialization=False)):
        with pytest.raises(FormatError, match=r"not what torch\.save writes"):
            pt.load(data, "it.pt")
    assert not (tmp_path / "x").exists()


def test_what_torch_allows_and_a_vector_does_not_need_is_refused() -> None:
    for value in (
        torch.ones(3, dtype=torch.int64),
        torch.Size([1]),
        {"a": torch.float32},
        torch.ones(2).to_sparse(),
    ):
        with pytest.raises(FormatError, match="more than tensors"):
            pt.load(saved(value), "it")


def test_every_cut_and_many_flips_are_one_clear_error() -> None:
    data = saved({"a": torch.arange(3.0), "b": 1.5})
    for length in range(len(data)):
        with pytest.raises(FormatError):
            pt.load(data[:length], "it")


@given(st.data())
def test_no_broken_program_is_more_than_a_format_error(data: st.DataObject) -> None:
    good = saved({"a": torch.arange(3.0), "b": [1.5, (None, True)]})
    broken = bytearray(program(good))
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        pt.load(rewritten(good, {"data.pkl": bytes(broken)}), "it")
    except FormatError:
        return


@given(st.data())
def test_no_broken_archive_is_more_than_a_format_error(data: st.DataObject) -> None:
    broken = bytearray(saved({"a": torch.arange(3.0)}))
    directory = broken.index(b"PK\x01\x02")
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(directory, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = pt.load(bytes(broken), "it")
    except FormatError:
        return
    assert np.array_equal(found["a"].f32("it"), [0, 1, 2])


def shaped(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, count: int = 3) -> bytes:
    """A file of three numbers whose program claims another tensor."""
    good = saved(torch.arange(3.0))
    numbers = [b"(" + b"".join(pickle.dumps(n, 2)[2:-1] for n in row) + b"t" for row in (shape, strides)]
    claimed = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + pickle.dumps(count, 2)[2:-1] + b"tQ"
        + pickle.dumps(offset, 2)[2:-1] + numbers[0] + numbers[1] + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip
    return rewritten(good, {"data.pkl": claimed})


def test_the_claims_below_are_of_files_that_are_otherwise_good() -> None:
    assert np.array_equal(pt.load(shaped((3,), (1,)), "it").f32("it"), [0, 1, 2])


@pytest.mark.parametrize(
    "data",
    [
        shaped((4,), (1,)),
        shaped((3,), (1,), offset=1),
        shaped((2,), (1 << 39,)),
        shaped((1 << 39,), (0,)),
        shaped((1 << 20, 1 << 20), (0, 0)),
        shaped((3,), (-1,), offset=2),
        shaped((3,), (1,), offset=-1),
        shaped((3,), (1, 1)),
        shaped((1,) * 9, (1,) * 9),
        shaped((0,), (1,)),
        shaped((3,), (1,), count=1 << 40),
        shaped((3,), (1,), count=2),
    ],
)
def test_tensors_that_lie_about_their_size_take_no_memory(data: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(FormatError):
        pt.load(data, "it")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = rewritten(saved(torch.ones(3)), {"data/0": bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(FormatError, match="compressed"):
        pt.load(bomb, "it")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_long_program_and_a_huge_memo_are_refused() -> None:
    good = saved(torch.ones(3))
    with pytest.raises(FormatError, match="claims"):
        pt.load(rewritten(good, {"data.pkl": b"\x80\x02" + b"N" * (2 << 20) + b"."}), "it")
    program = b"\x80\x02N" + b"r" + struct.pack("<I", 0xFFFFFFF0) + b"."
    assert pt.load(rewritten(good, {"data.pkl": program}), "it") is None


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(100), rewritten(saved(1), {"byteorder": b"big"}),
     rewritten(saved(torch.ones(3)), {"data/0": b""})],
)  # fmt: skip
def test_what_is_no_such_file(data: bytes) -> None:
    with pytest.raises(FormatError):
        pt.load(data, "it")
