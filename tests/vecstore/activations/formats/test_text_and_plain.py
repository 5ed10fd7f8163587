"""`.svec` JSON, the plain safetensors form, and the table of all formats."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support.steering_formats import BLOCKS, MODEL, WIDTH, random_directions

from pv.registry.errors import BaseMismatch, FormatError, NotFoundError, UsageError
from pv.vecstore.activations.formats import safetensors, svec
from pv.vecstore.activations.formats.table import FORMATS, format_of, named
from pv.vecstore.activations.formats.values import MAX_FILE, Model

numbers = st.lists(st.floats(0.5, 2.0, width=32), min_size=3, max_size=3)


def document(directions: Any) -> bytes:
    return json.dumps({"model_type": "llama", "directions": directions, "explained_variances": {}}).encode()


def test_svec_is_read_where_it_is_added_or_where_it_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "v.svec"
    file.write_bytes(document({"0": [1.0] * WIDTH, "2": [2] * WIDTH}))
    found = svec.read(file, MODEL)
    assert {site: one[0] for site, one in found.directions.items()} == {
        "model.layers.0:input": 1,
        "model.layers.1": 2,
    }
    assert found.facts["model_type"] == "llama"
    assert "one block later than it adds" in found.notes[0]
    assert list(svec.read(file, MODEL, convention="measured").directions) == [
        "model.layers.0",
        "model.layers.2",
    ]


@settings(max_examples=30)
@given(st.dictionaries(st.integers(-1, 2), numbers, min_size=1), st.sampled_from(svec.CONVENTIONS))
def test_svec_round_trip(tmp_path_factory: pytest.TempPathFactory, values: Any, convention: str) -> None:
    path = tmp_path_factory.getbasetemp() / "round.svec"
    sites = {-1: "model.layers.0:input", **dict(enumerate(BLOCKS))}
    directions = {sites[i]: np.array(one, np.float32) for i, one in values.items()}
    if convention == "measured" and -1 in values:
        with pytest.raises(UsageError, match="no layer -1"):
            svec.write(path, directions, MODEL, convention=convention)
        return
    svec.write(path, directions, MODEL, coefficient=0.5, convention=convention)
    found = svec.read(path, Model(BLOCKS), convention=convention).directions
    assert found.keys() == directions.keys()
    assert all(np.array_equal(found[site], one * np.float32(0.5)) for site, one in directions.items())


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", FormatError, "not valid JSON"),
        (b"[]", FormatError, "no .svec"),
        (document([1]), FormatError, "no .svec"),
        (document({}), FormatError, "no direction"),
        (document({"x": [1.0]}), FormatError, "no layer"),
        (document({"01": [1.0]}), FormatError, "no layer"),
        (document({"1": [[1.0]]}), FormatError, "no list of numbers"),
        (document({"1": [True]}), FormatError, "no list of numbers"),
        (document({"1": 1.0}), FormatError, "no list of numbers"),
        (document({"1": [float("nan")]}), FormatError, "NaN"),
        (document({"1": [1e300] * WIDTH}), FormatError, "beyond fp32"),
        (document({"1": [1.0]}), BaseMismatch, "1 numbers"),
        (document({"1": [1.0], "2": [1.0, 2.0]}), FormatError, "of 1 and of 2"),
        (document({"4": [1.0] * WIDTH}), BaseMismatch, "no place in a model of 4 blocks"),
        (document({"1": [1.0] * WIDTH})[:-9], FormatError, "not valid JSON"),
        (b"[" * 100_000, FormatError, "not valid JSON"),
    ],
)
def test_svec_files_that_are_none(tmp_path: Path, data: bytes, error: type[Exception], message: str) -> None:
    (tmp_path / "v.svec").write_bytes(data)
    with pytest.raises(error, match=message):
        svec.read(tmp_path / "v.svec", MODEL)


def test_svec_has_no_layer_after_the_last_block(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no layer 4"):
        svec.write(tmp_path / "v.svec", random_directions(BLOCKS[3]), MODEL)


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
shapes = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@settings(max_examples=30)
@given(
    st.dictionaries(names.filter(lambda n: n != "__metadata__"), shapes, min_size=1, max_size=4),
    st.floats(-9, 9),
)
def test_safetensors_round_trip(
    tmp_path_factory: pytest.TempPathFactory, values: Any, coefficient: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    directions = {
        site: np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
        for site, shape in values.items()
    }
    safetensors.write(path, directions, MODEL, coefficient=coefficient)
    found = safetensors.read(path, MODEL)
    assert found.coefficient == coefficient
    assert found.facts == {"base": MODEL.base}
    assert found.directions.keys() == directions.keys() == load_file(path).keys()
    for site, one in directions.items():
        assert found.directions[site].shape == one.shape
        assert np.array_equal(found.directions[site], one)
        assert np.array_equal(load_file(path)[site], one)


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        ({"a": np.ones(3, np.float32)}, {}, FormatError, "no steering vector"),
        ({"a": np.ones(3, np.float32)}, {"pv_steering": "cd" * 32}, BaseMismatch, "measured on base cdcd"),
        ({"a": np.ones(3, np.int32)}, {"pv_steering": ""}, FormatError, "is I32"),
        ({"a": np.array([np.nan], np.float16)}, {"pv_steering": ""}, FormatError, "NaN"),
        ({"a": np.zeros(3, np.float32)}, {"pv_steering": ""}, FormatError, "steers nothing"),
        (
            {"a": np.ones(3, np.float32)},
            {"pv_steering": "", "coefficient": "inf"},
            FormatError,
            "the coefficient",
        ),
        (
            {"a": np.ones(3, np.float32)},
            {"pv_steering": "", "coefficient": "x"},
            FormatError,
            "the coefficient",
        ),
    ],
)
def test_safetensors_that_are_no_vector_of_this_base(
    tmp_path: Path, tensors: Any, metadata: Any, error: type[Exception], message: str
) -> None:
    save_file(tensors, tmp_path / "v.safetensors", metadata)
    with pytest.raises(error, match=message):
        safetensors.read(tmp_path / "v.safetensors", MODEL)


def test_a_file_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    for form in FORMATS:
        path = tmp_path / "without an ending"
        form.write(path, random_directions(BLOCKS[1]), MODEL)
        assert format_of(path) is form is named(form.name)
        assert list(form.read(path, MODEL).directions) == ["model.layers.1"]
        for convention in form.conventions:
            assert form.read(path, MODEL, convention=convention).directions
        with pytest.raises(UsageError, match="no convention"):
            form.read(path, MODEL, convention="mine")
    for other in (b"", b"GIF89a", json.dumps({"a": 1}).encode()):
        path.write_bytes(other)
        with pytest.raises(FormatError, match="no steering vector in a format"):
            format_of(path)
    torch.save([1], path)
    with pytest.raises(FormatError, match="no steering vector in a format"):
        format_of(path)
    with pytest.raises(UsageError, match="no format"):
        named("tar")


def test_the_documentation_names_every_format_and_convention() -> None:
    text = (Path(__file__).parents[4] / "docs" / "steering-formats.md").read_text()
    for form in FORMATS:
        for name in (form.name, *form.conventions):
            assert f"`{name}` |" in text


@pytest.mark.parametrize("form", FORMATS[:-1], ids=lambda form: form.name)
def test_a_model_without_blocks_has_safetensors_only(tmp_path: Path, form: Any) -> None:
    with pytest.raises(UsageError) as caught:
        form.write(tmp_path / "v", {"block2.conv:input": np.ones(WIDTH, np.float32)}, Model(()))
    assert caught.value.hint
    form.write(tmp_path / "v", random_directions(BLOCKS[1]), MODEL)
    if form.name != "lm-eval":
        with pytest.raises((UsageError, BaseMismatch)):
            form.read(tmp_path / "v", Model(()))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_is_no_file_is_one_clear_error(tmp_path: Path, form: Any) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(MAX_FILE + 1)
    for name in ("folder", "empty", "pipe", "huge"):
        with pytest.raises(FormatError, match=name):
            form.read(tmp_path / name, MODEL)
    with pytest.raises(NotFoundError):
        form.read(tmp_path / "nothing", MODEL)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_is_not_finite_is_not_written(tmp_path: Path, form: Any) -> None:
    for coefficient in (float("nan"), float("inf"), 3e38):
        direction = {BLOCKS[1]: np.full(WIDTH, 9, np.float32)}
        if coefficient == 3e38 and form.name == "safetensors":
            continue  # the product is not taken
        with pytest.raises(UsageError, match="finite"):
            form.write(tmp_path / "v", direction, MODEL, coefficient=coefficient)
    with pytest.raises(UsageError, match="finite"):
        form.write(tmp_path / "v", {BLOCKS[1]: np.full(WIDTH, np.nan, np.float32)}, MODEL)
    with pytest.raises(UsageError, match="without a direction"):
        form.write(tmp_path / "v", {}, MODEL)
    assert not (tmp_path / "v").exists()
