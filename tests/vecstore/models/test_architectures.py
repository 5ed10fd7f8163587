"""Training with the context frozen on the architectures that people have, as tiny random models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.architectures import ARCHITECTURES, HYBRIDS, tiny_architecture

from pv.vecstore.models.load import quiet
from pv.vecstore.models.logprobs import collate, decision_logps, full_logps

CONTEXTS = [[5, 9, 2, 7, 7, 30, 12, 3], [1, 2], [3, 1, 4, 1, 5, 9, 2, 6, 5]]
ANSWERS = [[[8, 8, 1], [9]], [[3, 5, 8, 9, 7], [4, 4]], [[6], [2, 60]]]


def model_of(name: str) -> Any:
    with quiet():
        return tiny_architecture(name, double=True).train()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_passes_say_what_one_says(name: str) -> None:
    model = model_of(name)
    batch = collate(CONTEXTS, ANSWERS)
    with quiet():
        frozen, full = decision_logps(model, batch), full_logps(model, batch)
        torch.testing.assert_close(frozen, full, rtol=0, atol=1e-9)
        torch.autograd.backward(-frozen.sum())
    still = {
        name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)
    }
    assert {name for name in still if "expert" not in name} == set()


@contextmanager
def constant_context(model: Any, length: int) -> Iterator[None]:
    """Detach what attention and linear attention keep of the first `length` positions, in one pass over all.

    Attention: keys and values. Gated DeltaNet: what goes into the convolution, and into the recurrence.
    """

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor[:, :length].detach(), tensor[:, length:]], 1)

    handles, before = [], {}
    for name, module in model.named_modules():
        if name.endswith((".k_proj", ".v_proj", ".k_norm", ".in_proj_qkv", ".in_proj_qkvz", ".in_proj_ba")):
            handles.append(module.register_forward_hook(lambda _module, _args, output: cut(output)))
    there = sys.modules[type(model).__module__]
    for name in ("torch_chunk_gated_delta_rule",):
        if hasattr(there, name):
            before[name] = getattr(there, name)

            def rule(q: Any, k: Any, v: Any, g: Any, beta: Any, of: Any = before[name], **more: Any) -> Any:
                return of(cut(q), cut(k), cut(v), g=cut(g), beta=cut(beta), **more)

            setattr(there, name, rule)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, function in before.items():
            setattr(there, name, function)


def one_pass(model: Any, context: list[int], decision: list[int]) -> torch.Tensor:
    """The sum of the decision's log-probabilities."""
    length = len(context) - 1
    with constant_context(model, length):
        logits = model(input_ids=torch.tensor([context + decision]), use_cache=False).logits[0, length:-1]
    found: torch.Tensor = torch.log_softmax(logits, -1).gather(1, torch.tensor(decision)[:, None])
    return found.sum()


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma", *HYBRIDS])
def test_the_gradient_is_that_of_one_pass_with_the_context_constant(name: str) -> None:
    model = model_of(name)
    for context, decision in (([5, 9, 2, 7, 7, 30], [8, 8, 1]), ([3, 1, 4], [2]), ([4, 4], [9, 9, 9, 60, 1])):
        found = []
        with quiet():
            for frozen in (False, True):
                model.zero_grad()
                batch = collate([context], [[decision]])
                logps = decision_logps(model, batch) if frozen else one_pass(model, context, decision)
                torch.autograd.backward(logps.sum())
                found.append(
                    {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
                )
        assert found[0].keys() == found[1].keys()
        largest = max(float(p.abs().max()) for p in found[0].values())
        assert largest > 0.1
        for key, there in found[0].items():
            assert float((there - found[1][key]).abs().max()) < 1e-12 * max(1.0, largest), key


@pytest.mark.parametrize("name", ["llama", "gemma", *HYBRIDS])
def test_checkpointed_activations_are_the_same_gradient(name: str) -> None:
    from pv.vecstore.models.checkpointing import checkpoint_activations

    model = model_of(name)
    batch = collate(CONTEXTS, ANSWERS)
    found = []
    with quiet():
        for on in (False, True):
            if on:
                checkpoint_activations(model)
            model.zero_grad()
            torch.autograd.backward(-decision_logps(model, batch).sum())
            found.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    for plain, again in zip(*found, strict=True):
        assert (plain is None) == (again is None)
        assert plain is None or torch.equal(plain, again)
