"""What is recommended, at the borders of each rule; and that the document says the rule that runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.vecstore.merge.advice import AGAINST, CONFLICT, LARGE, RULE, SAME, recommend
from pv.vecstore.merge.report import BehaviourFigures, Interference, PairFigures

DOCUMENT = Path(__file__).parents[3] / "docs" / "interference.md"


def measured(
    *norms: float,
    cosine: float = 0.0,
    conflict: float = 0.5,
    total: float | None = None,
    method: str = "add",
) -> Interference:
    """Behaviours a, b, ... of these norms; the cosine is that of the first two."""
    names = "abcdefgh"[: len(norms)]
    all2 = math.fsum(norm**2 for norm in norms)
    pairs = [PairFigures("a", "b", cosine, 1.0, conflict, 9, *norms[:2])] if len(norms) > 1 else []
    both = 2 * cosine * norms[0] * norms[1] if pairs else 0.0
    whole = math.sqrt(max(0.0, all2 + both)) if total is None else total
    figures = tuple(
        BehaviourFigures(name, norm, norm**2 / (all2 or 1), 9)
        for name, norm in zip(names, norms, strict=True)
    )
    return Interference(method, None, None, figures, tuple(pairs), (), whole, whole, 100.0)


def kinds(found: Interference) -> list[str]:
    return [one.kind for one in recommend(found)]


def below(border: float) -> float:
    return float(np.nextafter(border, -math.inf))


def above(border: float) -> float:
    return float(np.nextafter(border, math.inf))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (measured(), ["alone"]),
        (measured(1.0), ["alone"]),
        (measured(1.0, 0.0), ["alone"]),
        (measured(1.0, 1.0), ["add"]),
        (measured(1.0, 1.0, cosine=SAME), ["same"]),
        (measured(1.0, 1.0, cosine=below(SAME)), ["add"]),
        (measured(1.0, 1.0, cosine=AGAINST, conflict=CONFLICT), ["undo"]),
        (measured(1.0, 1.0, cosine=above(AGAINST), conflict=CONFLICT), ["add"]),
        (measured(1.0, 1.0, cosine=AGAINST, conflict=below(CONFLICT)), ["add"]),
        (measured(1.0, 1.0, 1.0, 1.0), ["large"]),
        (measured(1.0, 1.0, 1.0), ["add"]),
        (measured(1.0, 1.0, total=LARGE), ["large"]),
        (measured(1.0, 1.0, total=below(LARGE)), ["add"]),
        (measured(1.0, 1.0, cosine=1.0), ["same", "large"]),
        (measured(1.0, 1.0, method="ties"), ["add", "rule"]),
        (measured(1.0, method="ties"), ["alone"]),
        (measured(1.0, math.nan), ["not finite"]),
        (measured(1.0, 1.0, total=math.inf), ["not finite"]),
    ],
)
def test_the_borders(found: Interference, wanted: list[str]) -> None:
    assert kinds(found) == wanted


def test_what_it_says() -> None:
    (same,) = recommend(measured(1.0, 1.0, cosine=0.8))
    assert same.behaviours == ("a", "b")
    assert "cosine +0.80" in same.text and "scale both by 0.53" in same.text
    (large,) = recommend(measured(2.0, 2.0, 2.0, 2.0, total=8.0))
    assert large.factor == pytest.approx(1 / 4)
    assert "4.0 times as far" in large.text and "scale all by 0.25" in large.text
    (undo,) = recommend(measured(1.0, 1.0, cosine=-0.7, conflict=0.9))
    assert undo.factor is None and "opposite signs in 90 %" in undo.text


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(SAME, 1))
def test_the_factor_makes_two_as_long_as_the_longer(a: float, b: float, cosine: float) -> None:
    same = recommend(measured(a, b, cosine=cosine))[0]
    assert same.kind == "same" and same.factor is not None
    together = math.sqrt(a**2 + b**2 + 2 * cosine * a * b)
    assert same.factor * together == pytest.approx(max(a, b))


@given(st.floats(1e-6, 1e6), st.floats(-1, 1), st.floats(0, 1))
def test_the_unit_of_the_weights_does_not_matter(unit: float, cosine: float, conflict: float) -> None:
    found = measured(1.0, 0.7, 1.3, cosine=cosine, conflict=conflict)
    scaled = replace(
        measured(unit, 0.7 * unit, 1.3 * unit, cosine=cosine, conflict=conflict), total=found.total * unit
    )
    assert kinds(scaled) == kinds(found)


def test_the_document_has_the_rule() -> None:
    assert " ".join(RULE.split()) in " ".join(DOCUMENT.read_text().split())
