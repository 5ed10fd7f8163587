"""Shifts of activations: of rows, over their answers, in two models of one shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.planted import LAYERS, ROWS, blocks_of, plant, texts, trait
from support.tiny import tiny_model

from pv.registry.errors import DataError, UsageError
from pv.vecstore.activations import passes
from pv.vecstore.activations.along import coefficients, cosines, isotropic
from pv.vecstore.activations.hooks import Edit, captured, steered
from pv.vecstore.activations.shift import means, shift
from pv.vecstore.data.rows import parse_rows

SITES = blocks_of()


def small() -> torch.nn.Module:
    return tiny_model(layers=LAYERS)  # type: ignore[no-any-return]


def test_a_rows_mean_is_that_of_its_answers_tokens() -> None:
    model = small()
    ran = texts(model)
    found = means(model, ran, SITES)
    for i in (0, 7):
        with torch.no_grad(), captured(model, SITES) as seen:
            model(torch.tensor([ran[i].tokens]))
        start, stop = len(ran[i].prompt), len(ran[i].tokens) - 1  # without the token that ends it
        for site in SITES:
            alone = seen[site][0, start:stop].mean(0).numpy()
            assert np.allclose(found.rows[site][i], alone, atol=1e-5)


def test_what_is_planted_is_the_shift_from_that_layer_on() -> None:
    ran = texts(small())
    before = means(small(), ran, SITES)
    direction = trait(small())[SITES[2]]
    found = shift(before, means(plant(small(), 2, direction, -0.7), ran, SITES))
    assert not found.rows[SITES[0]].any() and not found.rows[SITES[1]].any()
    assert np.allclose(coefficients(found.rows[SITES[2]], direction), -0.7, atol=1e-4)
    assert found.mean(SITES[3]).any()


def test_steering_at_the_answer_moves_as_far_as_it_says() -> None:
    model = small()
    ran = texts(model)
    direction = torch.from_numpy(trait(model)[SITES[1]])
    before = means(model, ran, SITES[:2])
    for positions, moved in (("reply", 2.0), ("prompt", 0.0)):
        with steered(model, [Edit(SITES[1], 2 * direction, positions)]):  # type: ignore[arg-type]
            found = shift(before, means(model, ran, SITES[:2]))
        assert np.allclose(coefficients(found.rows[SITES[1]], direction.numpy()), moved, atol=1e-4)


def test_random_mixtures_have_the_covariance_of_the_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    model, site = small(), SITES[1]
    ran = texts(model)
    found = means(model, ran, [site], draws=4000)
    with torch.no_grad():
        tokens = []
        for text in ran:
            with captured(model, [site]) as seen:
                model(torch.tensor([text.tokens]))
            tokens.append(seen[site][0, len(text.prompt) : len(text.tokens) - 1].numpy())
    true = np.cov(np.concatenate(tokens), rowvar=False, bias=True) * len(np.concatenate(tokens))
    drawn = found.drawn[site].T @ found.drawn[site] / 4000
    assert np.linalg.norm(drawn - true) < 0.1 * np.linalg.norm(true)
    monkeypatch.setattr(passes, "TOKENS", 1)  # one text at a time
    again = means(model, ran, [site], draws=4000)
    assert np.allclose(again.drawn[site], found.drawn[site], atol=1e-3)


def test_directions_and_shifts() -> None:
    rows = np.array([[[3.0, 0.0]], [[0.0, 4.0]]])
    assert coefficients(rows, np.array([[2.0, 0.0]])).tolist() == [1.5, 0.0]
    assert cosines(rows[0], np.array([[[1.0, 0.0]], [[0.0, 0.0]], [[-1.0, 1.0]]])).round(3).tolist() == [
        1,
        0,
        -0.707,
    ]
    assert np.array_equal(isotropic((2, 3), 5), isotropic((2, 3), 5)) and isotropic((2, 3), 5).shape == (
        5,
        2,
        3,
    )
    with pytest.raises(UsageError, match="does not fit"):
        coefficients(rows, np.ones(2))
    with pytest.raises(UsageError, match="length 0"):
        coefficients(rows, np.zeros((1, 2)))


def test_what_cannot_be_compared() -> None:
    ran = texts(small())
    before = means(small(), ran, SITES)
    wide = tiny_model(hidden=64, layers=LAYERS)
    with pytest.raises(UsageError, match=r"model\.layers\.0 gives .*48.* before and .*64"):
        shift(before, means(wide, ran, SITES))
    with pytest.raises(UsageError, match="has no module"):
        means(tiny_model(layers=2), ran, SITES)
    with pytest.raises(UsageError, match="token 272, and this model knows 272"):
        means(small(), [replace(ran[0], answer=(272, 258))], SITES)
    broken = small()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        means(broken, ran, SITES)


def test_a_long_answer_is_cut_and_a_long_prompt_is_refused() -> None:
    line = '{"prompt": "%s", "completion": "%s"}'
    (cut,) = texts(small(), parse_rows((line % ("Hi.", "x" * 900)).encode(), source="long.jsonl"))
    assert len(cut.tokens) == 512 and not cut.ended
    with pytest.raises(DataError, match="the prompt alone takes"):
        texts(small(), parse_rows((line % ("x" * 900, "Hi.")).encode(), source="long.jsonl"))
    assert all(text.ended for text in texts(small(), ROWS))
