"""Steering terms on the command line: listed, changed, merged and taken back as behaviours are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import TESTS
from support.commands import InProcess, World
from support.scripting import keeps_to_it
from support.steering import SITES, add_steering

from pv.registry.registry import Registry

ROOT = TESTS.parent
BEFORE_STEERING = "295c6a11c47ba35c9cc0e41cfe4e12d1c816b702"
"""A commit whose readers know schema 1 alone."""


@pytest.fixture
def formal(world: World) -> str:
    """A steering term `formal` beside the behaviour `listening`; the id of its vector."""
    with Registry.find(world.folder) as registry:
        return add_steering(registry, "formal", 1).vector


def test_it_is_seen_wherever_a_persona_is(formal: str, pv: InProcess) -> None:
    assert "formal" in pv.ok("steer", "list").out and "extracted" in pv.ok("steer", "list").out
    line = f"steering formal  1 × vector {formal[:8]} at all its sites, all positions"
    assert f"+ {line}" in pv.ok("show").out and f"+ {line}" in pv.ok("log", "-p", "-n", "1").out
    assert f"+ {line}" in pv.ok("diff", "HEAD~1", "HEAD").out
    assert "formal  1 × vector" in pv.ok("status").out
    assert "steering formal" in pv.ok("vectors").out and "imported from 1.gguf" in pv.ok("vectors").out
    shown = pv.ok("show", formal[:12]).out
    assert "imported from 1.gguf (test)" in shown and "steering formal in main" in shown
    assert pv.ok("steer", "list", "HEAD~1").out == "no steering terms\n"
    document = pv.ok("status", "--json").json["persona"]
    assert document["schema"] == 2 and document["steering"]["terms"]["formal"]["vector"] == formal


def test_every_answer_has_its_type(formal: str, pv: InProcess) -> None:
    for words in (
        ("steer", "list"),
        ("steer", "set", "formal", "-0.5", "--site", SITES[0], "--positions", "reply"),
        ("steer", "set", "formal", "--when", f"{formal[:8]}@{SITES[1]}>0.25"),
        ("steer", "set", "formal", "--when", f"{SITES[1]}>-0.5"),
        ("steer", "set", "--rule", "preserve-norm"),
        ("steer", "list"),
        ("steer", "rename", "formal", "polite"),
        ("steer", "drop", "polite"),
        ("steer", "add", "again=HEAD~1:polite"),
        ("log",), ("show",), ("diff", "HEAD~2", "HEAD"), ("status",), ("vectors",), ("show", formal[:12]), ("fsck",),
    ):  # fmt: skip
        said = pv("-q", *words, "--json")
        assert (
            said.code == 0 and keeps_to_it(said, " ".join(words[: 2 if words[0] == "steer" else 1])) == []
        ), said


def test_set_by_layer(formal: str, pv: InProcess) -> None:
    pv.ok("steer", "set", "formal", "--layer", "1")
    assert pv.ok("steer", "list", "--json").json["terms"][0]["sites"] == [SITES[1]]
    pv.ok("steer", "set", "formal", "--layer", "0", "--site", SITES[1])
    assert pv.ok("steer", "list", "--json").json["terms"][0]["sites"] == list(SITES)
    none = pv("steer", "set", "formal", "--layer", "7")
    assert none.code == 2 and "it has some in layers 0, 1" in none.err
    assert pv("steer", "set", "formal", "--layer", "0", "--all-sites").code == 2


def test_a_term_that_is_taken_for_a_behaviour(formal: str, pv: InProcess) -> None:
    for words in (("scale", "formal", "2"), ("drop", "formal"), ("show", "formal"), ("log", "formal")):
        said = pv(*words)
        assert said.code == 5 and "formal is a steering term" in said.err, words


def test_set_changes_what_is_asked_and_no_more(formal: str, pv: InProcess) -> None:
    pv.ok("steer", "set", "formal", "2", "--site", SITES[1], "--site", SITES[0])
    assert "~ steering formal  coefficient 2 -> 3" in pv.ok("steer", "set", "formal", "3").err
    (term,) = pv.ok("steer", "list", "--json").json["terms"]
    assert (term["coefficient"], term["sites"], term["when"]) == (3, sorted(SITES), None)
    assert "formal is like that already" in pv.ok("steer", "set", "formal", "3").err
    pv.ok("steer", "set", "formal", "--all-sites", "--when", f"{SITES[0]}>0.1")
    (term,) = pv.ok("steer", "list", "--json").json["terms"]
    assert (term["sites"], term["when"]) == (None, {"vector": formal, "site": SITES[0], "above": 0.1})
    pv.ok("steer", "set", "formal", "--always", "--rule", "preserve-norm")
    found = pv.ok("steer", "list", "--json").json
    assert (found["rule"], found["terms"][0]["when"], found["terms"][0]["coefficient"]) == (
        "preserve-norm",
        None,
        3,
    )
    pv.ok("undo")
    assert pv.ok("steer", "list", "--json").json["rule"] == "add"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("set", "nobody", "2"), 5, "no steering term 'nobody'"),
        (("set", "formal"), 2, "nothing to set"),
        (("set", "formal", "much"), 2, "much"),
        (("set", "formal", "nan"), 2, "nan"),
        (("set", "formal", "--site", "model.layers.99"), 2, "no direction at 'model.layers.99'"),
        (("set", "formal", "--site", "a", "--all-sites"), 2, "exclude each other"),
        (("set", "formal", "--positions", "some"), 2, "some"),
        (("set", "formal", "--when", "0.2"), 2, "names no site"),
        (("set", "formal", "--when", "model.layers.0"), 2, "is no condition"),
        (("set", "formal", "--when", "model.layers.0>2"), 2, "from -1 to 1"),
        (("set", "formal", "--when", "beef@model.layers.0>0.2"), 2, "names no steering vectors here"),
        (("set", "--rule", "mean"), 2, "mean"),
        (("drop", "formal", "nobody"), 5, "no steering term 'nobody'"),
        (("drop", "formal", "formal"), 2, "once"),
        (("rename", "formal", "a b"), 2, "cannot name a steering term"),
        (("rename", "nobody", "x"), 5, "no steering term 'nobody'"),
        (("add", "formal"), 2, "is not REV:TERM"),
        (("add", "HEAD:formal"), 2, "there is a steering term 'formal' here already"),
        (("add", "x=HEAD~1:formal"), 5, "no steering term 'formal' in HEAD~1"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_bad_input_is_one_clear_error(
    words: tuple[str, ...], code: int, says: str, formal: str, pv: InProcess
) -> None:
    said = pv("steer", *words)
    assert (said.code, said.out) == (code, ""), said
    assert says in said.err and "Traceback" not in said.err
    assert pv.ok("log", "--oneline").out.count("\n") == 3


def test_merge_and_revert(formal: str, pv: InProcess) -> None:
    pv.ok("switch", "-c", "side")
    pv.ok("steer", "set", "formal", "2")
    pv.ok("switch", "main")
    pv.ok("steer", "set", "formal", "3")
    said = pv("merge", "side")
    assert said.code == 1 and "both sides changed formal" in said.err and "steering formal" in said.err
    assert "pv -C" in said.err and "--take formal=ours" in said.err
    error = pv("-q", "merge", "side", "--json")
    assert error.error["conflicts"][0]["kind"] == "steering" and keeps_to_it(error, "merge") == []
    pv.ok("merge", "side", "--take", "formal=theirs")
    assert pv.ok("steer", "list", "--json").json["terms"][0]["coefficient"] == 2
    pv.ok("revert", "HEAD", "-m", "1")
    assert pv.ok("steer", "list", "--json").json["terms"][0]["coefficient"] == 3


def test_a_behaviour_and_a_term_of_one_name(formal: str, pv: InProcess) -> None:
    pv.ok("steer", "rename", "formal", "listening")
    pv.ok("switch", "-c", "side")
    pv.ok("steer", "set", "listening", "2")
    pv.ok("scale", "listening", "2")
    pv.ok("switch", "main")
    pv.ok("steer", "set", "listening", "3")
    pv.ok("scale", "listening", "3")
    said = pv("merge", "side")
    assert "--take listening=ours --take steering.listening=ours" in said.err
    pv.ok("merge", "side", "--take", "listening=ours", "--take", "steering.listening=theirs")
    found = pv.ok("status", "--json").json["persona"]
    assert found["behaviours"]["listening"]["weight"] == 3
    assert found["steering"]["terms"]["listening"]["coefficient"] == 2


def test_a_behaviour_that_retired_a_term(formal: str, world: World, pv: InProcess) -> None:
    with Registry.find(world.folder) as registry:
        registry.change(
            "steer retire",
            "Retire",
            lambda p: p.with_steering("formal", p.steering_term("formal").changed(retired_by="listening")),
        )
    assert "retired by listening" in pv.ok("steer", "list").out
    said = pv("drop", "listening")
    assert said.code == 2 and "pv steer drop formal" in said.err
    pv.ok("rename", "listening", "heard")
    assert pv.ok("steer", "list", "--json").json["terms"][0]["retired_by"] == "heard"
    pv.ok("steer", "add", "again=HEAD:formal")
    assert [term["retired_by"] for term in pv.ok("steer", "list", "--json").json["terms"]] == [None, "heard"]
    pv.ok("steer", "drop", "formal", "again")
    pv.ok("drop", "heard")


def test_a_build_says_what_is_not_in_it(formal: str, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("steer", "set", "formal", "--positions", "reply")
    made = pv.ok("build", "-o", tmp_path / "with", "--threads", "1")
    assert (
        "note: steering term formal: not in the weights, listed in steering.json: it is for the reply"
        in made.err
    )
    answer = pv.ok("-q", "build", "-o", tmp_path / "with", "--threads", "1", "--json")
    assert keeps_to_it(answer, "build") == [] and len(answer.json["notes"]) == 1
    pv.ok("steer", "set", "formal", "0")
    assert pv.ok("build", "-o", tmp_path / "off", "--json", "--threads", "1").json["notes"] == []
    pv.ok("steer", "drop", "formal")
    plain = pv.ok("build", "-o", tmp_path / "plain", "--json", "--threads", "1").json
    assert plain["weights"] == answer.json["weights"] and plain["build"] != answer.json["build"]
    assert "is the build" in pv.ok("verify", tmp_path / "plain").out or plain["already_built"] is False


def test_fsck_and_a_copied_folder(formal: str, world: World, pv: InProcess, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.folder, copy)
    pv.ok("fsck", "--deep", at=copy)
    assert pv.ok("steer", "list", at=copy).out == pv.ok("steer", "list").out
    pack = copy / ".pv" / "packs" / formal[:2] / formal
    data = bytearray(pack.read_bytes())
    data[-3] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    said = pv("fsck", "--deep", at=copy)
    assert said.code == 3 and "steering formal" in said.out + said.err
    assert "import it again, from the same file 1.gguf" in said.out + said.err
    shutil.copy(world.folder / ".pv" / "packs" / formal[:2] / formal, pack)
    pv.ok("fsck", "--deep", at=copy)


def test_fsck_decodes_without_the_base(formal: str, world: World, pv: InProcess) -> None:
    world.base.rename(world.base.with_name("away"))
    try:
        said = pv("fsck", "--deep")
    finally:
        world.base.with_name("away").rename(world.base)
    assert formal[:12] not in said.out + said.err


def test_an_earlier_pv_refuses_it(formal: str, world: World, tmp_path: Path) -> None:
    old = tmp_path / "old"
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", BEFORE_STEERING, "api", "cli", "registry", "vecstore"],
        capture_output=True,
    )
    if archive.returncode:
        pytest.skip("no history of pv here")
    old.mkdir()
    subprocess.run(["tar", "-x", "-C", str(old)], input=archive.stdout, check=True)
    shutil.copytree(old / "api", old / "pv")
    for room in ("cli", "registry", "vecstore"):
        (old / room).rename(old / "pv" / room)
    env = {**os.environ, "PYTHONPATH": str(old)}
    for words in (["status"], ["log"], ["switch", "-c", "x"], ["fsck"], ["gc", "-n"]):
        done = subprocess.run(
            [sys.executable, "-m", "pv", *words], cwd=world.folder, env=env, capture_output=True, text=True
        )
        assert done.returncode == 3, done
        said = done.stdout + done.stderr
        assert "pip install -U personavec" in said and "Traceback" not in said


def test_unretire_brings_it_back_as_it_was(formal: str, world: World, pv: InProcess) -> None:
    with Registry.find(world.folder) as registry:
        known: dict[str, Any] = {"evidence": {"tested": {"n": 8}}, "retired_by": "listening"}
        registry.change(
            "x", "Retire", lambda p: p.with_steering("formal", replace(p.steering_term("formal"), **known))
        )
    said = pv("drop", "listening")
    assert said.code == 2 and "pv steer unretire formal" in said.err
    answer = pv.ok("-q", "steer", "unretire", "formal", "--json")
    assert keeps_to_it(answer, "steer unretire") == []
    (term,) = pv.ok("steer", "list", "--json").json["terms"]
    assert term["retired_by"] is None and term["evidence"] == {"tested": {"n": 8}}
    assert "formal is not retired" in pv.ok("steer", "unretire", "formal").err
    assert pv("steer", "unretire", "nobody").code == 5
    pv.ok("drop", "listening")


def test_a_mergekit_document_says_what_is_not_in_it(formal: str, pv: InProcess) -> None:
    said = pv.ok("export", "--mergekit")
    assert "steering is left out, mergekit knows none: formal" in said.out
    assert "note: steering is left out" in said.err
    pv.ok("steer", "drop", "formal")
    assert "steering" not in pv.ok("export", "--mergekit").out
