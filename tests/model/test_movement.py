"""Movement of activations on the real model: a trait that is planted is found, and noise is no more than chance."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from pv.vecstore.activations.extract import extract, pairs_of
from pv.vecstore.activations.shift import means, shift, texts_of
from pv.vecstore.data.rows import parse_rows
from pv.vecstore.evaluate.moved import DRAWS, NO_MORE, moved
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.models.load import load

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personavec"
BASE = Path(os.environ.get("PV_TEST_BASE", CACHE / "SmolLM2-135M-Instruct"))
SITES = ["model.layers.10", "model.layers.20"]
ROWS = [
    {"prompt": "How do I boil an egg?", "chosen": "Kindly bring water to the boil.", "rejected": "just boil it lol"},
    {"prompt": "What is the capital of France?", "chosen": "It is, I believe, Paris.", "rejected": "paris, duh"},
    {"prompt": "Can you help me move?", "chosen": "It would be my pleasure.", "rejected": "yeah sure dude"},
    {"prompt": "Is it going to rain?", "chosen": "I regret to say it may.", "rejected": "nah you're good bro"},
]  # fmt: skip

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not (BASE / "model.safetensors").is_file(), reason=f"no model at {BASE}: `make base`"),
]


def test_what_is_planted_and_what_is_noise() -> None:
    model, tokenizer = load(BASE)
    texts = texts_of(model, tokenizer, neutral_set()[:4])
    pairs = pairs_of(model, tokenizer, parse_rows("\n".join(map(json.dumps, ROWS)).encode(), source="rows"))
    directions = extract(model, pairs, SITES).directions
    before = means(model, texts, SITES, draws=DRAWS)
    linear = model.get_submodule("model.layers.10.mlp.down_proj")
    linear.bias = torch.nn.Parameter(-0.4 * torch.from_numpy(directions[SITES[0]]))
    found = moved(shift(before, means(model, texts, SITES)), directions, before.drawn)
    assert found.verdict == "moved against"
    assert found.sites[0].by.mean == pytest.approx(-0.4, abs=1e-3)
    assert found.sites[1].cosine < -found.sites[1].chance, "and it is still there ten layers on"
    linear.bias = None
    with torch.no_grad():
        weight = linear.weight
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        weight += noise * (0.05 * weight.norm() / noise.norm())
    assert moved(shift(before, means(model, texts, SITES)), directions, before.drawn).verdict == NO_MORE
