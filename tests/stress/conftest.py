"""The store under stress: faults, kills, crowds, rot and power loss.

Quick counts by default; `pytest tests/stress --full` (or PV_STRESS=full) runs them at full size:

    faults       a stop after every durable step     (default: every one near a ref move, some others)
    kills        200 SIGKILLs                        (default: 20)
    crowd        4 processes x 25 commits            (default: 4 x 5)
    corruption   1,200 damages                       (default: 100)
    power loss   a cut after every system call       (default: some)

Each prints its seed and its counts (`-s` shows them).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stress import Runner, World, make_world


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the stress suite at full size")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full", default=False)) or os.environ.get("PV_STRESS") == "full"


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own: no git configuration and no identity but this."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("GIT_") or name in ("EMAIL", "XDG_CONFIG_HOME"):
                patch.delenv(name)
        patch.setenv("HOME", str(folder))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield folder


@pytest.fixture(scope="session")
def runner(home: Path) -> Iterator[Runner]:
    with Runner() as started:
        yield started


@pytest.fixture(scope="session")
def world(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once. Copy its registry before anything is done to it."""
    return make_world(runner, tmp_path_factory.mktemp("world"))
