"""The whole of `pv probe heads` on a tiny model of 16 heads, with changes that are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.architectures import tiny_architecture
from support.planted_heads import ROWS, planted, weights
from support.tiny import tiny_model, tiny_tokenizer

from pv.vecstore.activations.hooks import captured
from pv.vecstore.activations.reading import Text
from pv.vecstore.probe.attribution import attribution
from pv.vecstore.probe.head_change import head_change
from pv.vecstore.probe.heads import Heads, HeadsSettings, halves_of, measure_heads
from pv.vecstore.probe.parts import parts_of
from pv.vecstore.probe.recovery import grid, halves, random_set, recovered
from pv.vecstore.probe.weight_shares import weight_shares

TWO = {(1, 2): 1.0, (2, 0): 1.0}
QUICK = HeadsSettings(draws=6, noise=2)


def measured(a: Any, b: Any, settings: HeadsSettings = QUICK, **more: Any) -> Heads:
    return measure_heads(a, tiny_tokenizer(), weights(b), ROWS, settings=settings, **more)


def test_two_planted_heads_are_first_and_carry_it_all() -> None:
    a, b = planted(TWO)
    before = {name: value.clone() for name, value in weights(a).items()}
    found = measured(a, b)
    assert {(one.layer, one.head) for one in found.top} == set(TWO)
    assert {(one.layer, one.head) for one in found.heads if one.beyond} == set(TWO)
    assert found.verdict.kind == "localized"
    assert found.curve[1].k == 2
    assert found.curve[1].recovered.mean == pytest.approx(1, abs=1e-6)
    assert found.lost is not None and found.lost.mean == pytest.approx(1, abs=1e-6)
    assert found.mlp is not None and found.mlp.mean == 0
    assert found.weights.by_projection["q"] + found.weights.by_projection["o"] == pytest.approx(1)
    assert max(found.random) < 0.9
    assert all(torch.equal(value, before[name]) for name, value in weights(a).items())
    assert not any(parameter.grad is not None for parameter in a.parameters())


def test_a_change_in_every_head_alike_is_no_core() -> None:
    found = measured(*planted({}, rest=0.3))
    assert found.beyond > 8
    assert found.curve[1].recovered.mean < 0.3
    assert found.verdict.kind in ("distributed", "inconclusive")


def test_a_core_among_many_is_a_hierarchy() -> None:
    found = measured(*planted(TWO, rest=0.12), HeadsSettings(draws=10, noise=4))
    assert {(one.layer, one.head) for one in found.top} == set(TWO)
    assert found.verdict.kind == "hierarchically distributed"


def test_no_shift_is_no_verdict_and_grafts_nothing() -> None:
    a, _ = planted({})
    asked: list[str] = []

    def part(key: str, compute: Callable[[], Any]) -> Any:
        asked.append(key)
        return compute()

    found = measured(a, a, part=part)
    assert found.verdict.kind == "inconclusive"
    assert not found.curve and not found.random and found.beyond == 0
    assert asked == ["margins a", "margins b", "change", "scores"]


def test_a_shift_down_ranks_those_first_that_pull_down() -> None:
    a, b = planted(TWO)
    found = measured(b, a)
    assert found.shift.mean < 0
    assert {(one.layer, one.head) for one in found.top} == set(TWO)
    assert found.verdict.kind == "localized"


def test_a_stopped_run_goes_on_with_the_same_numbers() -> None:
    a, b = planted(TWO)
    whole = measured(a, b)
    kept: dict[str, str] = {}

    class Stop(Exception):
        pass

    def until(most: int) -> Callable[[str, Callable[[], Any]], Any]:
        def part(key: str, compute: Callable[[], Any]) -> Any:
            if key not in kept:
                if len(kept) == most:
                    raise Stop
                kept[key] = json.dumps(compute())
            return json.loads(kept[key])

        return part

    for most in (1, 3, 7, 12):
        with pytest.raises(Stop):
            measured(a, b, part=until(most))
    assert measured(a, b, part=until(99)) == whole
    assert Heads.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_change_is_the_relative_distance_at_the_answers_tokens() -> None:
    a, b = planted(TWO, rest=0.1)
    parts = parts_of(a)
    texts = [Text((5, 6, 7, 8), (9, 10, 11), True, "one"), Text((5, 7), (12, 13, 14, 15), False, "two")]
    found = head_change(a, weights(b), parts, texts, draws=1, seed=0)
    z = {}
    for name, model in (("a", a), ("b", b)):
        read = []
        for text in texts:
            with torch.no_grad(), captured(model, ["model.layers.1.self_attn.o_proj:input[2/4]"]) as seen:
                model(torch.tensor([text.tokens]), use_cache=False)
            (one,) = seen.values()
            read.append(one[0, len(text.prompt) - 1 : len(text.tokens) - text.ended])
        z[name] = torch.cat(read).double()
    assert found.change[4 + 2] == pytest.approx(float((z["b"] - z["a"]).norm() / z["a"].norm()), rel=1e-4)


def test_own_change_leaves_out_what_comes_from_below() -> None:
    a, b = planted(TWO)
    parts = parts_of(a)
    texts = [Text((5, 6, 7, 8), (9, 10, 11), True, "one")]
    found = head_change(a, weights(b), parts, texts, draws=2, seed=0)
    changed = {(part.layer, part.index) for part, own in zip(parts.heads, found.own, strict=True) if own > 0}
    assert changed == set(TWO)
    later = [i for i, part in enumerate(parts.heads) if part.layer == 3]
    assert (found.change[later] > 0).all() and (found.null[:, later] == 0).all()
    assert (found.null[:, [4, 5, 6, 7]] > 0).all()
    again = head_change(a, weights(b), parts, texts, draws=2, seed=1)
    assert (again.null[:, 4] != found.null[:, 4]).all() and np.array_equal(again.own, found.own)


def test_a_pattern_moves_by_total_variation() -> None:
    """Keys of no length attend evenly; the distance to that, by hand."""
    a, _ = planted({})
    _, b = planted({})
    with torch.no_grad():
        b.model.layers[0].self_attn.k_proj.weight.zero_()
    text = Text((5, 6, 7), (9, 10), False, "one")
    found = head_change(a, weights(b), parts_of(a), [text], draws=1, seed=0)
    a.set_attn_implementation("eager")
    with torch.no_grad():
        pattern = a(torch.tensor([text.tokens]), output_attentions=True, use_cache=False).attentions[0][0]
    even = torch.tril(torch.ones(5, 5)) / torch.arange(1, 6)[:, None]
    wanted = (pattern - even)[:, 2:5].abs().sum(-1).mean(-1) / 2
    assert found.pattern[:4] == pytest.approx(wanted.double().numpy(), abs=1e-5)


@pytest.mark.parametrize("name", ["qwen3-next", "qwen3.5"])
def test_linear_attention_is_measured_beside_the_heads(name: str) -> None:
    a, b = tiny_architecture(name).eval(), tiny_architecture(name).eval()
    a.set_attn_implementation("eager")
    with torch.no_grad():
        b.model.layers[1].linear_attn.out_proj.weight *= 2
    texts = [Text((5, 6, 7, 8), (9, 10, 11), True, "one")]
    found = head_change(a, weights(b), parts_of(a), texts, draws=1, seed=0)
    assert found.linear_own == {0: 0.0, 1: pytest.approx(1.0, rel=1e-4), 2: 0.0}
    assert found.linear[0] == 0.0 and found.linear[2] > 0
    assert (found.change > 0).all() and (found.own == 0).all()
    assert set(found.states) == {0, 1, 2}
    assert (
        found.states[0] == found.states[1] == 0 and found.states[2] > 0
    )  # what goes into the state of 1 is the same


def test_attribution_adds_up_to_the_shift_of_a_small_change() -> None:
    from pv.vecstore.evaluate.margins import margins

    a, b = planted({(1, 2): 1e-2, (2, 0): 2e-2, (0, 1): 1e-2})
    tokenizer = tiny_tokenizer()
    scores = attribution(a, tokenizer, weights(b), parts_of(a), ROWS)
    moved = (margins(b, tokenizer, ROWS).margin - margins(a, tokenizer, ROWS).margin).mean()
    assert scores.sum() == pytest.approx(moved, rel=0.01)
    assert np.flatnonzero(scores).tolist() == [1, 6, 8]


def test_halves_are_apart_and_a_seed_says_which() -> None:
    first, second = halves(17, 0)
    assert sorted(first + second) == list(range(17)) and len(second) == 9
    assert halves(17, 0) == (first, second) and halves(17, 1) != (first, second)
    ranked, tested = halves_of(ROWS, HeadsSettings(prompts=10))
    assert (len(ranked), len(tested)) == (5, 5)
    assert {row.chosen for row in ranked}.isdisjoint(row.chosen for row in tested)


def test_random_sets_have_as_many_heads_in_each_layer_and_group_and_are_another_set() -> None:
    parts = parts_of(planted({})[0])
    chosen = [part for part in parts.heads if (part.layer, part.index) in {(0, 1), (2, 0), (2, 3)}]
    sets = [random_set(parts, chosen, 0, draw) for draw in range(30)]
    for one in sets:
        assert [part.layer for part in one] == [0, 2, 2]
        assert set(one) != set(chosen) and len(set(one)) == 3
        assert len(parts.with_groups(one)) == len(parts.with_groups(chosen))
    assert len({tuple(part.key for part in one) for one in sets}) > 10
    assert random_set(parts, chosen, 0, 3) == sets[3]
    every = list(parts.heads)
    assert random_set(parts, every, 0, 0) == every  # there is no other


def test_the_share_recovered_and_its_interval() -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal(40)
    b = a + 2 + 0.1 * random.standard_normal(40)
    assert recovered(a, a, b).mean == 0 and recovered(b, a, b).low == 1
    half = recovered(a + 1, a, b)
    assert half.low < 0.5 < half.high and half.high - half.low < 0.05
    assert recovered(a - 1, a, 2 * a - b).mean == pytest.approx(half.mean)


def test_the_grid_has_the_core_and_all() -> None:
    assert grid(270, 27) == [1, 5, 14, 27, 54, 94, 135, 270]
    assert grid(4, 1) == [1, 2, 4] and grid(1, 1) == [1]


def test_a_change_by_depth_of_two_layers_is_by_layer() -> None:
    a, b = tiny_model(seed=0), tiny_model(seed=0)
    with torch.no_grad():
        b.model.layers[1].mlp.up_proj.weight.add_(1.0)
    found = weight_shares(a, weights(b), parts_of(a))
    assert dict(found.by_depth) == {"layer 0": 0.0, "layer 1": 1.0, "outside the layers": 0.0}
    shuffled = replace(found, by_depth=dict(sorted(found.by_depth.items(), reverse=True)))
    assert list(shuffled.ordered().by_depth) == list(found.by_depth)


def test_linear_attention_and_experts_are_grafted_and_shown() -> None:
    from pv.cli.probing.heads import lines
    from pv.vecstore.publish.probe_heads import page, png

    a, b = tiny_architecture("qwen3-next").eval(), tiny_architecture("qwen3-next", 1).eval()
    for model in (a, b):
        model.resize_token_embeddings(272)
    with torch.no_grad():
        for name, parameter in b.named_parameters():
            parameter.lerp_(dict(a.named_parameters())[name], 0.7)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            dict(b.named_parameters())[name].copy_(dict(a.named_parameters())[name])
    found = measure_heads(
        a,
        tiny_tokenizer(),
        weights(b),
        ROWS[:6],
        settings=HeadsSettings(draws=2, noise=2),
        names=("", "a", "b"),
    )
    assert [one.layer for one in found.linear] == [0, 1, 2]
    assert len(found.heads) == 4 and found.notes[0].startswith("layers 0-2: linear attention")
    assert found.weights.by_projection["linear-attention"] > 0 and found.weights.by_projection["experts"] > 0
    if found.curve:
        assert found.mlp is not None and found.linear_attention is not None and found.rest is not None
    said = "\n".join(lines(found))
    assert "linear attention in layer" in said and found.verdict.kind in said
    assert "recurrent state" in page(found, "pv probe heads a..b")
    assert png(found).startswith(b"\x89PNG")
    assert Heads.from_json(json.loads(json.dumps(found.to_json(), sort_keys=True))) == found
