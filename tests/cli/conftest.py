"""What the command-line tests share: a tiny real model, and a registry trained on it once.

`pv` runs a command line in this process (fast); `process` runs it in a process of its own, where that is
what matters (signals, streams, imports). `world` is a copy of a registry with one trained behaviour; `terse`
and `conflict` give it a second branch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, World, isolate, tensors, write_rows, write_tensors
from support.scripting import Answer, keeps_to_it
from support.tiny import tiny_checkpoint


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for every test: one identity, no token, and no way past 127.0.0.1 for a Hub client."""
    return isolate(tmp_path_factory.mktemp("home"), monkeypatch)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once: a tiny base, rows, a fine-tune of the base, and a registry with `listening` trained. Copy it."""
    folder = tmp_path_factory.mktemp("made")
    sources = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(sources, monkeypatch)
        base = tiny_checkpoint(sources / "base")
        rows = write_rows(sources / "rows.jsonl")
        write_rows(sources / "rows.heldout.jsonl", 4, first=6)
        pv = InProcess(folder)
        pv.ok("init", "--base", base)
        pv.ok("train", rows, "--as", "listening", "--max-steps", "2", "--threads", "1")
    return World(folder, base, rows, fine_tuned(base, sources / "tuned"))


def fine_tuned(base: Path, to: Path) -> Path:
    """What a trainer that knows nothing of pv would leave: some of the weights moved by a little."""
    import numpy as np

    shutil.copytree(base, to)
    random, table = np.random.default_rng(7), tensors(base)
    for name, (dtype, shape, raw) in table.items():
        bits = np.frombuffer(raw, np.uint16)
        moved = bits + random.integers(0, 3, bits.size).astype(np.uint16) * (random.random(bits.size) < 0.3)
        table[name] = (dtype, shape, moved.astype(np.uint16).tobytes())
    write_tensors(to / "model.safetensors", table)
    return to


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    folder = tmp_path / "world"
    shutil.copytree(made.folder, folder)
    return World(folder, made.base, made.rows, made.tuned)


@pytest.fixture
def pv(tmp_path: Path, request: pytest.FixtureRequest) -> InProcess:
    """Runs in the world's folder if the test has a world, else in the test's own."""
    return InProcess(_folder(tmp_path, request))


@pytest.fixture
def answer(pv: InProcess) -> Answer:
    """`answer("log", "-n", "1", code=0)`: what stdout says, which has the type of docs/scripting.md."""

    def run(command: str, *words: str | Path, code: int = 0, at: Path | None = None) -> dict[str, Any]:
        said = pv("-q", command, *words, "--json", at=at)
        assert said.code == code, said
        assert keeps_to_it(said, command) == [], said
        return said.json if said.out else json.loads(said.err)["error"]

    return run


@pytest.fixture
def process(tmp_path: Path, request: pytest.FixtureRequest) -> Processes:
    return Processes(_folder(tmp_path, request))


@pytest.fixture(scope="session")
def made_terse(made: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _once(
        made,
        tmp_path_factory.mktemp("terse") / "made",
        ("switch", "-c", "terse"),
        ("scale", "listening", "0.5"),
        ("switch", "main"),
        ("tag", "v1"),
    )


@pytest.fixture(scope="session")
def made_conflict(made_terse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conflict") / "made"
    return _once(World(made_terse, *[made_terse] * 3), folder, ("scale", "listening", "3"))


@pytest.fixture
def terse(world: World, made_terse: Path) -> None:
    """A branch `terse` on which listening has weight 0.5, and a tag `v1` on main."""
    _replace_registry(world, made_terse)


@pytest.fixture
def conflict(world: World, made_conflict: Path) -> None:
    """The same, and on main listening has weight 3 since."""
    _replace_registry(world, made_conflict)


@pytest.fixture(scope="session")
def made_big(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A registry on 96 MB of weights that are no model, with one captured behaviour: work that takes a while."""
    import numpy as np
    from safetensors.numpy import save_file

    folder, sources = tmp_path_factory.mktemp("big"), tmp_path_factory.mktemp("big-sources")
    random = np.random.default_rng(0)
    noise, step = random.standard_normal((2, 1 << 20)).astype(np.float16)
    weights = {f"layers.{i:02d}.weight": np.roll(noise, 997 * i) for i in range(48)}
    tuned = {name: w + np.float16(0.01) * np.roll(step, 31) for name, w in weights.items()}
    first = {name: w + np.float16(0.01) * np.roll(step, 77) for name, w in list(weights.items())[:8]}
    for name, table in {"base": weights, "tuned": tuned, "first": {**weights, **first}}.items():
        (sources / name).mkdir()
        save_file(table, sources / name / "model.safetensors")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(sources, monkeypatch)
        pv = InProcess(folder)
        pv.ok("init", "--base", sources / "base", "--reference")
        pv.ok("commit", sources / "first", "--as", "first")
    return World(folder, sources / "base", sources / "none", sources / "tuned")


@pytest.fixture
def big(made_big: World, tmp_path: Path) -> World:
    folder = tmp_path / "big"
    shutil.copytree(made_big.folder, folder)
    return World(folder, made_big.base, made_big.rows, made_big.tuned)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Any]:
    from support.loopback_hub import loopback_hub

    with loopback_hub(tmp_path / "hub", {"hf_w": "write", "hf_r": "read"}) as state:
        yield state


def _folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if "world" not in request.fixturenames:
        return tmp_path
    world: World = request.getfixturevalue("world")
    return world.folder


def _once(made: World, folder: Path, *lines: tuple[str, ...]) -> Path:
    """A copy of the session's registry on which some commands have run."""
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder.parent, monkeypatch)
        for line in lines:
            InProcess(folder).ok(*line)
    return folder


def _replace_registry(world: World, made: Path) -> None:
    shutil.rmtree(world.folder)
    shutil.copytree(made, world.folder)
