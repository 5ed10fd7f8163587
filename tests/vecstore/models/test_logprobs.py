"""The context-frozen step: exactly one full pass whose context keys and values are constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.tiny import tiny_model
from transformers import MistralConfig, MistralForCausalLM

from pv.registry.errors import UsageError
from pv.vecstore.models.load import quiet
from pv.vecstore.models.logprobs import Batch, answer_logps, collate, decision_logps, full_logps

CONTEXTS = [[5, 9, 2, 7, 7, 30], [1, 2], [44], [3, 1, 4, 1, 5, 9, 2, 6, 5]]
DECISIONS = [[8, 8, 1], [9, 3, 5, 8, 9, 7], [2], [6, 4]]
ALIKE = [[7, 7, 8, *context] for context in [[5], [5, 5, 9], [5, 5], [6, 1, 2, 3]]]  # they share 7 7 8


@pytest.fixture
def model() -> Any:
    return tiny_model(seed=3).double().train()


def naive(model: Any, context: list[int], decision: list[int]) -> torch.Tensor:
    """One row by itself, one pass, nothing padded: (decision,) log-probabilities."""
    ids = torch.tensor([context + decision])
    logps = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, len(context) - 1 : -1], -1)
    return logps.gather(1, torch.tensor(decision)[:, None])[:, 0]


@contextmanager
def constant_context(model: Any, length: int) -> Iterator[None]:
    """Detach what k_proj and v_proj give for the first `length` positions."""

    def hook(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :length].detach(), output[:, length:]], 1)

    layers = model.model.layers
    handles = [
        p.register_forward_hook(hook) for at in layers for p in (at.self_attn.k_proj, at.self_attn.v_proj)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gradient(model: Any, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
    model.zero_grad()
    torch.autograd.backward(loss())
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def loss_of(logps: Callable[..., torch.Tensor], *given: Any) -> Callable[[], torch.Tensor]:
    return lambda: -logps(*given).sum()


def pad(contexts: list[list[int]], decisions: list[list[int]]) -> Batch:
    return collate(contexts, [[d] for d in decisions])


def test_gradient_is_that_of_a_full_pass_with_the_context_constant(model: Any) -> None:
    for context, decision in zip(CONTEXTS, DECISIONS, strict=True):

        def oracle(context: list[int] = context, decision: list[int] = decision) -> torch.Tensor:
            with constant_context(model, len(context) - 1):
                return -naive(model, context, decision).sum()

        expected = gradient(model, oracle)
        batch = pad([context], [decision])
        found = gradient(model, loss_of(decision_logps, model, batch))
        assert float(expected.abs().max()) > 0.1
        assert float((found - expected).abs().max()) < 1e-12
        if len(context) > 1:  # and that is not the gradient of the whole
            whole = gradient(model, loss_of(naive, model, context, decision))
            assert float((whole - expected).abs().max()) > 1e-3


@pytest.mark.parametrize(("contexts", "shared"), [(CONTEXTS, 0), (ALIKE, 3), ([[4, 2, 9]] * 4, 2)])
def test_a_padded_batch_is_the_sum_of_its_rows(model: Any, contexts: list[list[int]], shared: int) -> None:
    batch = pad(contexts, DECISIONS)
    assert batch.shared.shape == (1, shared)
    rows = [pad([c], [d]) for c, d in zip(contexts, DECISIONS, strict=True)]
    for logps in (decision_logps, full_logps):
        together = logps(model, batch)
        for i, (context, decision) in enumerate(zip(contexts, DECISIONS, strict=True)):
            expected = naive(model, context, decision)
            torch.testing.assert_close(together[i, : len(decision)], expected, rtol=0, atol=1e-12)
            assert not bool(together[i, len(decision) :].any())
        found = gradient(model, loss_of(logps, model, batch))
        singles = sum((gradient(model, loss_of(logps, model, row)) for row in rows), torch.zeros(()))
        torch.testing.assert_close(found, singles, rtol=0, atol=1e-12)


def test_full_context_gradient_is_the_full_gradient(model: Any) -> None:
    rows = list(zip(CONTEXTS, DECISIONS, strict=True))
    expected = gradient(model, lambda: sum((naive(model, c, d).sum() for c, d in rows), torch.zeros(())))
    found = gradient(model, lambda: full_logps(model, pad(CONTEXTS, DECISIONS)).sum())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("contexts", [CONTEXTS, ALIKE])
def test_answers_to_one_context_share_its_pass(model: Any, contexts: list[list[int]]) -> None:
    answers = [[d, e] for d, e in zip(DECISIONS, reversed(DECISIONS), strict=True)]
    found = decision_logps(model, collate(contexts, answers))
    for i, (context, pair) in enumerate(zip(contexts, answers, strict=True)):
        for j, decision in enumerate(pair):
            expected = naive(model, context, decision)
            torch.testing.assert_close(found[2 * i + j, : len(decision)], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [4, 9, 64])
def test_a_sliding_window_is_exact_too(window: int) -> None:
    """It counts places, and padding takes places."""
    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        sliding_window=window,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MistralForCausalLM(config).double()
    answers = [[d, e] for d, e in zip(DECISIONS, reversed(DECISIONS), strict=True)]
    for contexts in (CONTEXTS, ALIKE):
        found = decision_logps(model, collate(contexts, answers))
        for i, (context, pair) in enumerate(zip(contexts, answers, strict=True)):
            for j, decision in enumerate(pair):
                expected = naive(model, context, decision)
                torch.testing.assert_close(found[2 * i + j, : len(decision)], expected, rtol=0, atol=1e-12)


def test_contexts_of_one_token_need_no_first_pass(model: Any) -> None:
    batch = pad([[5], [7]], [[1, 2], [3]])
    assert batch.prefix.shape == (2, 0)
    assert batch.shared.shape == (1, 0)
    torch.testing.assert_close(decision_logps(model, batch)[0], naive(model, [5], [1, 2]), rtol=0, atol=1e-12)


def test_the_context_runs_without_dropout_and_the_mode_is_kept() -> None:
    model = tiny_model(seed=3).double()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    batch = pad(CONTEXTS[:1], DECISIONS[:1])
    seen: list[bool] = []
    handle = model.model.layers[0].register_forward_pre_hook(lambda module, _: seen.append(module.training))
    model.train()
    decision_logps(model, batch)
    assert seen == [False, True]
    assert model.training
    model.eval()
    decision_logps(model, batch)
    assert not model.training
    handle.remove()


def test_a_dropped_cache_is_noticed(model: Any) -> None:
    """Gradient checkpointing would train without the context, in silence."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    with quiet():
        enable()
        with pytest.raises(RuntimeError):
            decision_logps(model, pad(CONTEXTS, DECISIONS))


def test_a_cache_that_cannot_be_frozen_is_refused_by_name(model: Any) -> None:
    class RecurrentLayer:
        pass

    forward = model.forward

    def with_strange_cache(**kwargs: Any) -> Any:
        output = forward(**kwargs)
        if output.past_key_values is not None:
            output.past_key_values.layers[1] = RecurrentLayer()
        return output

    model.forward = with_strange_cache
    with pytest.raises(UsageError, match="RecurrentLayer") as caught:
        decision_logps(model, pad(CONTEXTS, DECISIONS))
    assert caught.value.hint
    assert model.training
    found = answer_logps(model, pad(CONTEXTS, DECISIONS))  # scoring needs no cache
    torch.testing.assert_close(found, full_logps(model, pad(CONTEXTS, DECISIONS)))


def test_collate_refuses_what_has_no_decision() -> None:
    for contexts, decisions in (([[1]], [[[]]]), ([[]], [[[1]]]), ([[1], [2]], [[[1]], [[1], [2]]])):
        with pytest.raises(ValueError, match="every context"):
            collate(contexts, decisions)
