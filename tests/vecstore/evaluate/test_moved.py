"""Movement along a direction: what is planted is found, and noise is no more than chance."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from support.planted import LAYERS, blocks_of, noisy, plant, texts, trait
from support.tiny import tiny_model

from pv.registry.errors import UsageError
from pv.vecstore.activations.shift import Means, Shift, means, shift
from pv.vecstore.evaluate.moved import DRAWS, NO_MORE, Movement, check_fit, moved

SITES = blocks_of()
WIDTH = 160  # in a narrower model, every cosine is large


@cache
def base() -> Means:
    return means(model(), texts(model()), SITES, draws=DRAWS)


def model() -> Any:
    return tiny_model(layers=LAYERS, hidden=WIDTH)


def against(changed: Any) -> Movement:
    step = shift(base(), means(changed, texts(changed), SITES))
    return moved(step, trait(model()), base().drawn)


@pytest.mark.parametrize("coefficient", [0.8, -0.5, 0.05])
def test_what_is_planted_is_found_with_its_size_and_sign(coefficient: float) -> None:
    found = against(plant(model(), 1, trait(model())[SITES[1]], coefficient))
    word = "moved towards" if coefficient > 0 else "moved against"
    assert (found.verdict, found.p) == (word, 1 / (1 + DRAWS))
    before, there, *_ = found.sites
    assert (before.verdict, before.cosine, before.by.mean) == (NO_MORE, 0, 0)
    assert there.verdict == word and there.by.mean == pytest.approx(coefficient, rel=1e-3)
    assert there.cosine == pytest.approx(np.sign(coefficient), abs=1e-4)
    assert there.by.low <= there.by.mean <= there.by.high and there.chance < 0.7


def test_noise_in_the_weights_is_no_more_than_chance() -> None:
    verdicts = [against(noisy(seed, hidden=WIDTH)).verdict for seed in range(10)]
    assert verdicts.count(NO_MORE) >= 9


def test_nothing_moved() -> None:
    found = against(model())
    assert (found.verdict, found.p) == (NO_MORE, 1.0)
    assert all(one.norm == 0 for one in found.sites)


def test_noise_of_plain_numbers_is_found_as_often_as_it_says() -> None:
    """Shifts that have the activations' own covariance, and have nothing to do with a direction that has it too."""
    draw = np.random.default_rng(0)
    scale = 1 / np.arange(1, 101)  # a few axes have most of it
    wrong = 0
    for _ in range(100):
        step = Shift(
            {"a": (draw.normal(size=100) * scale + 0.01 * draw.normal(size=(12, 100))).astype(np.float32)}
        )
        drawn = {"a": draw.normal(size=(DRAWS, 100)) * scale}
        wrong += moved(step, {"a": draw.normal(size=100) * scale}, drawn).verdict != NO_MORE
    assert wrong <= 4


def test_what_does_not_fit() -> None:
    directions = {site: np.ones(7, np.float32) for site in SITES}
    with pytest.raises(UsageError, match=r"shape \(7,\) does not fit model\.layers\.0.*\(160,\)"):
        check_fit(base(), directions)
    step = shift(base(), base())
    with pytest.raises(UsageError, match="points anywhere"):
        moved(step, {SITES[0]: np.zeros(WIDTH, np.float32)}, base().drawn)
