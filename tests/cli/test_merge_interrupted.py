"""`pv build --from-mergekit` that is killed or interrupted: gone on with by the same command, swept by another."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors
from support.mergekit import document, make_models, snapshot, write

BUILD = ("-q", "build", "--from-mergekit", "merge.yml", "--json", "--shard-size", "0.02", "-o")
KILLED_AT = """
import os, signal, sys
from pv.registry.disk import durable
left, stop = int(sys.argv[1]), sys.argv[2]
def fault(label):
    global left
    left -= label.startswith(stop)
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
durable.fault = fault
from pv.cli.main import run
sys.exit(run(sys.argv[3:]))
"""


@pytest.fixture
def models(made: World, tmp_path: Path) -> Path:
    return make_models(made, tmp_path)


def killed(models: Path, steps: int, label: str = "", out: str = "out", *more: str) -> int:
    """The exit code of a merge that is killed at a step of its writing, or that there was no such step."""
    command = [sys.executable, "-c", KILLED_AT, str(steps), label, *BUILD, out, *more]
    return subprocess.run(command, cwd=models, env=dict(os.environ), capture_output=True).returncode


def left(models: Path) -> list[str]:
    return sorted(path.name for path in models.glob(".*pvtmp"))


def test_it_goes_on_where_it_was_killed(models: Path, pv: InProcess) -> None:
    for method, more in (("ties", {"density": 0.4}), ("dare_linear", {"density": 0.5})):
        write(models, document(merge_method=method, parameters=more))
        cold = pv.ok(*BUILD, f"cold-{method}").json
        assert cold["resumed"] == 0
        out = f"out-{method}"
        assert killed(models, 12, "noted", out) == -signal.SIGKILL
        assert not (models / out).exists() and len(left(models)) == 1
        made = pv.ok(*BUILD, out).json
        assert made["resumed"] >= 12 and made["weights"] == cold["weights"]
        assert snapshot(models / out) == snapshot(models / f"cold-{method}")
        assert left(models) == []


def test_killed_at_every_step(models: Path, pv: InProcess) -> None:
    """Each process is killed further on than the one before; the folder is whole or not there."""
    write(models, document())
    cold = pv.ok(*BUILD, "cold").json
    for steps in (0, 3, 9, 17, 30, 60, 1000):
        code = killed(models, steps)
        assert code in (0, -signal.SIGKILL)
        if (models / "out").exists():
            assert snapshot(models / "out") == snapshot(models / "cold")
        if code == 0:
            break
        assert len(left(models)) <= 1
    assert code == 0 and left(models) == []
    assert cold["tensors"] == len(tensors(models / "base"))


def test_another_merge_begins_anew(models: Path, pv: InProcess) -> None:
    """Another document, or a model that was written again, is not the same merge: nothing of it is believed."""
    write(models, document())
    assert killed(models, 8, "noted") == -signal.SIGKILL
    write(models, document(merge_method="ties", parameters={"density": 0.5}))
    made = pv.ok(*BUILD, "out").json
    assert made["resumed"] == 0 and left(models) == []
    assert pv.ok(*BUILD, "cold").json["weights"] == made["weights"]

    assert killed(models, 8, "noted", "second") == -signal.SIGKILL
    table = {name: (dtype, shape, raw) for name, (dtype, shape, raw) in tensors(models / "b").items()}
    name = sorted(table)[0]
    dtype, shape, raw = table[name]
    table[name] = (dtype, shape, bytes(len(raw)))
    write_tensors(models / "a" / "model.safetensors", table)
    made = pv.ok(*BUILD, "second").json
    assert made["resumed"] == 0 and left(models) == []
    assert pv.ok(*BUILD, "third").json["weights"] == made["weights"]


def test_a_full_disk_leaves_nothing(models: Path, process: Processes, pv: InProcess) -> None:
    """A limit on the size of a file is met as a full disk is: in the middle of writing."""
    write(models, document())
    before = snapshot(models)
    half = (models / "base" / "model.safetensors").stat().st_size // 2

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    said = process("build", "--from-mergekit", "merge.yml", "-o", "out", preexec_fn=limit)
    assert said.code == 74 and "hint" in said.err and "Traceback" not in said.err, said
    assert snapshot(models) == before
    pv.ok(*BUILD, "out")


def test_ctrl_c_says_what_is_kept(models: Path, process: Processes, pv: InProcess) -> None:
    big = bytes(range(1, 61)) * 200_000
    for name in ("base", "a", "b"):
        shape: tuple[int, ...] = (len(big) // 128, 64)
        table = {f"model.layers.{i}.w": ("BF16", shape, big) for i in range(6)}
        write_tensors(models / name / "model.safetensors", table)
    write(models, document(merge_method="ties", parameters={"density": 0.5}))

    def noted() -> bool:
        return any(path.stat().st_size for path in models.glob(".*pvtmp/journal"))

    said = process.interrupted(
        "build", "--from-mergekit", "merge.yml", "-o", "out", "--threads", "1", when=noted
    )
    assert said.code == 130 and "kept: the same command goes on from there" in said.err, said
    assert not (models / "out").exists()
    done = pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out")
    assert "kept from the interrupted build" in done.err and left(models) == []
