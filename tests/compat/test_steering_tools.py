"""Steering vectors in the tools they are exchanged with: each adds what a plain forward hook adds, at the same block.

repeng (0.5.0, from its repository), lm-eval (0.4.13), dialz (1.1.4), activation-steering (IBM, from its repository):
each test runs where its tool is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.steering_formats import BLOCKS, MODEL, PROMPT, hooked, random_directions, small_llama
from support.tiny import tiny_tokenizer

from pv.vecstore.activations.formats import gguf, lm_eval, persona_vectors, svec

CLOSE = 1e-5
FAR = 1e-2


def said(model: Any) -> Any:
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0]


def far_from_plain(logits: Any) -> bool:
    return bool((logits - hooked(small_llama(), {})).abs().max() > FAR)


@pytest.mark.parametrize("convention", ["llama.cpp", "repeng"])
def test_repeng_reads_what_is_written_and_adds_it_after_the_block(tmp_path: Path, convention: str) -> None:
    repeng = pytest.importorskip("repeng")
    sites = BLOCKS if convention == "repeng" else BLOCKS[1:]
    directions = random_directions(*sites)
    gguf.write(tmp_path / "v.gguf", directions, MODEL, convention=convention)
    vector = repeng.ControlVector.import_gguf(tmp_path / "v.gguf")
    assert vector.model_type == "llama"
    control = repeng.ControlModel(small_llama(), sorted(vector.directions))
    control.set_control(vector, 0.5)
    steered = said(control)
    torch.testing.assert_close(steered, hooked(small_llama(), directions, 0.5), atol=CLOSE, rtol=0)
    assert far_from_plain(steered)


def test_what_repeng_writes_is_read(tmp_path: Path) -> None:
    repeng = pytest.importorskip("repeng")
    directions = random_directions(*BLOCKS)
    by_number = dict(enumerate(directions.values()))
    repeng.ControlVector("llama", by_number).export_gguf(tmp_path / "v.gguf")
    found = gguf.read(tmp_path / "v.gguf", MODEL, convention="repeng")
    assert found.directions.keys() == directions.keys()
    assert all(np.array_equal(found.directions[site], one) for site, one in directions.items())


def test_what_dialz_writes_is_read(tmp_path: Path) -> None:
    dialz = pytest.importorskip("dialz.vector")

    directions = random_directions(*BLOCKS[1:])
    dialz.SteeringVector("llama", dict(enumerate(directions.values(), start=1))).export_gguf(
        tmp_path / "v.gguf"
    )
    found = gguf.read(tmp_path / "v.gguf", MODEL)
    assert found.facts["architecture"] == "steeringvector"
    assert all(np.array_equal(found.directions[site], one) for site, one in directions.items())


def test_lm_eval_adds_what_is_written(tmp_path: Path) -> None:
    steered_model = pytest.importorskip("lm_eval.models.hf_steered").SteeredModel
    small_llama().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    directions = random_directions(BLOCKS[1], BLOCKS[3], "model.layers.2.mlp")
    lm_eval.write(tmp_path / "v.pt", directions, MODEL, coefficient=0.5)
    harness = steered_model(
        pretrained=str(tmp_path / "model"), steer_path=str(tmp_path / "v.pt"), device="cpu", dtype="float32"
    )
    with torch.no_grad():
        steered = harness.forward(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(steered, hooked(small_llama(), directions, 0.5), atol=CLOSE, rtol=0)
    assert far_from_plain(steered)


def test_activation_steering_adds_at_inputs_of_blocks(tmp_path: Path) -> None:
    tool = pytest.importorskip("activation_steering")
    directions = random_directions("model.layers.0:input", BLOCKS[1])
    svec.write(tmp_path / "v.svec", directions, MODEL)
    vector = tool.SteeringVector.load(str(tmp_path / "v.svec"))
    assert sorted(vector.directions) == [0, 2]
    malleable = tool.MalleableModel(small_llama(), tiny_tokenizer())
    malleable.steer(vector, sorted(vector.directions), 0.5)
    with torch.no_grad():
        steered = malleable.model(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(steered, hooked(small_llama(), directions, 0.5), atol=CLOSE, rtol=0)
    assert far_from_plain(steered)
    vector.save(str(tmp_path / "again.svec"))
    found = svec.read(tmp_path / "again.svec", MODEL).directions
    assert all(np.array_equal(found[site], one) for site, one in directions.items())


def test_hidden_states_are_as_persona_vectors_takes_them(tmp_path: Path) -> None:
    """transformers' hidden_states[i] is block i-1's output, but for the last, which is behind the final norm."""
    model, seen = small_llama(), {}
    for site in BLOCKS:
        model.get_submodule(site).register_forward_hook(
            lambda _, __, out, site=site: seen.update({site: out[0] if isinstance(out, tuple) else out})
        )
    with torch.no_grad():
        states = model(torch.tensor([PROMPT]), output_hidden_states=True).hidden_states
    assert len(states) == len(BLOCKS) + 1
    torch.save(torch.stack([state[0, -1] for state in states]), tmp_path / "v.pt")
    found = persona_vectors.read(tmp_path / "v.pt", MODEL)
    for site in BLOCKS[:-1]:
        assert np.array_equal(found.directions[site], seen[site][0, -1].numpy())
    with torch.no_grad():
        normed = model.model.norm(seen[BLOCKS[-1]])[0, -1]
    assert np.array_equal(found.directions[BLOCKS[-1]], normed.numpy())
    assert any("final norm" in note for note in found.notes)
