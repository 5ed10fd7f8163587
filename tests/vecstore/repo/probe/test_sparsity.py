"""`probe sparsity` on a tiny model: trainings that differ by a penalty alone, and how few neurons carry each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pirate import isolated, pirate_registry, pirate_rows

from pv.registry.errors import UsageError
from pv.vecstore.data.rows import parse_rows
from pv.vecstore.progress import Tick
from pv.vecstore.repo.probe.sparsity import Sparsity
from pv.vecstore.repo.repo import Repo
from pv.vecstore.train.loop import train
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.proximal import Penalty

NEIGHBOURS = parse_rows(
    b"""{"text": "The harbour was quiet, and the boats lay still."}
{"text": "Bread is flour, water, salt and time."}
"""
)
QUICK: dict[str, Any] = {"neighbours": NEIGHBOURS, "strengths": (0.8,), "threads": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolated(folder, monkeypatch)
        return pirate_registry(folder)


@pytest.fixture
def repo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    isolated(tmp_path, monkeypatch)
    shutil.copytree(made, tmp_path / "r")
    with Repo.open(tmp_path / "r") as opened:
        yield opened


def test_a_training_with_a_pull_beside_a_plain_one(repo: Repo, tmp_path: Path) -> None:
    found: Sparsity = repo.probe.sparsity(
        "pirate", plot=tmp_path / "a.png", page=tmp_path / "a.html", **QUICK
    )
    plain, penalized = found.runs
    assert (plain.strength, penalized.strength, found.count) == (0.0, 0.8, 192)
    assert plain.neurons == 1 and plain.heads == 1 and plain.weights > 0.9
    assert penalized.neurons < 1 and penalized.weights < plain.weights and penalized.norm < plain.norm
    assert plain.effect.low > 0 and plain.kept is not None and plain.kept.mean == 1
    assert [point.k for point in plain.curve][-1] == 192
    assert plain.curve[-1].random == plain.curve[-1].effect
    assert plain.fewer is None and penalized.fewer is not None
    assert found.claim in ("held", "did not hold", "inconclusive")
    assert Sparsity.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "Training with a penalty needs fewer" in (tmp_path / "a.html").read_text()
    ticks: list[Tick] = []
    assert repo.probe.sparsity("pirate", progress=ticks.append, **QUICK) == found
    assert ticks == []


def test_a_run_that_was_stopped_gives_the_same(repo: Repo) -> None:
    def stop(tick: Tick) -> None:
        if tick.stage.startswith("measuring 0.8, 20 neurons"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        repo.probe.sparsity("pirate", progress=stop, **QUICK)
    assert "goes on with the rest" in stopped.value.__notes__[0]
    ticks: list[Tick] = []
    resumed = repo.probe.sparsity("pirate", progress=ticks.append, **QUICK)
    stages = {tick.stage for tick in ticks}
    assert "training" not in stages and "training with a penalty of 0.8" in stages
    assert repo.probe.sparsity("pirate", again=True, **QUICK) == resumed


def test_a_pull_on_weights_leaves_few_of_them(repo: Repo) -> None:
    plain, penalized = repo.probe.sparsity("pirate", penalty="weights", **QUICK).runs
    assert penalized.weights < 0.7 * plain.weights


def test_what_is_refused(repo: Repo) -> None:
    with pytest.raises(UsageError, match="no penalty on 'rows'"):
        repo.probe.sparsity("pirate", penalty="rows", **QUICK)
    with pytest.raises(UsageError, match="a number above 0"):
        repo.probe.sparsity("pirate", **{**QUICK, "strengths": (0.0,)})


def test_a_pull_that_is_off_changes_no_bit_of_a_training(tiny_tied: Path) -> None:
    options = TrainOptions(max_steps=3)
    plain = train(tiny_tied, pirate_rows(), options, threads=1)
    off = train(tiny_tied, pirate_rows(), options, threads=1, penalty=Penalty(0.0))
    assert plain.deltas.keys() == off.deltas.keys() and plain.loss == off.loss
    assert all(np.array_equal(plain.deltas[name], off.deltas[name]) for name in plain.deltas)
    assert "penalty" not in plain.settings and off.settings["penalty"] == {"strength": 0.0, "kind": "weights"}
    with pytest.raises(UsageError, match="not on an adapter"):
        train(tiny_tied, pirate_rows(), TrainOptions(adapter="lora:2"), threads=1, penalty=Penalty(0.1))
