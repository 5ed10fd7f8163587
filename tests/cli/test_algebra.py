"""pv add NAME=EXPRESSION: contrasts and analogies, exact and taken back exactly."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, World


@pytest.fixture
def three(world: World, pv: InProcess) -> None:
    """Behaviours `listening` (trained), `tuned` (captured) and `small`, which is `tuned` with a few weights less."""
    pv.ok("commit", world.tuned, "--as", "tuned")
    pv.ok("compress", "listening", "--to", "sparse:0.1")
    pv.ok("add", "whole=HEAD~1:listening")


def behaviour(pv: InProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = pv.ok("show", "--json").json["persona"]["behaviours"][name]
    return found


def built(pv: InProcess, folder: Path) -> str:
    pv.ok("build", "-o", folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_contrast_has_the_terms_of_both(three: None, pv: InProcess) -> None:
    a, b = (behaviour(pv, name)["terms"][0][1] for name in ("listening", "tuned"))
    said = pv.ok("add", "c=listening-tuned")
    assert behaviour(pv, "c") == {"weight": 1, "terms": [[1, a], [-1, b]], "modules": None}
    assert "Add c = listening - tuned" in said.err
    assert "note: listening, tuned are still in the persona beside c" in said.err
    assert f"1·{a[:8]}, -1·{b[:8]}" in pv.ok("show", "c").out


def test_weights_multiply_in_and_that_is_said(three: None, pv: InProcess) -> None:
    pv.ok("scale", "tuned", "-0.5")
    b = behaviour(pv, "tuned")["terms"][0][1]
    said = pv.ok("add", "c=0.5*whole - 0.3*tuned", "--weight", "2")
    found = behaviour(pv, "c")
    assert found["weight"] == 2 and [0.15, b] in found["terms"]
    assert "tuned counts with its weight -0.5" in said.err


def test_an_analogy_and_its_way_back_is_the_same_build(three: None, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("drop", "whole")
    before = built(pv, tmp_path / "before")
    pv.ok("add", "d=listening - tuned + HEAD~1:whole")
    pv.ok("add", "e=d + tuned - HEAD~2:whole")
    assert behaviour(pv, "e")["terms"] == behaviour(pv, "listening")["terms"]
    pv.ok("drop", "d", "listening")
    pv.ok("rename", "e", "listening")
    assert built(pv, tmp_path / "after") == before
    pv.ok("add", "x=listening - tuned")
    pv.ok("add", "y=tuned - listening")  # x + y is nothing at all, not even rounding
    assert built(pv, tmp_path / "both") == before


def test_numbers_count_as_they_are_written(three: None, pv: InProcess) -> None:
    """0.1 + 0.2 is 0.3: what is taken away in decimals is gone."""
    pv.ok("add", "c=0.1*tuned + 0.2*tuned - 0.3*tuned + whole")
    assert len(behaviour(pv, "c")["terms"]) == 1
    said = pv("add", "d=0.1*tuned + 0.2*tuned - 0.3*tuned")
    assert said.code == 2 and "nothing is left of" in said.err


def test_one_operand_is_a_copy(three: None, pv: InProcess) -> None:
    pv.ok("scale", "tuned", "0.5", "--modules", "*.mlp.*=2")
    pv.ok("add", "again=tuned")
    assert behaviour(pv, "again") == behaviour(pv, "tuned")
    pv.ok("branch", "a+b")
    pv.ok("add", "more=a+b:tuned")
    assert behaviour(pv, "more") == behaviour(pv, "tuned")


def test_module_factors_that_all_have_are_kept(three: None, pv: InProcess) -> None:
    for name in ("tuned", "whole"):
        pv.ok("scale", name, "1", "--modules", "*.mlp.*=2")
    pv.ok("add", "c=tuned - whole")
    assert behaviour(pv, "c")["modules"] == {"*.mlp.*": 2}


@pytest.mark.parametrize(
    ("expression", "code", "says"),
    [
        ("c=tuned - tuned", 2, "nothing is left of tuned - tuned"),
        ("c=tuned - nobody", 5, "no behaviour 'nobody' in this persona, at character 9"),
        ("c=tuned - HEAD:nobody", 5, "no behaviour 'nobody'"),
        ("c=tuned - nowhere:tuned", 5, "nowhere"),
        ("c=tuned - zero", 2, "zero has weight 0: it would add nothing"),
        ("c=tuned - scaled", 2, "tuned and scaled have different module factors"),
        ("tuned=tuned - whole", 2, "there is a behaviour 'tuned' here already"),
        ("c=", 2, "is not [NAME=]REV:BEHAVIOUR"),
        ("=tuned", 2, "is not [NAME=]REV:BEHAVIOUR"),
        ("tuned", 2, "is not [NAME=]REV:BEHAVIOUR"),
        ("c d=tuned - whole", 2, "cannot name a behaviour"),
        ("c=tuned -", 2, "expected a behaviour, not the end, at character 8"),
        ("c=1e6*big", 2, "too large|more than 1e300|larger"),
    ],
)
def test_what_cannot_be_is_refused(three: None, pv: InProcess, expression: str, code: int, says: str) -> None:
    pv.ok("add", "zero=HEAD:whole", "--weight", "0")
    pv.ok("add", "scaled=HEAD:whole")
    pv.ok("scale", "scaled", "1", "--modules", "*.mlp.*=2")
    if "big" in expression:
        pv.ok("add", "big=1e6*tuned", "--weight", "1e6")
        for name in ("big2", "big3"):
            pv.ok("add", f"{name}=1e6*big", "--weight", "1e6")
            pv.ok("drop", "big")
            pv.ok("rename", name, "big")
    before = pv.ok("log", "--json").out
    said = pv("add", expression)
    assert (said.code, said.out) == (code, ""), said
    assert any(part in said.err for part in says.split("|")), said.err
    assert pv.ok("log", "--json").out == before
