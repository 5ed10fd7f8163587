"""Ctrl-C, as a terminal sends it, in the middle of long work: exit code 130, and the registry as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

from support.commands import InProcess, Processes, Said, World


def stopped(said: Said) -> None:
    assert (said.code, said.out) == (130, ""), said
    assert said.err.rstrip().endswith("error: interrupted; nothing is left half done"), said
    assert "Traceback" not in said.err


def test_in_the_middle_of_training(world: World, process: Processes, pv: InProcess) -> None:
    before = world.state()
    line = ("train", world.rows, "--as", "x", "--epochs", "100000", "--held-out", "none", "--threads", "1")
    stopped(process.interrupted_after("step 1/", *line))
    assert world.state() == before
    pv.ok("scale", "listening", "2")


def test_in_the_middle_of_a_commit(big: World, process: Processes) -> None:
    before = big.state()
    line = ("commit", big.tuned, "--as", "x")
    writing = lambda: any(file.stat().st_size for file in (big.folder / ".pv" / "tmp").iterdir())  # noqa: E731
    stopped(process.interrupted(*line, when=writing, at=big.folder))
    assert big.state() == before
    said = process.interrupted(*line, "--json", when=writing, at=big.folder)
    assert (said.code, said.out, said.error["exit_code"]) == (130, "", 130)
    assert big.state() == before


def test_in_the_middle_of_a_build(big: World, process: Processes, pv: InProcess) -> None:
    before = big.state()
    writing = lambda: any(big.folder.glob(".built.*.pvtmp/new/*.safetensors"))  # noqa: E731
    stopped(process.interrupted("build", "-o", "built", when=writing, at=big.folder))
    assert big.state() == before
    assert big.strangers() == []
    assert not (big.folder / "built").exists()
    older = pv.ok("build", "HEAD~1", "-o", "built", "--json", at=big.folder).json["files"]
    stopped(process.interrupted("build", "-o", "built", "--force", when=writing, at=big.folder))
    data = (big.folder / "built" / "model.safetensors").read_bytes()
    assert older == {"model.safetensors": hashlib.sha256(data).hexdigest()}
    assert big.strangers() == []


def test_in_the_middle_of_init(big: World, process: Processes, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    writing = lambda: any(folder.glob(".pv*/tmp/*"))  # noqa: E731
    stopped(process.interrupted("init", "--base", big.base, when=writing, at=folder))
    assert list(folder.iterdir()) == []
