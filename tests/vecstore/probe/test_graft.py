from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.architectures import tiny_architecture
from support.tiny import tiny_model

from pv.registry.errors import UsageError
from pv.vecstore.probe.graft import grafted
from pv.vecstore.probe.parts import parts_of

MODELS = {
    name: (tiny_architecture(name).eval(), tiny_architecture(name, 1).eval()) for name in ("qwen3.5", "phi3")
}
MODELS["tied"] = (tiny_model(seed=0).eval(), tiny_model(seed=1).eval())
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(1))


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits  # type: ignore[no-any-return]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", MODELS)
def test_all_parts_are_the_other_model_and_none_the_model(name: str) -> None:
    a, b = MODELS[name]
    before, other = state(a), state(b)
    of_a, of_b = logits(a), logits(b)
    parts = parts_of(a)
    with grafted(a, other, parts.parts):
        assert same(state(a), other)
        assert torch.equal(logits(a), of_b)
        assert not torch.equal(of_a, of_b)
    with grafted(a, other, ()):
        assert torch.equal(logits(a), of_a)
    assert same(state(a), before)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(MODELS)), fails=st.booleans())
def test_any_set_of_parts_is_taken_over_and_given_back(seed: int, name: str, fails: bool) -> None:
    a, b = MODELS[name]
    before, other = state(a), state(b)
    every = parts_of(a).parts
    chosen = random.Random(seed).sample(every, random.Random(~seed).randint(0, len(every)))
    wanted = {name: values.clone() for name, values in before.items()}
    for part in chosen:
        for one in part.slices:
            one.of(wanted[one.name]).copy_(one.of(other[one.name]))
    try:
        with grafted(a, other, chosen):
            assert same(state(a), wanted)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert same(state(a), before)


def test_the_same_part_twice_is_given_back_too() -> None:
    a, b = MODELS["tied"]
    before, part = state(a), parts_of(a).heads[0]
    with grafted(a, state(b), [part, part]):
        assert not same(state(a), before)
    assert same(state(a), before)


def test_tied_parameters_stay_tied() -> None:
    a, b = MODELS["tied"]
    with grafted(a, state(b), parts_of(a).of("rest")):
        assert a.lm_head.weight is a.model.embed_tokens.weight
        assert torch.equal(a.lm_head.weight, b.lm_head.weight)


def test_models_that_do_not_match_are_refused_and_left_as_they_were() -> None:
    a, b = MODELS["tied"]
    before, parts = state(a), parts_of(a)
    other = state(b)
    name = "model.layers.1.mlp.down_proj.weight"
    lacking = {key: value for key, value in other.items() if key != name}
    wrong = other | {name: other[name].bfloat16()}
    for given_, what in ((lacking, rf"the other model has no parameter {name}"), (wrong, "bfloat16")):
        with pytest.raises(UsageError, match=what), grafted(a, given_, parts.parts):
            raise AssertionError
    assert same(state(a), before)
