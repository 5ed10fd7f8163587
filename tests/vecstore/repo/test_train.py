"""`train` on a registry: adapters, refinements of a built persona, aims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import write_rows
from support.tiny import tiny_checkpoint

from pv.registry.errors import UsageError
from pv.registry.provenance import Trained
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo

FAST: dict[str, Any] = {"lr": 3e-3, "max_steps": 2, "batch": 3, "threads": 1, "held_out": None}
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    (tmp_path / "here").mkdir()
    init(tmp_path / "here", tiny_checkpoint(tmp_path / "base"), threads=1)
    return Repo.open(tmp_path / "here")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.heldout.jsonl", 4, first=6)
    return write_rows(tmp_path / "rows.jsonl")


def provenance(repo: Repo, vector: str) -> Trained:
    found = repo.registry.provenance(repo.registry.resolve("HEAD"), vector)
    assert isinstance(found, Trained)
    return found


@pytest.mark.parametrize(("kind", "encoding"), [("lora", "lora"), ("rslora", "lora"), ("dora", "float")])
def test_an_adapter_is_a_vector_like_any_other(repo: Repo, rows: Path, kind: str, encoding: str) -> None:
    made = repo.train(rows, name="x", adapter=f"{kind}:4", **FAST)
    manifest = repo.registry.vector(made.commit, made.vector)
    assert manifest.encoding == encoding
    tau = repo.at("HEAD").vector("x").tau(Q)
    assert tau.any() and not any("embed" in name for name in manifest.tensors)
    if kind != "dora":
        assert np.linalg.matrix_rank(np.asarray(tau, np.float64), tol=1e-6) <= 4
    assert repo.train(rows, name="y", adapter=f"{kind}:4", **FAST).vector == made.vector
    origin = provenance(repo, made.vector)
    assert origin.options["adapter"] == f"{kind}:4" and origin.adapter is not None
    folder = rows.parent / "built"
    repo.at("HEAD").build(folder)


@pytest.mark.parametrize("wrong", ["lora", "lora:0", "lora:x", "vera:4", "lora:-1", "lora:9999"])
def test_what_is_no_adapter(repo: Repo, rows: Path, wrong: str) -> None:
    with pytest.raises(UsageError, match="no adapter") as refused:
        repo.train(rows, name="x", adapter=wrong, **FAST)
    assert "lora:16" in str(refused.value.hint)


def test_a_refinement_starts_from_a_build(repo: Repo, rows: Path) -> None:
    first = repo.train(rows, name="x", encoding="float", **FAST)
    plain = repo.train(rows, name="y", encoding="float", **FAST)
    assert plain.vector == first.vector
    more = repo.train(rows, name="z", on=first.commit, encoding="float", **FAST)
    assert more.vector != first.vector
    assert more.loss[0] < first.loss[0]  # it begins where the other ended
    on = provenance(repo, more.vector).on
    assert on is not None and on.commit == first.commit
    behaviour = repo.registry.persona(more.commit).behaviours["z"]
    assert [term.vector for term in behaviour.terms] == [more.vector]


def test_a_refinement_of_a_behaviour_is_a_term_of_it(repo: Repo, rows: Path) -> None:
    first = repo.train(rows, name="x", encoding="float", **FAST)
    repo.scale("x", 0.5)
    more = repo.train(rows, name="x", on="HEAD", encoding="float", **FAST)
    behaviour = repo.registry.persona(more.commit).behaviours["x"]
    assert behaviour.weight == 0.5
    assert [(term.coefficient, term.vector) for term in behaviour.terms] == [
        (1.0, first.vector),
        (2.0, more.vector),
    ]


def test_a_target_needs_held_out_rows_and_is_kept_to(repo: Repo, rows: Path) -> None:
    with pytest.raises(UsageError, match="held-out rows, and there are none"):
        repo.train(rows, name="x", target_effect=1.0, **FAST)
    many = {**FAST, "max_steps": None, "epochs": 10, "held_out": "beside"}
    made = repo.train(rows, name="x", target_effect=0.05, **many)
    effects = made.provenance.settings["effects"]
    assert effects[-1][1] >= 0.05 and all(value < 0.05 for _, value in effects[:-1])
    assert len(made.loss) == len(effects) < 20
    for wrong in (
        {"target_effect": 0.0},
        {"target_effect": float("nan")},
        {"check_every": 0},
        {"patience": 0},
    ):
        with pytest.raises(UsageError):
            repo.train(rows, name="x", **{**many, **wrong})
