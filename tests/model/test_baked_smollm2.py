"""Steering terms in the real model: baked into biases, and applied as hooks, it says the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personavec"
BASE = Path(os.environ.get("PV_TEST_BASE", CACHE / "SmolLM2-135M-Instruct"))
WIDE, HEAD = 576, 64
TERMS = {  # site: width, coefficient
    "model.layers.3": (WIDE, 0.05),
    "model.layers.14": (WIDE, -0.1),
    "model.layers.22.mlp": (WIDE, 0.1),
    "model.layers.9.self_attn": (WIDE, 0.02),
    "model.layers.17.self_attn.o_proj:input[3/9]": (HEAD, 0.2),
}
TEXT = "The quick brown fox jumps over the lazy dog, and then it asks you to write a letter to your landlord."

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not (BASE / "model.safetensors").is_file(), reason=f"no model at {BASE}: `make base`"),
]


def test_baked_into_the_real_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from support.baking import loaded, steer
    from transformers import AutoTokenizer

    from pv.vecstore.activations.hooks import steered
    from pv.vecstore.repo.init import init
    from pv.vecstore.repo.repo import Repo

    random = np.random.default_rng(0)
    directions = {
        site: random.standard_normal(width).astype(np.float32) for site, (width, _) in TERMS.items()
    }
    init(tmp_path, BASE, reference=True, threads=2)
    with Repo.open(tmp_path) as repo:
        for number, (site, (_, coefficient)) in enumerate(TERMS.items()):
            steer(repo.registry, f"t{number}", {site: directions[site]}, coefficient)
        made = repo.at("HEAD").build(tmp_path / "baked", dtype="fp32", threads=2)
        assert len(made.baked) == len(TERMS) and not made.unbaked
        assert repo.at("HEAD").verify(tmp_path / "baked", dtype="fp32", threads=2).same
    ids = AutoTokenizer.from_pretrained(BASE)(TEXT, return_tensors="pt").input_ids
    edits = {site: torch.from_numpy(np.float32(TERMS[site][1] * one)) for site, one in directions.items()}
    model = loaded(BASE)
    with torch.no_grad():
        baked, plain = loaded(tmp_path / "baked")(ids).logits, model(ids).logits
        with steered(model, edits):
            hooked = model(ids).logits
    difference, effect = ((one - hooked).abs().max().item() for one in (baked, plain))
    with capsys.disabled():
        print(f"\nbaked against hooked: {difference:.2e}, logits moved by {effect:.2f}")
    assert effect > 1
    assert difference < 1e-4
