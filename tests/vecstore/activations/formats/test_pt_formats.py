"""lm-eval's and persona_vectors' files: dicts and tensors of torch, and what they may not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.steering_formats import BLOCKS, MODEL, WIDTH, random_directions

from pv.registry.errors import BaseMismatch, FormatError, UsageError
from pv.vecstore.activations.formats import lm_eval, persona_vectors
from pv.vecstore.activations.formats.values import Model

ROW = torch.arange(WIDTH, dtype=torch.float32)
GOOD: dict[str, Any] = {"steering_vector": ROW, "steering_coefficient": 2.0, "action": "add"}
numbers = st.lists(st.floats(0.5, 2.0, width=32), min_size=3, max_size=3)


def put(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def test_lm_eval_hookpoints_are_names_within_the_base_model(tmp_path: Path) -> None:
    file = put(tmp_path / "v.pt", {"layers.2": GOOD, "layers.1.mlp": {**GOOD, "steering_vector": ROW[None]}})
    found = lm_eval.read(file, MODEL)
    assert sorted(found.directions) == ["model.layers.1.mlp", "model.layers.2"]
    assert all(np.array_equal(one, ROW) for one in found.directions.values())
    assert found.coefficient == 2.0
    assert lm_eval.recognise(file)
    assert not persona_vectors.recognise(file)


def test_lm_eval_coefficients_of_their_own_scale_the_directions(tmp_path: Path) -> None:
    other = {**GOOD, "steering_coefficient": -1, "bias": None, "head_index": None}
    found = lm_eval.read(put(tmp_path / "v.pt", {"layers.2": GOOD, "layers.1": other}), MODEL)
    assert found.coefficient is None
    assert np.array_equal(found.directions["model.layers.2"], 2 * ROW)
    assert np.array_equal(found.directions["model.layers.1"], -ROW)
    assert "coefficient of its own" in found.notes[0]
    without = {"steering_vector": ROW.bfloat16(), "action": "add"}
    assert lm_eval.read(put(tmp_path / "v.pt", {"layers.2": without}), MODEL).coefficient == 1.0


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from([*BLOCKS, "model.norm", "model.layers.1.mlp"]), numbers, min_size=1))
def test_lm_eval_round_trip(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "round.pt"
    directions = {site: np.array(one, np.float32) for site, one in values.items()}
    lm_eval.write(path, directions, Model(BLOCKS, width=3), coefficient=0.25)
    found = lm_eval.read(path, Model(BLOCKS))
    assert found.coefficient == 0.25
    assert found.directions.keys() == directions.keys()
    assert all(np.array_equal(found.directions[site], one) for site, one in directions.items())


def test_lm_eval_gets_whole_outputs_for_inputs_and_slices(tmp_path: Path) -> None:
    head = np.ones(16, np.float32)
    given = {"model.layers.2:input": np.ones(WIDTH, np.float32), "model.layers.1[3/4]": head}
    lm_eval.write(tmp_path / "v.pt", given, MODEL)
    found = lm_eval.read(tmp_path / "v.pt", MODEL).directions
    assert list(found) == ["model.layers.1"]
    assert np.array_equal(found["model.layers.1"], np.repeat([1, 1, 1, 2], 16))


@pytest.mark.parametrize("site", ["lm_head", "model.layers.1.self_attn.o_proj:input", "model.layers.0:input"])
def test_lm_eval_has_no_hookpoint_for_it(tmp_path: Path, site: str) -> None:
    with pytest.raises(UsageError, match="lm-eval steers what modules within model put out"):
        lm_eval.write(tmp_path / "v.pt", random_directions(site), MODEL)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"action": "clamp"}, UsageError, "clamps"),
        ({"action": "multiply"}, FormatError, "must be 'add'"),
        ({"head_index": 3}, UsageError, "head_index"),
        ({"bias": ROW}, UsageError, "bias"),
        ({"steering_coefficient": "2"}, FormatError, "must be a number"),
        ({"steering_coefficient": float("nan")}, FormatError, "must be a number"),
        ({"steering_vector": torch.ones(2, 3)}, FormatError, "one row"),
        ({"steering_vector": [1.0]}, FormatError, "one row"),
        ({"steering_vector": ROW * float("inf")}, FormatError, "NaN, infinity"),
        ({"steering_vector": ROW.double() * 1e300}, FormatError, "beyond fp32"),
        ({"steering_vector": ROW * 0}, FormatError, "steers nothing"),
        ({"steering_vector": torch.ones(3)}, BaseMismatch, "3 numbers"),
        ({"coefficient": 1.0}, FormatError, "'coefficient'"),
    ],
)
def test_lm_eval_entries_that_cannot_be_taken_over(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lm_eval.read(put(tmp_path / "v.pt", {"layers.2": GOOD | change}), MODEL)


@pytest.mark.parametrize("value", [{}, [GOOD], {3: GOOD}, {"layers.2": ROW}, ROW])
def test_lm_eval_files_that_are_none(tmp_path: Path, value: Any) -> None:
    with pytest.raises(FormatError, match="no steering file of lm-eval"):
        lm_eval.read(put(tmp_path / "v.pt", value), MODEL)


def test_persona_vectors_row_is_the_block_before(tmp_path: Path) -> None:
    rows = torch.arange(1, 6)[:, None] * torch.ones(5, WIDTH)
    file = put(tmp_path / "v.pt", rows.half())
    found = persona_vectors.read(file, MODEL)
    assert {site: one[0] for site, one in found.directions.items()} == dict(
        zip(BLOCKS, [2, 3, 4, 5], strict=True)
    )
    assert [word in " ".join(found.notes) for word in ("block i-1", "row 0", "final norm")] == [
        True,
        True,
        True,
    ]
    assert persona_vectors.recognise(file)
    assert not lm_eval.recognise(file)
    rows[0] = 0
    assert len(persona_vectors.read(put(file, rows), MODEL).notes) == 2


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(BLOCKS), numbers, min_size=1))
def test_persona_vectors_round_trip(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.pt"
    directions = {site: np.array(one, np.float32) for site, one in values.items()}
    persona_vectors.write(path, directions, Model(BLOCKS), coefficient=2)
    assert torch.load(path, weights_only=True).shape == (5, 3)
    found = persona_vectors.read(path, Model(BLOCKS, width=3)).directions
    assert found.keys() == directions.keys()
    assert all(np.array_equal(found[site], 2 * one) for site, one in directions.items())


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (torch.ones(4, WIDTH), BaseMismatch, "4 rows"),
        (torch.ones(5, 3), BaseMismatch, "3 numbers"),
        (torch.ones(5), FormatError, r"\[layers \+ 1, width\]"),
        ({"layers.2": GOOD}, FormatError, r"\[layers \+ 1, width\]"),
        (torch.ones(5, WIDTH) * float("nan"), FormatError, "NaN"),
        (torch.zeros(5, WIDTH), FormatError, "steers nothing"),
        (torch.ones(5, WIDTH, dtype=torch.int32), FormatError, "more than tensors"),
    ],
)
def test_persona_vectors_of_another_model_or_none(
    tmp_path: Path, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        persona_vectors.read(put(tmp_path / "v.pt", value), MODEL)


@pytest.mark.parametrize("site", ["model.layers.0:input", "model.layers.1.mlp"])
def test_persona_vectors_has_no_row_for_it(tmp_path: Path, site: str) -> None:
    with pytest.raises(UsageError):
        persona_vectors.write(tmp_path / "v.pt", random_directions(site), MODEL)
