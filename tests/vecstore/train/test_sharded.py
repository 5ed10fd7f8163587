"""Apollo on the shares that FSDP2 makes: two real processes against one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import sharded_process

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="no gloo"
)
SCRIPT = Path(sharded_process.__file__)


def run(folder: Path, case: str) -> list[tuple[int, str]]:
    """Exit code and errors of each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    roots = [str(SCRIPT.parent.parent), *(path for path in sys.path if path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), "2", port, str(folder), case],
            stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [process.communicate()[1] for process in started]
    return [(process.returncode, said) for process, said in zip(started, errors, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["channels", "rows", "mini", "gaussian", "resume"])
def test_two_processes_train_as_one(tmp_path: Path, case: str) -> None:
    """`rows`: FSDP2's default, which cuts the channels of wide matrices; their sketches are added up."""
    for code, said in run(tmp_path, case):
        assert code == 0, said
    expected = sharded_process.alone(case)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, value in expected.items():
        assert torch.equal(found[0]["weights"][name], found[1]["weights"][name]), name
        torch.testing.assert_close(found[0]["weights"][name], value, rtol=1e-4, atol=2e-5, msg=name)
    if case == "channels":  # nothing is held twice
        assert abs(found[0]["held"] - found[1]["held"]) < 0.1 * found[0]["held"]


@pytest.mark.slow
def test_processes_that_disagree_say_so(tmp_path: Path) -> None:
    for code, said in run(tmp_path, "disagree"):
        assert code == 1
        assert "do not train the same" in said


@pytest.mark.slow
def test_a_process_that_dies_is_said_by_the_other(tmp_path: Path) -> None:
    (code, said), (dead, _) = run(tmp_path, "dies")
    assert (code, dead) == (1, 9)
    assert "another process of this run has stopped" in said
