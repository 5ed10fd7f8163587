"""Steering on the real model: where reading says nothing, and that what is read somewhere else steers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pv.registry.errors import UsageError
from pv.vecstore.activations.directions import cosine
from pv.vecstore.activations.extract import activations, pairs_of
from pv.vecstore.activations.hooks import steered
from pv.vecstore.data.rows import read_rows
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.models.load import load

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personavec"
BASE = Path(os.environ.get("PV_TEST_BASE", CACHE / "SmolLM2-135M-Instruct"))
ROWS = Path(__file__).parents[2] / "examples" / "behaviours" / "listening.jsonl"
SITE = "model.layers.14"
PAIRS, HELD = slice(0, 12), slice(12, 20)

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(not (BASE / "model.safetensors").is_file(), reason=f"no base in {BASE}: `make base`"),
]


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load(BASE)


def test_the_token_that_ends_an_answer_says_nothing(loaded: Any) -> None:
    model, tokenizer = loaded
    rows = read_rows(ROWS)
    pairs, held = pairs_of(model, tokenizer, rows[PAIRS]), rows[HELD]
    assert {text.tokens[-1] for pair in pairs for text in pair} == {tokenizer.eos_token_id}
    with pytest.raises(UsageError, match="same token at 'end'"):
        activations(model, pairs, [SITE], read="end")
    answer = activations(model, pairs, [SITE], read="answer").directions()[SITE]
    end = activations(model, pairs, [SITE], read="end", same_token=True).directions()[SITE]
    assert cosine(answer, end) < 0.5
    before = margins(model, tokenizer, held).margin
    effects = {}
    for name, direction in (("answer", answer), ("end", end)):
        as_long = torch.from_numpy(direction) * float((answer**2).sum() ** 0.5 / (direction**2).sum() ** 0.5)
        with steered(model, {SITE: 2 * as_long}):
            effects[name] = float((margins(model, tokenizer, held).margin - before).mean())
    assert effects["answer"] > 0
    assert effects["end"] < 0.5 * effects["answer"], effects
