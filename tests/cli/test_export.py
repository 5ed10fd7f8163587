"""pv export: the checkpoint that was committed, its sums, what it says it is; and the engine in pv status."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import InProcess, World, tensors
from support.scripting import keeps_to_it
from support.steering import add_steering

from pv.vecstore.repo.repo import Repo


def test_a_captured_checkpoint_comes_back_whatever_the_persona_does_with_it(
    world: World, pv: InProcess
) -> None:
    pv.ok("commit", world.tuned, "--as", "tuned", "--weight", "-0.3")
    said = pv.ok("export", "tuned", "-o", "out")
    assert "exported tuned into" in said.err
    assert "the captured checkpoint, bit for bit" in said.err
    assert tensors(world.folder / "out") == tensors(world.tuned)
    weights, sums = said.out.splitlines()
    assert weights.startswith("weights  ")
    digest = hashlib.sha256((world.folder / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert sums == f"sha256   {digest}  model.safetensors"
    beside = {path.name for path in world.base.iterdir()}
    assert {path.name for path in (world.folder / "out").iterdir()} == {*beside, "export.json"}
    for name in beside - {"model.safetensors"}:
        assert (world.folder / "out" / name).read_bytes() == (world.base / name).read_bytes()
    assert json.loads((world.folder / "out" / "export.json").read_bytes())["weights"] in weights


def test_what_pv_trained_is_built_alone_and_says_so(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.25")
    said = pv.ok("export", "listening", "-o", "out")
    assert "not one captured checkpoint (int8), so built alone at weight 1" in said.err
    assert said.out.splitlines()[0].startswith("build    ")
    found = pv.ok("export", "HEAD~1:listening", "-o", "before", "--json").json
    built = pv.ok("build", "HEAD~1", "-o", "whole", "--json").json
    assert (found["captured"], found["encodings"], found["commit"]) == (False, ["int8"], built["commit"])
    assert {key: found[key] for key in ("build", "weights", "files", "tensors", "touched", "bytes")} == {
        key: built[key] for key in ("build", "weights", "files", "tensors", "touched", "bytes")
    }
    pv.ok("verify", "before", "HEAD~1")


def test_a_folder_is_replaced_only_if_pv_made_it_and_it_is_told_to(world: World, pv: InProcess) -> None:
    pv.ok("commit", world.tuned, "--as", "tuned")
    for other in ("export listening", "build", "export tuned"):
        pv.ok(*other.split(), "-o", "out", "--force")
        said = pv("export", "tuned", "-o", "out")
        assert (said.code, said.out) == (2, "")
        assert "--force replaces" in said.err
        pv.ok("export", "tuned", "-o", "out", "--force", "--shard-size", "0.03")
        assert tensors(world.folder / "out") == tensors(world.tuned)
    mine = world.folder / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert pv("export", "tuned", "-o", "mine", "--force").code == 2
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert world.strangers() == []


def test_a_dry_run_writes_nothing(world: World, pv: InProcess) -> None:
    pv.ok("commit", world.tuned, "--as", "tuned")
    before = world.state()
    said = pv.ok("export", "tuned", "-n", "-o", "out", "--shard-size", "0.03")
    assert said.out.count("model-0000") == len(said.out.splitlines()) > 2
    found = pv.ok("export", "tuned", "-n", "-o", "out", "--json").json
    assert found["captured"] is True
    assert found["sizes"] == {"model.safetensors": sum(len(raw) for *_, raw in tensors(world.tuned).values())}
    assert not (world.folder / "out").exists()
    assert world.state() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((":listening", "-o", "out"), 2, "is not [REV:]NAME"),
        (("HEAD:", "-o", "out"), 2, "is not [REV:]NAME"),
        (("", "-o", "out"), 2, "is not [REV:]NAME"),
        (("nobody", "-o", "out"), 5, "no behaviour 'nobody'"),
        (("HEAD~1:listening", "-o", "out"), 5, "no behaviour 'listening'"),
        (("nowhere:listening", "-o", "out"), 5, "nowhere"),
        (("listening",), 2, "-o"),
        (("listening", "-o", "out", "--shard-size", "nan"), 2, "shard-size"),
    ],
)
def test_what_cannot_be_exported(
    world: World, pv: InProcess, words: tuple[str, ...], code: int, said: str
) -> None:
    found = pv("export", *words)
    assert (found.code, found.out) == (code, "")
    assert said in found.err
    assert not (world.folder / "out").exists()


def test_steering_terms_are_left_out_and_it_says_so(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("commit", world.tuned, "--as", "tuned")
    plain = pv.ok("export", "tuned", "-o", tmp_path / "plain")
    assert "note:" not in plain.err
    with Repo.open(world.folder) as repo:
        add_steering(repo.registry, "formal", 1)
        add_steering(repo.registry, "off", 2, coefficient=0.0)
    note = "steering terms are left out: formal"
    said = pv.ok("export", "tuned", "-o", tmp_path / "steered")
    assert f"note: {note}\n" in said.err and tensors(tmp_path / "steered") == tensors(tmp_path / "plain")
    assert said.out == plain.out
    for words in ((), ("tuned",)):
        said = pv("export", "--lora", *words, "--rank", "2", "-o", tmp_path / f"lora{len(words)}", "--json")
        assert said.json["notes"] == [note] and keeps_to_it(said, "export") == []
    said = pv.ok("export", "--lora", "--rank", "2", "-o", tmp_path / "lora")
    assert f"note: {note}\n" in said.err


def test_others_may_switch_commit_and_collect_meanwhile(world: World, pv: InProcess) -> None:
    """An export reads one commit: what moves beside it makes no difference, and none of it has to wait."""
    pv.ok("commit", world.tuned, "--as", "tuned")
    pv.ok("tag", "kept")
    busy = subprocess.Popen(
        [sys.executable, "-m", "pv", "-q", "export", "kept:tuned", "-o", "out", "--threads", "1"],
        cwd=world.folder,
    )
    while busy.poll() is None:
        pv.ok("revert", "HEAD")
        pv.ok("branch", f"b{time.monotonic_ns()}")
        pv.ok("gc")
    assert busy.wait() == 0
    assert tensors(world.folder / "out") == tensors(world.tuned)


def test_status_says_how_a_registry_of_engine_1_moves_up(world: World, pv: InProcess, tmp_path: Path) -> None:
    assert "engine" not in pv.ok("status").out
    with Repo.open(world.folder) as repo:
        repo.registry.change("engine", "Engine 1", lambda persona: replace(persona, engine=1))
    line = "engine   1: `pv config engine 2` gives captured checkpoints back bit for bit"
    assert line in pv.ok("status").out.splitlines()
    assert pv.ok("status", "--json").json["persona"]["engine"] == 1
