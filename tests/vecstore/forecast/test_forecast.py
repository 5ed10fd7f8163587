"""Features, coefficients, and when nobody knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pv.registry.errors import FormatError
from pv.vecstore.forecast.calibration import (
    TARGETS,
    Calibration,
    Model,
    read_calibration,
    standard,
    write_calibration,
)
from pv.vecstore.forecast.features import FEATURES, Sketches, features
from pv.vecstore.forecast.forecast import Subject, forecast
from pv.vecstore.forecast.sketch import Sketch, Sketching

MODEL = Model(0.9, {"mean_help": 0.5, "delta_cosine": -0.25}, (-0.1, 0.2), (0.7, 0.4, 0.9))
TABLE = Calibration(
    "pairs of a test", "shapes", "all", 28, 0.9, dict.fromkeys(TARGETS, MODEL),
    {"mean_help": (-0.5, 0.5), "delta_cosine": (-0.5, 0.5)}, (5.0, 20.0), dict.fromkeys(TARGETS, (0.1, -0.2, 0.4)),
)  # fmt: skip


def sketch(*parts: float, seed: int = 0) -> Sketch:
    """Of a mixture of directions that are orthogonal, but for chance."""
    random = np.random.default_rng(seed)
    found = sum((part * random.standard_normal(20_000) / 141 for part in parts), np.zeros(20_000))
    sketching = Sketching(["layers.0.w", "layers.1.w"])
    sketching.add("layers.0.w", found.astype(np.float32))
    return sketching.done()


def subject(name: str, *parts: float) -> Subject:
    """Its delta goes down its gradient."""
    found = Sketches(sketch(*parts), sketch(*(-0.1 * part for part in parts)))
    return Subject(name, "base", "shapes", f"vector of {name}", found, "all")


A, B = subject("a", 10, 0), subject("b", 2, 10)


def test_the_features_of_two() -> None:
    found = features(A.sketches, B.sketches)
    assert found.keys() == FEATURES.keys()
    assert found["delta_cosine"] == pytest.approx(0.2, abs=0.15)
    assert found["gradient_cosine"] == pytest.approx(0.2, abs=0.15)
    assert found["mean_help"] == pytest.approx(0.2, abs=0.15) and found["least_help"] <= found["mean_help"]
    assert features(B.sketches, A.sketches) == pytest.approx(found)


def test_without_a_gradient_the_deltas_have_theirs() -> None:
    found = features(A.sketches, replace(B.sketches, gradient=None))
    assert found.keys() == {"delta_cosine", "deepest_delta_cosine", "log_norm_ratio"}
    assert features(A.sketches, Sketches()) == {}


def test_what_went_up_its_own_gradient_says_nothing_by_it() -> None:
    up = Sketches(A.sketches.delta, A.sketches.delta)
    assert "mean_help" not in features(up, B.sketches)


def test_a_prediction_is_the_sum_with_its_interval() -> None:
    (pair,) = forecast([A, B], TABLE).pairs
    assert pair.unknown is None and pair.mean is not None and pair.least is not None
    kept = 0.9 + 0.5 * pair.features["mean_help"] - 0.25 * pair.features["delta_cosine"]
    assert (pair.mean.kept, pair.mean.low, pair.mean.high) == pytest.approx((kept, kept - 0.1, kept + 0.2))
    assert pair.cosine == pair.features["delta_cosine"]


def test_three_are_three_pairs() -> None:
    found = forecast([A, B, subject("c", 0, 0, 10)], TABLE).pairs
    assert [(pair.a, pair.b) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(B, base="elsewhere"), "different bases"),
        (replace(B, vector=A.vector), "the same vector"),
        (replace(B, unknown="it was not trained"), "b: it was not trained"),
        (replace(B, learn="difference"), "b: trained with --learn difference"),
        (replace(B, sketches=Sketches(B.sketches.delta)), "b has no sketch of its gradient"),
        (replace(B, sketches=Sketches()), "b has no sketch of its"),
        (replace(B, sketches=Sketches(None, B.sketches.gradient)), "b has no sketch of its delta"),
        (subject("b", 100, 5), "b: its norm"),
        (subject("b", 0, 0.5), "b: its norm"),
        (subject("b", 9, 2), "delta cosine"),
        (subject("b", -9, 2), "delta cosine"),
    ],
)
def test_what_is_unlike_what_was_measured_is_not_known(other: Subject, why: str) -> None:
    (pair,) = forecast([A, other], TABLE).pairs
    assert pair.unknown is not None and why in pair.unknown
    assert pair.mean is pair.least is None
    assert (pair.cosine is None) == (other.base != A.base or other.sketches.delta is None)


def test_another_model_and_no_calibration_are_not_known() -> None:
    elsewhere = [replace(one, shapes="others") for one in (A, B)]
    (pair,) = forecast(elsewhere, TABLE).pairs
    assert pair.unknown == "the base is not of the model that was calibrated on" and pair.cosine is not None
    (pair,) = forecast([A, B], None).pairs
    assert pair.unknown == "no calibration was measured yet"


def test_a_calibration_comes_back(tmp_path: Path) -> None:
    write_calibration(tmp_path / "table.json", TABLE)
    assert read_calibration(tmp_path / "table.json") == TABLE


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"schema":2}', '{"schema":1,"models":{}}', '{"schema":1,"models":[]}']
)
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(FormatError):
        read_calibration(tmp_path / "table.json")


def test_the_table_of_the_package_can_be_read() -> None:
    own = standard()
    assert own is None or set(own.features) <= FEATURES.keys()


def test_what_another_pv_noted_is_no_error() -> None:
    whole = A.sketches.to_json()
    assert Sketches.of_json(whole).delta is not None
    others: list[object] = [None, 3, [], {"delta": 3}, {"delta": {**whole["delta"], "algorithm": 9}}]
    for document in others:
        assert Sketches.of_json(document) == Sketches()
    assert Sketches.of_json({**whole, "gradient": "x", "later": 1}).gradient is None
