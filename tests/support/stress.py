"""A small true registry, ways to run commands on it that stop half way, and ways to look at what is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pv.registry.check import fsck
from pv.registry.check.report import Report
from pv.registry.git import refs
from pv.registry.history import operations
from pv.registry.registry import Registry
from support.vectors import nudged, save, small_base

__all__ = ["ACTIONS", "Ran", "Runner", "World", "check", "make_world", "state"]

STOPPED = 99


@dataclass(frozen=True)
class Ran:
    """How a run ended: exit code (negative: the signal), the step it was stopped at, what it said."""

    code: int
    label: str
    out: str

    @property
    def stopped(self) -> bool:
        return self.code == STOPPED

    @property
    def steps(self) -> list[str]:
        return self.label.split("\n")[:-1]

    @property
    def commits(self) -> list[str]:
        """The ids that `--json` acknowledged; a last one that was cut off is none."""
        found = []
        for text in self.out.split("\n}\n"):
            try:
                document = json.loads(text + "\n}")
            except ValueError:
                continue
            found += [document["commit"]] if "commit" in document else []
        return found


class Runner:
    """Runs pv's command line in a process of its own, which is forked, not started anew, for each run."""

    def __enter__(self) -> Self:
        script = Path(__file__).with_name("runner_process.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a process with threads must not be forked
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def __call__(
        self,
        folder: Path,
        *lines: Sequence[str | Path],
        stop: int | None = None,
        kill: float | None = None,
        group: bool = True,
    ) -> Ran:
        """Run command lines one after another. `stop`: end without a word after so many durable steps;
        `kill`: SIGKILL after so many seconds, the gits of the process too if `group`."""
        job = {
            "lines": [["-C", str(folder), "-q", *map(str, line)] for line in lines],
            "stop": stop,
            "kill": kill,
            "group": group,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ran(**json.loads(self._process.stdout.readline()))

    def ok(self, folder: Path, *lines: Sequence[str | Path]) -> Ran:
        ran = self(folder, *lines)
        assert ran.code == 0, (lines, ran)
        return ran


@dataclass(frozen=True)
class World:
    """A folder with a registry, and the checkpoints that it was, and will be, made from."""

    folder: Path
    base: Path
    tuned: tuple[Path, ...]

    @property
    def root(self) -> Path:
        return self.folder / ".pv"

    def copy(self, to: Path) -> World:
        shutil.copytree(self.folder, to)
        return replace(self, folder=to)

    def action(self, name: str) -> list[str | Path]:
        return [self.tuned[2] if word == "TUNED" else word for word in ACTIONS[name]]


ACTIONS: Mapping[str, Sequence[str]] = {
    "commit": ["commit", "TUNED", "--as", "c", "--threads", "1", "--json"],
    "merge": ["merge", "side"],
    "undo": ["undo"],
    "gc": ["gc", "--grace", "0", "--expire", "0"],
}


def make_world(runner: Runner, folder: Path) -> World:
    """Two branches to merge, something to undo, and, for gc, a vector that only expired operations name, and
    a pack in quarantine."""
    tensors = small_base()
    base = save(folder / "base", tensors)
    tuned = tuple(save(folder / f"tuned{n}", nudged(tensors, n)) for n in range(4))
    world = World(folder / "home", base, tuned)
    world.folder.mkdir()

    def commit(number: int, name: str) -> list[str | Path]:
        return ["commit", tuned[number], "--as", name, "--threads", "1"]

    runner.ok(
        world.folder,
        ["init", "--base", base, "--threads", "1"],
        commit(3, "gone"),
        ["undo"],
        commit(0, "a"),
        ["branch", "side"],
        ["switch", "side"],
        commit(1, "b"),
        ["switch", "main"],
        ["tag", "v1"],
        ["scale", "a", "0.5"],
    )
    with Registry.find(world.folder) as registry:
        registry.update_record("ab" * 32, {"weights": "0" * 64})
        quarantined = registry.packs.quarantine / ("d" * 64)
        shutil.copy(next(registry.packs.files()), quarantined)
        os.utime(quarantined, (0, 0))
    assert fsck.check(world.root).findings == ()
    return world


def state(root: Path) -> dict[str, object]:
    """What a user can see: the current branch, the persona behind every ref, what could be undone."""
    with Registry(root) as registry:
        now = operations.view(registry.history)
        personas = {r: registry.persona(c).to_bytes() for r, c in now.refs.items() if r != refs.OPS}
        return {"HEAD": now.head, **personas, "last": [o.seq for o in registry.operations(1)]}


def check(root: Path) -> Report:
    """No damage, but for what a stopped process may leave behind."""
    report = fsck.check(root)
    assert report.damage == (), report.damage
    assert {note.kind for note in report.notes} <= {"unfinished", "leftover"}, report.notes
    return report
