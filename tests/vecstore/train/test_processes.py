"""`pv train` under torchrun: two real processes over gloo against one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import write_rows
from support.tiny import tiny_checkpoint

from pv.registry.errors import UsageError
from pv.registry.provenance import Trained
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.repo.train import _check_alone

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
    init(tmp_path / "here", tiny_checkpoint(tmp_path / "base"), threads=1)
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
    )  # fmt: skip


@pytest.mark.parametrize("more", [["--micro-tokens", "64"], ["--learn", "all", "--optimizer", "adamw"]])
def test_two_processes_train_what_one_does(repo: Repo, more: list[str]) -> None:
    for name, count in (("alone", 1), ("both", 2)):
        started = begin(repo, "--as", name, *more, count=count)
        said = started.communicate()[0]
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
    (origin,), (first,) = two.provenance(), one.provenance()
    assert isinstance(origin, Trained) and isinstance(first, Trained)
    assert origin.settings["processes"] == 2 and origin.sketches is not None
    assert origin.held_out is not None and first.held_out is not None
    assert origin.held_out["effect"]["mean"] == pytest.approx(first.held_out["effect"]["mean"], abs=1e-2)


@pytest.mark.parametrize("asked", ["--resume", "--target-effect", "--patience", "--adapter"])
def test_what_only_one_process_can_do_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match=f"{asked} works in one process only"):
        _check_alone({"--other": False, asked: True})


def test_a_refusal_ends_the_run_and_changes_nothing(repo: Repo) -> None:
    before = repo.registry.resolve("HEAD")
    started = begin(repo, "--as", "x", "--resume")
    said = started.communicate()[0]
    assert started.returncode != 0 and "--resume works in one process only" in said
    assert repo.registry.resolve("HEAD") == before


def test_a_process_that_dies_ends_the_run_and_changes_nothing(repo: Repo) -> None:
    before = repo.registry.resolve("HEAD")
    started = begin(repo, "--as", "x", "--epochs", "4000")
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    if not children.parent.exists():
        pytest.skip("no /proc")
    deadline = time.monotonic() + 120
    while len(found := children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(8)
    os.kill(int(found[-1]), signal.SIGKILL)
    started.communicate(timeout=120)
    assert started.returncode != 0
    assert repo.registry.resolve("HEAD") == before
    assert repo.fsck().clean
