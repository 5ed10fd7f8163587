"""pv combine: the methods, their switches by --set, their list, and builds that are refused for them."""

from __future__ import annotations

import pytest
from support.commands import InProcess, World, commits, tensors

from pv.registry.combine import METHODS, Combine


def rule(pv: InProcess) -> dict[str, object]:
    found: dict[str, object] = pv.ok("combine", "--json").json["combine"]
    return found


@pytest.fixture
def two(world: World, pv: InProcess) -> None:
    """A persona of two behaviours: `listening`, and `more`, which sums its vector and itself again."""
    pv.ok("add", "more=HEAD:listening", "--weight", "0.5")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_set_by_its_name(world: World, pv: InProcess, method: str) -> None:
    pv.ok("combine", method)
    assert rule(pv) == Combine.of(method).to_json()
    assert f"combine.method   {method}\n" in pv.ok("config").out
    assert pv.ok("combine", method).err.startswith(("✓", "the combine rule is"))


def test_set_reaches_every_switch(world: World, pv: InProcess) -> None:
    for method in METHODS.values():
        for option in method.options:
            value = option.choices[-1] if option.choices else option.most or 1
            if method.name == "della" and option.name in ("density", "epsilon"):
                value = 0.3
            text = value if isinstance(value, str) else f"{value:g}" if value != (1 << 53) - 1 else str(value)
            pv.ok("combine", method.name, "--set", f"{option.name}={text}")
            assert rule(pv)[option.name] == value, option
            assert pv.ok("config", f"combine.{option.name}", "--json").json["settings"] == {
                f"combine.{option.name}": value
            }


def test_set_and_options_and_presets_together(world: World, pv: InProcess) -> None:
    pv.ok(
        "combine",
        "dare",
        "--density",
        "0.4",
        "--set",
        "seed=7",
        "--elect",
        "weighted",
        "--set",
        "lambda=-0.5",
    )
    assert rule(pv) == {
        "method": "dare", "density": 0.4, "seed": 7, "elect": "weighted", "merge": "sum", "lambda": -0.5,
    }  # fmt: skip
    pv.ok("combine", "breadcrumbs", "--preset", "mergekit", "--set", "gamma=0.05")
    assert (rule(pv)["density"], rule(pv)["gamma"]) == (1, 0.05)
    pv.ok("config", "combine.gamma", "0.02")
    assert rule(pv)["gamma"] == 0.02
    pv.ok("combine", "ties", "--set", "density=0.3")
    assert rule(pv)["density"] == 0.3


def test_a_merge_sets_them_too(world: World, pv: InProcess) -> None:
    pv.ok("switch", "-c", "side")
    pv.ok("add", "more=HEAD:listening")
    pv.ok("switch", "main")
    pv.ok("scale", "listening", "0.7")
    pv.ok("merge", "side", "--method", "dare", "--set", "density=0.25", "--set", "seed=3")
    assert (rule(pv)["method"], rule(pv)["density"], rule(pv)["seed"]) == ("dare", 0.25, 3)


WRONG = [
    (("dare", "--set", "density"), "'density' is not SWITCH=VALUE", "--set density=0.2"),
    (("add", "--set", "density"), "is not SWITCH=VALUE", "--set density=0.3"),
    (("dare", "--set", "=3"), "is not SWITCH=VALUE", "--set density=0.2"),
    (("dare", "--set", "density=much"), "dare: density must be a number, not 'much'", "--set density=0.2"),
    (("dare", "--set", "density=nan"), "density must be a number", None),
    (("dare", "--set", "density=2"), "density must be at most 1", None),
    (("dare", "--set", "seed=0.5"), "seed must be a whole number", None),
    (("dare", "--set", "elect=all"), "elect must be one of none, weighted, unweighted", None),
    (("ties", "--elect", "none"), "elect must be one of weighted, unweighted", None),
    (("dare", "--set", "gamma=0.1"), "'dare' takes no option 'gamma'", "an option of breadcrumbs"),
    (("dare", "--set", "colour=1"), "'dare' takes no option 'colour'", "it has: density, seed, elect"),
    (
        ("linear", "--set", "colour=1"),
        "'linear' takes no option 'colour'",
        "it has none: `pv combine linear`",
    ),
    (("dare", "--set", "seed=1", "--set", "seed=2"), "seed of dare is set twice", "each switch once"),
    (("dare", "--set", "density=1", "--density", "1"), "density of dare is set twice", "each switch once"),
    (("della", "--set", "epsilon=0.6"), "must be above 0 and at most 1", "density=0.5 epsilon=0.15"),
    (("--set", "gamma=0.1"), "none is given", "breadcrumbs --set gamma=0.1"),
    (("--set", "colour=1"), "none is given", "ties --set colour=1"),
    (("slerp", "--preset", "mergekit"), "has no preset 'mergekit'", "a preset of ties"),
    (("frobnicate",), "is not one of 'add', 'ties', 'linear'", "pv combine --help"),
]


@pytest.mark.parametrize(("words", "says", "hint"), WRONG, ids=lambda value: str(value)[:50])
def test_what_cannot_be(
    world: World, pv: InProcess, words: tuple[str, ...], says: str, hint: str | None
) -> None:
    before = world.state()
    said = pv("combine", *words)
    assert (said.code, said.out, says in said.err) == (2, "", True), said.err
    assert hint is None or hint in said.err, said.err
    assert world.state() == before


def test_the_list(world: World, pv: InProcess) -> None:
    before = len(commits(pv))
    out = pv.ok("combine", "--list").out
    assert all(any(line.split()[:1] == [name] for line in out.splitlines()) for name in METHODS)
    found = pv.ok("combine", "--list", "--json").json["methods"]
    assert [one["name"] for one in found] == list(METHODS)
    one = pv.ok("combine", "della", "--list").out
    assert all(word in one for word in ("density", "0.5", "epsilon", "at least 0, at most 1", "seed"))
    assert "preset mergekit: of deltas, step none" in pv.ok("combine", "multislerp", "--list").out
    (only,) = pv.ok("combine", "della", "--list", "--json").json["methods"]
    assert {switch["name"]: switch["default"] for switch in only["switches"]} == {
        "density": 0.5, "epsilon": 0.15, "seed": 0, "elect": "none", "merge": "sum", "lambda": 1,
    }  # fmt: skip
    assert len(commits(pv)) == before


def test_the_help_is_short_however_many_methods_there_are(pv: InProcess) -> None:
    for command in ("combine", "merge"):
        out = pv.ok(command, "--help").out
        assert len(out.splitlines()) < 50
        assert "karcher" not in out and "--set" in out and "--list" in out


def test_a_persona_that_the_method_does_not_take(two: None, world: World, pv: InProcess) -> None:
    """Said when it becomes so, and refused before a byte is read; the rest of the registry is as it was."""
    for words, says in (
        (
            ("combine", "slerp"),
            "slerp combines the base with one behaviour; 2 have a weight here: listening, more",
        ),
        (("combine", "linear"), None),
        (("scale", "more", "-1"), "the weight of 'more' is -1: linear divides by the sum of the weights"),
        (("combine", "model_stock"), None),
        (
            ("scale", "more", "0"),
            "model_stock combines 2 or more behaviours, and only listening has a weight",
        ),
        (("combine", "nuslerp"), "nuslerp combines exactly 2 behaviours, and only listening has a weight"),
    ):
        done = pv.ok(*words).err
        assert ("a build of this will be refused" in done) == (says is not None), done
        if says is None:
            continue
        assert says in done
        before = world.state()
        said = pv("build", "-o", "out")
        assert (said.code, said.out, says in said.err, "hint:" in said.err) == (2, "", True, True), said.err
        assert not (world.folder / "out").exists()
        assert world.state() == before


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in ("slerp", "nearswap", "arcee_fusion")]
)
def test_every_method_builds_the_same_bytes_twice(
    two: None, world: World, pv: InProcess, method: str
) -> None:
    pv.ok("combine", method)
    pv.ok("build", "-o", "one", "--threads", "1")
    pv.ok("build", "-o", "other", "--threads", "2", "--shard-size", "50KB")
    assert tensors(world.folder / "one") == tensors(world.folder / "other")
    assert pv.ok("verify", "one").code == 0


@pytest.mark.parametrize("method", ["slerp", "nearswap", "arcee_fusion"])
def test_those_for_one_behaviour_build_too(world: World, pv: InProcess, method: str) -> None:
    pv.ok("combine", method)
    pv.ok("build", "-o", "one")
    pv.ok("verify", "one")
    pv.ok("diff", "HEAD~1")
