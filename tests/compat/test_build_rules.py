"""A second builder, written from docs/FORMAT.md, Builds, alone: element by element, it must get the very bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.captured import OWN, TUNED, Pair, pair
from support.vectors import values

from pv.registry.persona import ENGINES, Behaviour, Term
from pv.vecstore.merge.build import build

WEIGHTS = [1, -1, 0.5, 0.25, 0.1, 0.2, 0.7, 2, -2, 0, 1e-60, 1 + 1e-12, 1.0000001]
weights = st.sampled_from(WEIGHTS)
behaviours = st.lists(
    st.tuples(
        weights, st.lists(st.tuples(weights, st.sampled_from(["exact", "other"])), min_size=1, max_size=3)
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("far"), OWN, TUNED) as made:
        yield made


def by_the_rules(
    persona: Mapping[str, Any],
    base: np.ndarray,
    taus: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
) -> np.ndarray:
    """One tensor in fp32. `taus` of the vectors that list it; `kept` of those that have a part `ft` for it."""
    shares: dict[str, Fraction] = {}
    for one in persona["behaviours"].values():
        for coefficient, vector in one["terms"]:
            if vector in taus:
                shares[vector] = shares.get(vector, Fraction(0)) + Fraction(one["weight"] * coefficient)
    left = [(vector, np.float32(float(shares[vector]))) for vector in sorted(shares)]
    left = [(vector, weight) for vector, weight in left if weight != 0]
    if not left:
        return base
    if persona["engine"] == 2 and [weight for _, weight in left] == [1] and left[0][0] in kept:
        return kept[left[0][0]]
    out = base.copy()
    for i in range(len(base)):
        total = np.float32(0)
        for vector, weight in left:
            total = np.float32(total + np.float32(weight * taus[vector][i]))
        if total != 0:
            out[i] = np.float32(base[i] + total)
    return out


@settings(max_examples=50, deadline=None)
@given(behaviours, st.sampled_from(ENGINES))
def test_a_builder_from_the_document_gets_the_bits(
    far: Pair, made: list[tuple[float, list[tuple[float, str]]]], engine: int
) -> None:
    ids = {"exact": far.exact, "other": far.other}
    mixed = {
        f"b{i}": Behaviour(weight, tuple(Term(c, ids[v]) for c, v in terms))
        for i, (weight, terms) in enumerate(made)
    }
    persona = far.of(mixed, dtype="fp32", engine=engine)
    names = ("b", "c", "frozen")
    with np.errstate(all="ignore"):
        found = far.built(persona)
        for name in names:
            listed = {v: vector for v, vector in far.vectors.items() if name in vector.manifest.tensors}
            taus = {v: vector.tau(name) for v, vector in listed.items()}
            kept = {far.exact: values(TUNED[name])} if far.exact in listed else {}
            wanted = by_the_rules(persona.to_json(), values(OWN[name]), taus, kept)
            quiet = np.isnan(wanted) & np.isnan(found[name].raw.view(np.float32))
            assert ((found[name].raw == wanted.view(np.uint32)) | quiet).all(), (name, persona)


def test_it_would_notice(far: Pair, tmp_path: Path) -> None:
    """The two engines differ on this pair, so that the test above says something."""
    alone = [
        build(far.alone(engine=n), far.base, far.vectors, tmp_path / f"{n}", side_files={}) for n in ENGINES
    ]
    assert alone[0].weights != alone[1].weights
