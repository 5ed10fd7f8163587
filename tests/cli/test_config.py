"""pv config: the settings of a persona, shown and set."""

from __future__ import annotations

import pytest
from support.commands import InProcess, World, commits

ALL = {
    "engine": 2,
    "combine.method": "add",
    "output.dtype": "base",
    "output.rounding": "stochastic",
    "output.seed": 0,
}


def test_it_lists_and_prints(world: World, pv: InProcess) -> None:
    assert pv.ok("config").out.splitlines() == [
        "engine           2",
        "combine.method   add",
        "output.dtype     base",
        "output.rounding  stochastic",
        "output.seed      0",
    ]
    assert pv.ok("config", "output.dtype").out == "base\n"
    found = pv.ok("config", "--json").json
    assert (found["settings"], found["commit"]) == (ALL, pv.ok("status", "--json").json["commit"])
    assert pv.ok("config", "output.seed", "--json").json["settings"] == {"output.seed": 0}


@pytest.mark.parametrize(
    ("key", "value", "now"),
    [
        ("output.dtype", "fp32", "fp32"),
        ("output.dtype", "bf16", "bf16"),
        ("output.rounding", "nearest", "nearest"),
        ("output.seed", "7", 7),
        ("combine.method", "ties", "ties"),
    ],
)
def test_it_sets_with_one_commit(world: World, pv: InProcess, key: str, value: str, now: object) -> None:
    before = len(commits(pv))
    said = pv.ok("config", key, value, "-m", "As we like it")
    assert "✓ " in said.err
    assert pv.ok("config", key, "--json").json["settings"] == {key: now}
    (newest, *_) = found = commits(pv)
    assert (len(found), newest["message"].strip()) == (before + 1, "As we like it")
    (change,) = pv.ok("show", "--json").json["changes"]
    assert change["name"] == key.removesuffix(".method")
    assert pv.ok("undo", "--json").json["undone"].endswith(f"config {key} {value} -m 'As we like it'")


def test_switches_are_set_one_by_one(world: World, pv: InProcess) -> None:
    pv.ok("combine", "ties", "--density", "0.5")
    for key, value in (("elect", "weighted"), ("merge", "sum"), ("lambda", "-0.5"), ("density", "0.3")):
        pv.ok("config", f"combine.{key}", value)
    assert pv.ok("status", "--json").json["persona"]["combine"] == {
        "method": "ties", "density": 0.3, "elect": "weighted", "merge": "sum", "lambda": -0.5,
    }  # fmt: skip
    assert "combine.lambda   -0.5\n" in pv.ok("config").out
    pv.ok("config", "combine.method", "add")
    assert pv.ok("config", "--json").json["settings"] == ALL


WRONG = [
    (("output.dtpye",), "did you mean output.dtype?"),
    (("nothing",), "there are: engine, combine.method"),
    (("nothing", "1"), "there are: engine, combine.method"),
    (("output.dtype", "int4"), "there are: base, "),
    (("output.rounding", "up"), "there are: stochastic, nearest"),
    (("output.seed", "-1"), "a whole number from 0"),
    (("output.seed", "1.5"), "must be a whole number"),
    (("output.seed", "many"), "must be a whole number"),
    (("output.seed", "9007199254740992"), "a whole number from 0"),
    (("engine", "99"), "there are: 1, 2"),
    (("engine", "new"), "must be a whole number"),
    (("combine.method", "mix"), "there are: add, ties"),
    (("combine.density",), "pv combine ties --set density=0.2"),
    (("combine.density", "0.3"), "pv combine ties --set density=0.3"),
    (("combine.density", "7"), "pv combine ties --set density=0.2"),
    (("combine.density", "x"), "pv combine ties --set density=0.2"),
    (("combine.sparsity", "0.3"), "did you mean combine.density?"),
    (("",), "no setting ''"),
    (("base", "x"), "no setting 'base'"),
]


@pytest.mark.parametrize(("words", "hint"), WRONG, ids=lambda value: str(value)[:40])
def test_what_cannot_be_set(world: World, pv: InProcess, words: tuple[str, ...], hint: str) -> None:
    before = world.state()
    said = pv("config", *words)
    assert (said.code, said.out, hint in said.err) == (2, "", True), said
    assert world.state() == before


def test_switches_that_cannot_be(world: World, pv: InProcess) -> None:
    pv.ok("combine", "ties")
    before = world.state()
    for key, value, words in (
        ("density", "0", "above 0"),
        ("density", "2", "at most 1"),
        ("density", "nan", "must be a number"),
        ("density", "half", "must be a number"),
        ("elect", "nobody", "must be one of weighted, unweighted"),
    ):
        said = pv("config", f"combine.{key}", value)
        assert (said.code, words in said.err) == (2, True), said
    assert world.state() == before
