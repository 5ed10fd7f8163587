"""Ctrl-C, as a terminal sends it, in the middle of long work: exit code 130, and the registry as it was."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from support.commands import InProcess, Processes, Said, World


def stopped(said: Said) -> None:
    assert (said.code, said.out) == (130, ""), said
    assert said.err.rstrip().endswith("error: interrupted; nothing is left half done"), said
    assert "Traceback" not in said.err


def test_in_the_middle_of_training(world: World, process: Processes, pv: InProcess) -> None:
    before = world.state()
    line = ("train", world.rows, "--as", "x", "--epochs", "100000", "--held-out", "none", "--threads", "1")
    said = process.interrupted_after("tokens/s", *line)
    assert (said.code, said.out) == (130, "") and "Traceback" not in said.err, said
    assert re.search(
        r"interrupted; step \d+ of 100000 is saved: the same command with --resume goes on$",
        said.err.rstrip(),
    )
    after = {name: sum for name, sum in world.state().items() if not name.startswith("trainings/")}
    assert after == before
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


def gone_on_with(said: Said) -> None:
    """Something was finished, and is kept."""
    assert (said.code, said.out) == (130, ""), said
    assert re.search(r"interrupted; \d+ tensors? (is|are) kept: the same command goes on", said.err), said
    assert "Traceback" not in said.err


def test_in_the_middle_of_a_build(big: World, process: Processes, pv: InProcess) -> None:
    before = big.state()
    line = ("build", "-o", "built", "--shard-size", "0.2")
    writing = lambda: any(big.folder.glob(".built.*.pvtmp/new/model-00002*"))  # noqa: E731
    gone_on_with(process.interrupted(*line, when=writing, at=big.folder))
    assert big.state() == before
    (left,) = big.strangers()
    assert left.startswith(".built.")
    assert not (big.folder / "built").exists()
    made = pv.ok(*line, "--json", at=big.folder).json
    assert made["resumed"] > 0
    assert big.strangers() == []
    assert made["files"] == sums(big.folder / "built")
    cold = pv.ok("build", "-o", "cold", "--shard-size", "0.2", "--json", at=big.folder).json
    assert (cold["resumed"], cold["files"], cold["weights"]) == (0, made["files"], made["weights"])


def test_in_the_middle_of_a_build_that_replaces_another(
    big: World, process: Processes, pv: InProcess
) -> None:
    older = pv.ok("build", "HEAD~1", "-o", "built", "--json", at=big.folder).json["files"]
    line = ("build", "-o", "built", "--force", "--shard-size", "0.2")
    writing = lambda: any(big.folder.glob(".built.*.pvtmp/new/model-00002*"))  # noqa: E731
    gone_on_with(process.interrupted(*line, when=writing, at=big.folder))
    assert older == sums(big.folder / "built")
    pv.ok("build", "HEAD~1", "-o", "built", "--force", "--shard-size", "0.3", at=big.folder)
    assert big.strangers() == []  # what was for another build is gone


def test_in_the_middle_of_a_shard(big: World, process: Processes, pv: InProcess) -> None:
    line = ("build", "-o", "built", "--shards", "2/2")
    noted = lambda: any(  # noqa: E731
        file.stat().st_size for file in big.folder.glob("built.pvparts/*/.model*.pvtmp/journal")
    )
    gone_on_with(process.interrupted(*line, when=noted, at=big.folder))
    assert pv.ok(*line, "--json", at=big.folder).json["missing"] == [1]
    assert pv.ok("build", "-o", "built", "--shards", "1/2", "--json", at=big.folder).json["missing"] == []
    assert not (big.folder / "built.pvparts").exists()
    pv.ok("verify", "built", at=big.folder)


def sums(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.glob("*.safetensors"))}


def test_in_the_middle_of_init(big: World, process: Processes, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    writing = lambda: any(folder.glob(".pv*/tmp/*"))  # noqa: E731
    stopped(process.interrupted("init", "--base", big.base, when=writing, at=folder))
    assert list(folder.iterdir()) == []
