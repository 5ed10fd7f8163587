"""Fine-tunes of a tiny model whose place was planted, and what the verdict on heads says of them."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import pytest
from support.tiny import tiny_model, tiny_tokenizer

from benchmarks.planted import Heads, Planted, Recipe, behaviour, plant
from benchmarks.probe_calibration import RIGHT, Run, counts, error_rate, floors, matrix
from pv.vecstore.probe.heads import Heads as Found
from pv.vecstore.probe.heads import HeadsSettings, measure_heads

RECIPE = Recipe(target=3.0, core_lr=2e-3, all_lr=1e-4, mlp_lr=1e-4, fewest=2, most=3)
SETTINGS = HeadsSettings(draws=8, noise=3)


@cache
def model() -> Any:
    made = tiny_model(layers=8, hidden=64).eval()
    made.set_attn_implementation("eager")
    return made


@cache
def planted(kind: str, seed: int = 0) -> Planted:
    rows = behaviour(seed, training=16, held_out=20)
    return plant(model(), tiny_tokenizer(), kind, seed, recipe=RECIPE, rows=rows)


@cache
def found(kind: str, seed: int = 0) -> Found:
    one = planted(kind, seed)
    settings = dataclasses.replace(SETTINGS, seed=seed)
    return measure_heads(model(), tiny_tokenizer(), one.other, one.rows, settings=settings)


def changed(one: Planted) -> dict[str, Any]:
    own = dict(model().named_parameters())
    return {name: (b - own[name]).detach() for name, b in one.other.items() if not b.equal(own[name])}


@pytest.mark.parametrize("kind", ["localized", "hierarchical", "distributed", "mlp", "none"])
def test_each_kind_is_told(kind: str) -> None:
    assert found(kind).verdict.kind == RIGHT[kind], found(kind).verdict.reasons


@pytest.mark.parametrize("kind", ["localized", "hierarchical"])
def test_the_planted_heads_rank_first(kind: str) -> None:
    core = planted(kind).core
    ranking = [(one.layer, one.head) for one in found(kind).ranking]
    assert len(core) >= 2
    assert ranking[0] in core
    assert set(core) <= set(ranking[: len(found(kind).top)])


def test_a_localized_one_is_in_its_core_alone() -> None:
    one, heads = planted("localized"), Heads.of(model())
    delta = changed(one)
    for unit in heads.units(one.core):
        for name, at in unit:
            assert delta[name][at].abs().sum() > 0
            delta[name][at] = 0
    assert all(not left.any() for left in delta.values())
    assert one.core_share == pytest.approx(1.0, abs=1e-4)


def test_a_hierarchical_one_has_part_of_it_in_its_core() -> None:
    share = planted("hierarchical").core_share
    assert share is not None and 0.2 < share < 0.8


def test_a_distributed_one_changes_every_head_by_the_same_norm() -> None:
    one, heads = planted("distributed"), Heads.of(model())
    delta = changed(one)
    norms = [
        sum(float(delta[name][at].square().sum()) for name, at in unit) ** 0.5
        for unit in heads.units(heads.every())
    ]
    assert len(norms) == 8 * (4 + 2)
    assert max(norms) == pytest.approx(min(norms), rel=1e-2)


def test_mlps_alone() -> None:
    assert changed(planted("mlp")) and all(".mlp." in name for name in changed(planted("mlp")))


def test_noise_has_the_norm_of_a_localized_one_and_no_effect() -> None:
    noise, trained = (
        sum(float(one.square().sum()) for one in changed(planted(kind)).values()) ** 0.5
        for kind in ("none", "localized")
    )
    assert noise == pytest.approx(trained, rel=0.05)
    assert abs(planted("none").rise) < 0.1 * planted("localized").rise


def test_planting_leaves_the_model_as_it_was_and_gives_the_same_again() -> None:
    before = {name: p.detach().clone() for name, p in model().named_parameters()}
    wanted = [p.requires_grad for p in model().parameters()]
    rows = behaviour(0, training=16, held_out=20)
    again = plant(model(), tiny_tokenizer(), "hierarchical", 0, recipe=RECIPE, rows=rows)
    assert all(p.equal(before[name]) for name, p in model().named_parameters())
    assert [p.requires_grad for p in model().parameters()] == wanted
    assert all(b.equal(again.other[name]) for name, b in planted("hierarchical").other.items())


def test_rows_held_out_are_of_other_things() -> None:
    training, held = behaviour(5)
    assert (len(training), len(held)) == (32, 48)
    assert not {row.prompt for row in training} & {row.prompt for row in held}
    assert len({(row.chosen, row.rejected) for rows in (training, held) for row in rows}) == 1


def run(kind: str, verdict_of: str) -> Run:
    """As if `kind` had been planted where `verdict_of` was."""
    one = dataclasses.replace(planted(verdict_of), kind=kind)
    return Run.of(one, found(verdict_of), (1.0, 2.0))


def test_a_run_is_read_as_it_was_written() -> None:
    one = run("localized", "localized")
    assert Run.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.hits == len(one.core) and one.said() == "localized"


def test_what_is_counted_as_wrong() -> None:
    """Silence is not wrong, and to find something where nothing was planted is."""
    runs = [
        run("localized", "localized"), run("localized", "none"), run("distributed", "mlp"), run("none", "localized"),
        run("none", "none"),
    ]  # fmt: skip
    assert counts(runs) == {
        "distributed": {"mostly MLP": 1},
        "inconclusive": {"inconclusive": 1, "localized": 1},
        "localized": {"inconclusive": 1, "localized": 1},
    }
    rate = error_rate(runs)
    assert rate is not None and rate.n == 3 and rate.mean == pytest.approx(2 / 3)
    assert error_rate(runs[4:]) is None
    table = list(matrix(runs))
    assert table[2].startswith("| localized | 0 | 1 | 0 | 0 | 1 | 50%")
    assert len(table) == 2 + 3
    assert list(floors(runs))[2] == "| 0.00 | 2 | 2 | 1 |"


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="no kind 'tidy'"):
        plant(
            model(),
            tiny_tokenizer(),
            "tidy",
            0,
            recipe=RECIPE,
            rows=behaviour(0, training=8, held_out=8),
        )
