"""Training with the context frozen on the architectures that people have, as tiny random models."""

from __future__ import annotations

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
        return tiny_architecture(name).double().train()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_passes_say_what_one_says(name: str) -> None:
    model = model_of(name)
    batch = collate(CONTEXTS, ANSWERS)
    with quiet():
        frozen, full = decision_logps(model, batch), full_logps(model, batch)
        torch.testing.assert_close(frozen, full, rtol=0, atol=1e-9)
        torch.autograd.backward(-frozen.sum())
    still = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
    assert {name for name in still if "expert" not in name} == set()


def one_pass(model: Any, context: list[int], decision: list[int]) -> torch.Tensor:
    """The decision's log-probabilities from one pass in which what a layer hands on in time is constant.

    Layer by layer the context's keys, values and recurrent states are those of a pass without gradient: the hidden
    states of the context are replaced, in front of every token mixer, by ones that are detached.
    """
    length = len(context) - 1

    def detach(_module: Any, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        cut = torch.cat([hidden[:, :length].detach(), hidden[:, length:]], 1)
        return ((cut, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": cut})

    with Weights(model, length), torch.enable_grad():
        mixers = [m for n, m in model.named_modules() if n.endswith((".self_attn", ".linear_attn"))]
        handles = [m.register_forward_pre_hook(detach, with_kwargs=True) for m in mixers]
        try:
            ids = torch.tensor([context + decision])
            logits = model(input_ids=ids, use_cache=False).logits[0, length:-1]
        finally:
            for handle in handles:
                handle.remove()
    found: torch.Tensor = torch.log_softmax(logits, -1).gather(1, torch.tensor(decision)[:, None])[:, 0]
    return found


class Weights:
    """While it is entered, what weights make of the context's tokens carries no gradient to those weights either.

    Linear projections and convolutions are per token or causal: their outputs at the context are detached.
    """

    def __init__(self, model: Any, length: int) -> None:
        self.model, self.length, self.handles = model, length, list[Any]()

    def __enter__(self) -> None:
        def cut(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
            return torch.cat([output[:, : self.length].detach(), output[:, self.length :]], 1)

        for name, module in self.model.named_modules():
            inside = ".self_attn." in name or ".linear_attn." in name
            if inside and isinstance(module, torch.nn.Linear) and not name.endswith(("o_proj", "out_proj")):
                self.handles.append(module.register_forward_hook(cut))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2"])
def test_the_gradient_is_that_of_one_pass_with_the_context_constant(name: str) -> None:
    model = model_of(name)
    for context, decision in (([5, 9, 2, 7, 7, 30], [8, 8, 1]), ([3, 1, 4], [2])):
        model.zero_grad()
        torch.autograd.backward(-one_pass(model, context, decision).sum())
        expected = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        torch.autograd.backward(-decision_logps(model, collate([context], [[decision]])).sum())
        for p, there in zip(model.parameters(), expected, strict=True):
            assert float((p.grad - there).abs().max()) < 1e-12


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_gradient_of_a_recurrent_hybrid_is_that_of_constant_states(name: str) -> None:
    """The oracle is finite differences: the context's cache is held, the weights of the second pass are moved."""
    model = model_of(name)
    context, decision = [5, 9, 2, 7, 7, 30, 4, 4], [8, 8, 1]
    batch = collate([context], [[decision]])
    from pv.vecstore.models import logprobs

    model.eval()
    with torch.no_grad(), quiet():
        cache, mask = logprobs._prefill(model, batch)
    model.train()

    def second_pass() -> torch.Tensor:
        output = model(
            input_ids=batch.segment,
            attention_mask=torch.cat([mask, batch.segment_mask], 1),
            position_ids=batch.segment_positions,
            past_key_values=cache,
            use_cache=True,
        )
        return logprobs._logps(output.logits, batch).sum()

    model.zero_grad()
    with quiet():
        torch.autograd.backward(decision_logps(model, batch).sum())
        random = torch.Generator().manual_seed(1)
        for key, p in model.named_parameters():
            if p.grad is None:
                continue
            direction = torch.randn(p.shape, generator=random, dtype=torch.float64)
            direction /= direction.norm()
            slopes = []
            for step in (1e-4, 2e-4):
                values = []
                for sign in (1, -1):
                    with torch.no_grad():
                        p += sign * step * direction
                        values.append(float(second_pass()))
                        p -= sign * step * direction
                slopes.append((values[0] - values[1]) / (2 * step))
            slope = (4 * slopes[0] - slopes[1]) / 3  # Richardson
            assert float((p.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8), key


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
