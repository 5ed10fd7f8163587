"""`pv train` under torchrun: two real processes over gloo against one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import write_rows
from support.tiny import tiny_checkpoint

from pv.registry.errors import UsageError
from pv.registry.provenance import Trained
from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.forecast.features import Sketches
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.repo.train import train
from pv.vecstore.train.batches import micro_batches
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.processes import Processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="no gloo"
    ),
]
HOW = [
    "--lr",
    "3e-3",
    "--epochs",
    "2",
    "--batch",
    "4",
    "--threads",
    "1",
    "--dtype",
    "fp32",
    "--encoding",
    "float",
]
TENSORS = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.norm.weight",
)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    (tmp_path / "here").mkdir()
    init(tmp_path / "here", tiny_checkpoint(tmp_path / "base", dtype="float32"), threads=1)
    write_rows(tmp_path / "here" / "rows.heldout.jsonl", 4, first=6)
    write_rows(tmp_path / "here" / "rows.jsonl")
    return Repo.open(tmp_path / "here")


def begin(repo: Repo, *given: str, count: int = 2) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    )
    return subprocess.Popen(
        [sys.executable, *launch, "-m", "pv", "train", "rows.jsonl", *HOW, *given],
        cwd=repo.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def end(started: subprocess.Popen[str]) -> str:
    """What it said; a run that hangs fails the test, and leaves no process."""
    try:
        return started.communicate(timeout=600)[0]
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        raise


@pytest.mark.parametrize("more", [["--micro-tokens", "64"], ["--learn", "all", "--optimizer", "adamw"]])
def test_two_processes_train_what_one_does(repo: Repo, more: list[str]) -> None:
    for name, count in (("alone", 1), ("both", 2)):
        started = begin(repo, "--as", name, *more, count=count)
        said = end(started)
        assert started.returncode == 0, said
        if count == 2:
            assert said.count("is vector") == 1, said  # one of them speaks
    at = repo.at("HEAD")
    assert [line.message for line in repo.log()][:2] == ["Train both", "Train alone"]
    one, two = at.vector("alone"), at.vector("both")
    for name in TENSORS:
        expected = np.asarray(one.tau(name))
        assert expected.any()
        np.testing.assert_allclose(np.asarray(two.tau(name)), expected, rtol=1e-3, atol=2e-5, err_msg=name)
    (first,), (origin,) = one.provenance(), two.provenance()
    assert isinstance(origin, Trained) and isinstance(first, Trained)
    assert origin.settings["processes"] == 2
    assert origin.loss == pytest.approx(first.loss, rel=1e-4)
    gradients = [Sketches.of_json(x.sketches or {}).gradient for x in (first, origin)]
    assert gradients[0] is not None and gradients[1] is not None
    assert gradients[1].norm == pytest.approx(gradients[0].norm, rel=1e-3)  # optimizers do not see its scale
    assert origin.held_out is not None and first.held_out is not None
    assert origin.held_out["effect"]["mean"] == pytest.approx(first.held_out["effect"]["mean"], abs=1e-2)


@pytest.mark.parametrize(
    "asked", [{"resume": True}, {"target_effect": 3.0}, {"patience": 2}, {"adapter": "lora:4"}]
)
def test_what_only_one_process_can_do_is_refused(repo: Repo, asked: dict[str, Any]) -> None:
    how = {"adapter": asked["adapter"]} if "adapter" in asked else {}
    given = {} if how else asked
    with pytest.raises(UsageError, match="works in one process only"):
        train(
            repo, repo.path / "rows.jsonl", name="x", options=TrainOptions(**how), threads=1,
            processes=Processes(0, 2, None), **given,
        )  # fmt: skip


def test_a_refusal_ends_the_run_and_changes_nothing(repo: Repo) -> None:
    before = repo.registry.resolve("HEAD")
    started = begin(repo, "--as", "x", "--resume")
    said = end(started)
    assert started.returncode != 0 and said.count("--resume works in one process only") == 1
    assert "a bug in pv" not in said
    assert repo.registry.resolve("HEAD") == before


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_run_and_changes_nothing(repo: Repo, rank: int) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("no /proc")
    before, lines = repo.registry.resolve("HEAD"), repo.path / "metrics.jsonl"
    started = begin(repo, "--as", "x", "--epochs", "4000", "--metrics", "metrics.jsonl")
    deadline = time.monotonic() + 500
    while not (lines.exists() and lines.read_text().count("\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    (pid,) = [one for one in children if f"\0RANK={rank}\0".encode() in environ(one)]
    os.kill(int(pid), signal.SIGKILL)
    said = end(started)
    assert started.returncode != 0 and "a bug in pv" not in said
    assert repo.registry.resolve("HEAD") == before
    assert repo.fsck().clean


def environ(pid: str) -> bytes:
    return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()


def test_every_row_runs_once_whatever_the_number_of_processes() -> None:
    rows = [Encoded((1,) * n, (2, 3), None, str(n)) for n in range(1, 8)]

    def size(row: Encoded) -> int:
        return len(row.context) + len(row.chosen)

    for most in (0, 8, 12, 1000):
        parts = list(micro_batches(rows, lambda _: 0, size, most, 2))
        ran = [Processes(rank, 2, None).mine(part) for rank in range(2) for part in parts]
        counted = [row.where for own, weight in ran for row in own if weight]
        assert sorted(counted) == sorted(row.where for row in rows)
        for own, _ in ran:
            assert own and (len(own) == 1 or len(own) * max(map(size, own)) <= most)
