"""Neurons patched, ranked and followed step by step, on tiny models whose answers can be worked out another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.architectures import tiny_architecture
from support.neurons import asked, lab, neutral, other_of, swapping
from support.tiny import tiny_model, tiny_tokenizer

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.rows import Message, Row, Rows
from pv.vecstore.probe import neurons_measure as measure
from pv.vecstore.probe import neurons_pass
from pv.vecstore.probe.neurons_lab import Lab, grid, measured, parts_in_all
from pv.vecstore.probe.neurons_pass import Deciding, Decisions, Patch, deciding
from pv.vecstore.probe.neurons_rank import first_of, matched, ranking
from pv.vecstore.probe.neurons_sites import layout_of


@pytest.fixture(scope="module")
def made() -> Lab:
    model = tiny_model(layers=3)
    return lab(model, other_of(model), draws=2, steps=3)


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-4, atol=1e-4)


# Where neurons are


@pytest.mark.parametrize(
    ("name", "module", "width"),
    [("llama", "mlp.down_proj", 48), ("gemma2", "mlp.down_proj", 48), ("phi3", "mlp.down_proj", 48),
     ("qwen3.5", "mlp.down_proj", 48)],
)  # fmt: skip
def test_the_neurons_of_an_architecture(name: str, module: str, width: int) -> None:
    found = layout_of(tiny_architecture(name))
    assert all(one.endswith(module) for one in found.modules) and set(found.widths) == {width}
    assert found.layers == tuple(range(len(found.modules))) and found.total == width * len(found.modules)
    assert found.place(width + 3) == (1, 3)


@pytest.mark.parametrize(
    ("kind", "end"), [("GPT2", "mlp.c_proj"), ("OPT", "fc2"), ("GPTNeoX", "mlp.dense_4h_to_h")]
)
def test_other_names_for_it(kind: str, end: str) -> None:
    model = older(kind)
    found = layout_of(model)
    assert [one.endswith(end) for one in found.modules] == [True] * 2 and found.widths == (64, 64)


def older(kind: str) -> Any:
    import transformers

    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 64} if kind == "GPT2" else {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16,
        "intermediate_size": 64, "ffn_dim": 64,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(vocab_size=64, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
def test_a_mixture_of_experts_is_named(name: str) -> None:
    with pytest.raises(UsageError, match="mixture of experts"):
        layout_of(tiny_architecture(name))


def test_a_model_without_an_mlp_that_is_known() -> None:
    class Strange(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"mix": torch.nn.Linear(4, 4)})])

    with pytest.raises(UsageError, match="no MLP of a kind"):
        layout_of(Strange())


def test_late_layers_are_the_last_third() -> None:
    found = layout_of(tiny_model(layers=7))
    assert found.late.layers == (5, 6) and found.late.size == 2 * 96 and found.all.size == found.total
    assert layout_of(tiny_model(layers=2)).late.layers == (1,)


# Where rows are decided


def test_a_row_is_decided_where_its_answers_part() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    found, kept = deciding(model, tokenizer, asked(4))
    a, h = tokenizer("AH")["input_ids"]
    assert {(one.chosen, one.rejected) for one in found} == {(a, h)}
    assert [one.depth for one in found] == [3, 0, 0, 3] and kept == [0, 1, 2, 3]
    assert found[0].tokens[-3:] == tuple(tokenizer("Oh ")["input_ids"])


def test_rows_that_are_never_decided() -> None:
    same = Rows(tuple(Row((Message("user", f"{i}"),), "Yes", "Yes") for i in range(9)), "same.jsonl")
    model = tiny_model()
    with pytest.raises(DataError, match="in no row"):
        deciding(model, tiny_tokenizer(), same)
    few = lab(model, other_of(model), Rows((*same, *asked(5)), "few.jsonl"))
    with pytest.raises(DataError, match="in 5 rows the two answers differ"):
        measured(lambda key, compute: compute(), few)


# A pass


ROWS = [
    Deciding((5, 6, 7), 9, 10, 0),
    Deciding((5, 11, 12, 13, 14, 15, 16), 10, 11, 0),
    Deciding((5,), 9, 11, 0),
]


def plainly(model: Any, tokens: tuple[int, ...], values: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
    """Logits at the last position of a whole pass, with what goes into these modules there replaced; and what did."""
    seen: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Any:
        def before(_: Any, args: Any) -> Any:
            given = args[0].clone()
            last = given.reshape(-1, given.shape[-1])[-1]
            seen[name] = last.clone()
            if name not in values:
                return None
            given.reshape(-1, given.shape[-1])[-1] = values[name]
            return (given,)

        return before

    names = layout_of(model).modules
    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    return logits, seen


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral-sliding", "qwen3.5", "GPT2", "OPT", "GPTNeoX"])
def test_a_full_patch_is_what_hooks_on_a_whole_pass_give(name: str) -> None:
    model = older(name) if name[0].isupper() else tiny_architecture(name).eval()
    other = other_of(model)
    found = measure.contrast(model, swapping(model, other), layout_of(model), ROWS)
    state = found.runs.run(found.whole(found.layout.all))
    for at, row in enumerate(ROWS):
        theirs, values = plainly(other, row.tokens, {})
        close(found.source.margin[at], theirs[row.chosen] - theirs[row.rejected])
        own, _ = plainly(model, row.tokens, values)
        close(state.logits[at], own)
        close(state.activations[at], torch.cat([values[one] for one in found.layout.modules]))


def test_rows_that_run_together_in_parts_give_the_same(made: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, scope = made.every.runs.rows, made.layout.late
    patch = Patch(made.every.source.activations, made.every.whole(scope).mask)
    whole, (slope, _) = made.every.runs.run(patch), made.every.runs.gradient(scope, patch)
    longest = max(len(one.tokens) for one in rows)
    for tokens, most in ((5 * longest, 5), (1, 1)):
        monkeypatch.setattr(neurons_pass, "TOKENS", tokens)
        parts = list(neurons_pass._batches(rows))
        assert [i for one in parts for i in range(len(rows))[one]] == list(range(len(rows)))
        assert most <= max(one.stop - one.start for one in parts) and len(parts) >= len(rows) // (most + 2)
        runs = Decisions(made.sides.model, made.layout, rows)
        close(runs.run(patch).logits, whole.logits)
        close(runs.run(patch).activations, whole.activations)
        close(runs.gradient(scope, patch)[0], slope)


def test_as_many_rows_as_a_probe_takes_run_at_once_unless_they_are_long() -> None:
    rows = [Deciding((5,) * 600, 9, 10, 0)] * 48
    assert list(neurons_pass._batches(rows)) == [slice(0, 48)]
    assert len(list(neurons_pass._batches(rows * 2))) == 2


def test_nothing_patched_is_a_itself_and_everything_the_ceiling(made: Lab) -> None:
    every, scope = made.every, made.layout.all
    none = Patch(every.source.activations, torch.zeros_like(every.delta, dtype=torch.bool))
    assert torch.equal(every.runs.run(none).logits, every.clean.logits)
    order = ranking(every.delta.abs(), scope, scope.size, positive=False)
    all_of_them = measure.swept(every, order, [scope.size])
    assert all_of_them["margin"][0] == measure.ceiling(every, scope)["margin"]
    assert all_of_them["moved"][0] == pytest.approx([1.0] * 12, abs=1e-4)


def test_the_gradient_is_that_of_finite_differences(made: Lab) -> None:
    scope = made.layout.late
    gradient, state = made.every.runs.gradient(scope)
    assert not gradient[:, : scope.start].any()
    for neuron in (scope.start + 5, scope.start + 60):
        values = state.activations.clone()
        values[:, neuron] += 0.01
        mask = torch.zeros_like(values, dtype=torch.bool)
        mask[:, neuron] = True
        moved = made.every.runs.run(Patch(values, mask)).margin - state.margin
        torch.testing.assert_close(moved / 0.01, gradient[:, neuron], rtol=0.05, atol=5e-3)


def test_on_a_linear_readout_the_prediction_is_the_effect() -> None:
    model = tiny_model(layers=2)
    model.model.norm = torch.nn.Identity()
    found = lab(model, other_of(model))
    scope = found.layout.one(1)
    scores = found.scores("delta*grad", scope)
    order = ranking(scores, scope, 50, positive=True)
    swept = measure.swept(found.every, order, [1, 10, 50], scores=scores)
    for margin, predicted in zip(swept["margin"], swept["predicted"], strict=True):
        close(torch.tensor(margin) - found.every.clean.margin, torch.tensor(predicted).float())


def test_integrated_gradients_add_up_to_the_full_patch(made: Lab) -> None:
    for scope in (made.layout.one(1), made.layout.all):
        total = measure.integrated(made.every, scope, 40)[:, scope.slice].sum(1)
        whole = made.every.runs.run(made.every.whole(scope)).margin - made.every.clean.margin
        torch.testing.assert_close(total, whole, rtol=0.02, atol=0.01)


# Rankings


def test_planted_neurons_come_first() -> None:
    """Ten neurons of layer 1 that A never uses, and that push towards the chosen token in B."""
    model = tiny_model(layers=3, tied=False)
    other = other_of(model, by=1e-4)
    planted, tokens = range(20, 30), tiny_tokenizer()("AH")["input_ids"]
    for one in (model, other):
        mlp, readout = one.model.layers[1].mlp, one.lm_head.weight.data
        towards = readout[tokens[0]] - readout[tokens[1]]
        for neuron in planted:
            mlp.down_proj.weight.data[:, neuron] = towards / towards.norm()
            mlp.up_proj.weight.data[neuron] = 0 if one is model else 3 * mlp.gate_proj.weight.data[neuron]
    found = lab(model, other, draws=2, steps=2)
    parts = measured(lambda key, compute: compute(), found)
    named = parts["all:named"]["neurons"]
    assert {(layer, index) for layer, index, *_ in named[:8]} <= {(1, neuron) for neuron in planted}
    a, top = torch.tensor(parts["rows"]["a"]["margin"]), torch.tensor(parts["all:ceiling"]["every"]["margin"])
    ten = torch.tensor(parts["all:row:delta*grad"][0]["margin"][grid(found.layout.total).index(10)])
    random = torch.tensor(parts["all:row:random"][0]["margin"][grid(found.layout.total).index(10)])
    assert (ten - a).mean() > 0.8 * (top - a).mean() > 2 * (random - a).mean()


def test_a_ranking_takes_what_is_above_0_and_of_alike_the_first() -> None:
    layout = layout_of(tiny_model())
    scores = torch.zeros(2, layout.total)
    scores[0, [100, 120, 140]] = torch.tensor([1.0, 2.0, 1.0])
    order = ranking(scores, layout.one(1), 4, positive=True)
    assert order.tolist() == [[120, 100, 140, -1], [-1] * 4]
    assert first_of(order, 2, layout.total)[0].nonzero()[:, 0].tolist() == [100, 120]
    assert not first_of(order, 4, layout.total)[1].any()
    assert ranking(scores, layout.one(1), 4, positive=False)[1].tolist() == [96, 97, 98, 99]


def test_random_neurons_are_of_about_the_same_size_and_none_stands_twice(made: Lab) -> None:
    scope, sizes = made.layout.all, made.every.delta.abs()
    order = ranking(sizes, scope, 128, positive=False)
    drawn = matched(order, sizes, scope, "a")
    assert all(len(set(row)) == 128 for row in drawn.tolist())
    assert torch.equal(drawn, matched(order, sizes, scope, "a"))
    assert not torch.equal(drawn, matched(order, sizes, scope, "b"))
    assert drawn[:, :64].sort().values.equal(order[:, :64].sort().values)  # of the same 64, in another order
    assert not torch.equal(drawn, order)
    some = torch.full_like(order, -1)
    some[:, :3] = order[:, :3]
    assert (matched(some, sizes, scope, "a") >= 0).sum(1).tolist() == [3] * 12


# Step by step, and along directions


def test_the_first_step_is_one_shot_and_it_ends_where_nothing_is_left(made: Lab) -> None:
    scope = made.layout.all
    assert measure.schedule(scope, 1536) == [10, 20, 50, 100, 150, 200, 250, 288]
    steps = measure.iterated(made.every, scope, measure.schedule(scope, 1536))
    order = ranking(made.scores("delta*grad", scope), scope, 10, positive=True)
    close(steps["margin"][0], measure.swept(made.every, order, [10])["margin"][0])
    counts = torch.tensor(steps["count"])
    assert (counts[0] == 10).all() and (counts.diff(dim=0) >= 0).all() and (counts[-1] < scope.size).all()
    assert torch.tensor(steps["margin"][2]).mean() > torch.tensor(steps["margin"][0]).mean()


def test_as_many_directions_as_rows_are_the_full_patch(made: Lab) -> None:
    scope, first = made.layout.late, made.first
    patch = measure._along(first, scope, measure._basis(first, scope, len(first.runs)), 1.0)
    close(first.runs.run(patch).margin, first.runs.run(first.whole(scope)).margin)
    found = measure.directions(first, made.second, scope, [1, 3])
    assert [one["rank"] for one in found] == [1, 3] and found[0]["variance"] < found[1]["variance"] <= 1
    assert all(one["alpha"] in measure.ALPHAS and len(one["margin"]) == 6 for one in found)


def test_off_target_nothing_patched_costs_nothing(made: Lab) -> None:
    order = torch.full((1, 10), -1)
    found = measure.off_target(
        made.unrelated, made.layout.all, [1, 10], {"delta*grad": order}, made.every.delta.mean(0), (made.first, 1, 1.0)
    )  # fmt: skip
    assert len(made.unrelated.runs) == len(neutral())
    assert found["delta*grad"] == [[0.0] * 4] * 2
    assert all(one > 0 for key in ("directions", "full", "b") for one in found[key])


# All parts


def test_two_runs_and_one_that_was_stopped_give_the_same() -> None:
    model = tiny_model()
    other = other_of(model)
    whole = measured(lambda key, compute: compute(), lab(model, other, draws=2, steps=2))
    assert len(whole) == parts_in_all()
    noted: dict[str, Any] = {}
    asked_for: list[str] = []

    def part(key: str, compute: Any) -> Any:
        asked_for.append(key)
        if key not in noted:
            if len(asked_for) == 30:
                raise KeyboardInterrupt
            noted[key] = compute()
        return noted[key]

    with pytest.raises(KeyboardInterrupt):
        measured(part, lab(model, other, draws=2, steps=2))
    assert 20 < len(noted) < len(whole)
    assert measured(part, lab(model, other, draws=2, steps=2)) == whole
    assert measured(lambda key, compute: compute(), lab(model, other, draws=2, steps=2, seed=1)) != whole


def test_what_is_known_loads_no_model() -> None:
    model = tiny_model()
    whole = measured(lambda key, compute: compute(), lab(model, other_of(model), draws=1, steps=1))

    def never() -> Any:
        raise AssertionError

    from pv.vecstore.probe.neurons_lab import Settings

    unopened = Lab(never, asked(), neutral(), Settings(draws=1, steps=1))
    assert measured(lambda key, compute: whole[key], unopened) == whole


def test_the_model_is_left_as_it_was(made: Lab) -> None:
    model = made.sides.model
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    rows = Decisions(model, made.layout, made.every.runs.rows)
    rows.gradient(made.layout.all)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
