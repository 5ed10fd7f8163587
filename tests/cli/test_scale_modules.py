"""pv scale: factors by module and by depth, what they do to a build, and how they are said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.commands import InProcess, World, tensors

LAYERS = 2  # of the tiny model


def moved(pv: InProcess, base: Path, folder: Path) -> dict[str, np.ndarray]:
    """{tensor: built - base}, in fp32."""
    pv.ok("build", "-o", folder, "--dtype", "fp32")
    before, after = tensors(base), tensors(folder)
    found = {}
    for name, (dtype, _, raw) in before.items():
        assert dtype == "BF16" and after[name][0] == "F32"
        own = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        found[name] = np.frombuffer(after[name][2], np.float32) - own
    return found


def shares(pv: InProcess, world: World, tmp_path: Path, *options: str) -> Callable[[str], float]:
    """How much of what it moves alone at weight 1 a behaviour moves with these factors, tensor by tensor."""
    whole = moved(pv, world.base, tmp_path / "whole")
    pv.ok("scale", "listening", "1", *options)
    part = moved(pv, world.base, tmp_path / "part")

    def share(name: str) -> float:
        return float(
            part[name].astype(np.float64) @ whole[name] / (whole[name].astype(np.float64) @ whole[name])
        )

    return share


def test_the_weight_of_a_tensor_is_the_weight_times_its_factors(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    options = ("--modules", "*.mlp.*=0.5", "--modules", "model.layers.1.*=0", "--modules", "*up_proj*=3")
    share = shares(pv, world, tmp_path, *options)
    assert share("model.layers.0.self_attn.q_proj.weight") == pytest.approx(1)
    assert share("model.layers.0.mlp.down_proj.weight") == pytest.approx(0.5, abs=1e-3)
    assert share("model.layers.0.mlp.up_proj.weight") == pytest.approx(1.5, abs=1e-3)  # both match
    assert share("model.layers.1.mlp.up_proj.weight") == 0


def test_depth_is_a_line_over_the_layers(world: World, pv: InProcess, tmp_path: Path) -> None:
    share = shares(pv, world, tmp_path, "--depth", "0:0.25,1:-1")
    assert share("model.layers.0.mlp.up_proj.weight") == pytest.approx(0.25, abs=1e-3)
    assert share("model.layers.1.mlp.up_proj.weight") == pytest.approx(-1, abs=1e-3)


def test_both_multiply_and_a_factor_of_one_pattern_is_one_factor(world: World, pv: InProcess) -> None:
    pv.ok(
        "scale",
        "listening",
        "1",
        "--modules",
        "model.layers.0.*=4",
        "--modules",
        "*.mlp.*=2",
        "--depth",
        "0:0.5,1:1",
    )
    now = pv.ok("show", "--json").json["persona"]["behaviours"]["listening"]
    assert now["modules"] == {"model.layers.0.*": 2, "model.layers.1.*": 1, "*.mlp.*": 2}


def test_factors_stay_until_others_are_given_and_none_removes_them(world: World, pv: InProcess) -> None:
    def modules() -> object:
        return pv.ok("show", "--json").json["persona"]["behaviours"]["listening"]["modules"]

    pv.ok("scale", "listening", "1", "--modules", "*.mlp.*=0.5")
    pv.ok("scale", "listening", "2")
    assert modules() == {"*.mlp.*": 0.5}
    pv.ok("scale", "listening", "2", "--depth", "1:0.5")
    assert modules() == {"model.layers.0.*": 0.5, "model.layers.1.*": 0.5}
    pv.ok("scale", "listening", "2", "--modules", "none")
    assert modules() is None
    assert pv.ok("scale", "listening", "2", "--modules", "none", "--json").json["changed"] is False


def test_they_are_said_in_words(world: World, pv: InProcess) -> None:
    said = pv.ok("scale", "listening", "1", "--depth", "0:0.5,1:1")
    assert "Scale listening to 1, by depth 0:0.5,1:1" in said.err
    assert "modules none -> model.layers.0.* × 0.5, model.layers.1.* × 1" in said.err
    for words in (("status",), ("show", "listening"), ("log", "-n", "1")):
        assert "0.5" in pv.ok(*words).out, words


@pytest.mark.parametrize(
    ("options", "says", "hint"),
    [
        (("--modules", "*.mpl.*=2"), "no tensor of the base matches '*.mpl.*'", "'model.layers.*.mlp."),
        (("--modules", "model.layers.7.*=2"), "no tensor of the base matches 'model.layers.7.*'", "nearest"),
        (("--modules", "*.mlp.*"), "'*.mlp.*' is not PATTERN=FACTOR", "--modules '*.mlp.*=0.5'"),
        (("--modules", "=2"), "'=2' is not PATTERN=FACTOR", "for example"),
        (("--modules", "*=x"), "'x' is not a number", ""),
        (("--modules", "*=nan"), "a factor is a finite number", ""),
        (("--modules", "*=1", "--modules", "*=2"), "'*' is given twice", "give each pattern one factor"),
        (("--modules", "none", "--depth", "0:1"), "removes factors, and others are given", "--modules none"),
        (("--depth", "0.5"), "'0.5' is not DEPTH:FACTOR", "--depth 0:0.5,1:1"),
        (("--depth", ""), "'' is not DEPTH:FACTOR", "--depth 0:0.5,1:1"),
        (("--depth", "0:a"), "'0:a' is not DEPTH:FACTOR", "--depth 0:0.5,1:1"),
        (("--depth", "0:1,2:1"), "a depth is from 0, the first layer, to 1, the last; not 2", "for example"),
        (("--depth", "nan:1"), "a depth is from 0, the first layer, to 1, the last; not nan", "for example"),
        (("--depth", "1:1,0:1"), "depths must grow: 0 stands after 1", "each depth once"),
        (("--depth", "0:1,0:2"), "depths must grow: 0 stands after 0", "each depth once"),
        (("--depth", "0:inf"), "a factor is a finite number up to a million, not inf", ""),
    ],
)
def test_what_cannot_be_is_refused(
    world: World, pv: InProcess, options: tuple[str, ...], says: str, hint: str
) -> None:
    before = pv.ok("log", "--json").out
    said = pv("scale", "listening", "1", *options)
    assert (said.code, said.out) == (2, ""), said
    assert says in said.err and hint in said.err, said.err
    assert pv.ok("log", "--json").out == before
