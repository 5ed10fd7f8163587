from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.registries import run_python

from pv.registry.disk import locks
from pv.registry.errors import StorageError

HOLD = """
from pathlib import Path
from pv.registry.disk import locks
with getattr(locks, sys.argv[2])(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(path: Path, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys" + HOLD, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("theirs", "ours", "free"),
    [
        ("shared", "shared", True),
        ("shared", "exclusive", False),
        ("exclusive", "shared", False),
        ("exclusive", "exclusive", False),
    ],
)
def test_between_processes(tmp_path: Path, theirs: str, ours: str, free: bool) -> None:
    path = tmp_path / "lock"
    with hold(path, theirs) as other:
        try:
            if free:
                with getattr(locks, ours)(path, timeout_s=0.0):
                    pass
            else:
                held = pytest.raises(StorageError, match="another pv process has held lock")
                with held as caught, getattr(locks, ours)(path, timeout_s=0.05):
                    pass
                assert str(path) in str(caught.value.hint)
        finally:
            other.kill()
    with locks.exclusive(path, timeout_s=5.0):  # the kernel frees what a killed process held
        pass


def test_between_threads(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    with locks.exclusive(path):
        thread = threading.Thread(target=lambda: take(path, order))
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def take(path: Path, order: list[str]) -> None:
    with locks.exclusive(path):
        order.append("second")


def test_a_child_that_has_the_descriptor_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.exclusive(path) as fd:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[fd])
    with child:
        with pytest.raises(StorageError), locks.exclusive(path, timeout_s=0.0):
            pass
        child.communicate(b"\n")
    with locks.exclusive(path, timeout_s=5.0):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locks.shared(tmp_path / "no" / "lock"):
        pass


def test_no_lock_is_left_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locks.exclusive(tmp_path / "lock"):
        raise RuntimeError
    assert run_python(HOLD.replace("sys.stdin.readline()", ""), str(tmp_path / "lock"), "exclusive").stdout


def test_overlapping_writers_do_not_keep_out_who_wants_to_be_alone(tmp_path: Path) -> None:
    """Two threads write in turns that overlap, so that there is always one inside."""
    inside, most, stop = [0], [0], threading.Event()
    alone: list[int] = []

    def write(first: float) -> None:
        time.sleep(first)
        while not stop.is_set():
            with locks.writer(tmp_path, timeout_s=60):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.05)
                inside[0] -= 1

    threads = [threading.Thread(target=write, args=(0.025 * number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        while most[0] < 2:
            time.sleep(0.001)
        for _ in range(3):
            with locks.alone(tmp_path, timeout_s=60):
                alone.append(inside[0])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert alone == [0, 0, 0]
