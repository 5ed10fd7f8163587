"""`train` on a registry: adapters, refinements of a built persona, aims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import write_rows
from support.tiny import tiny_checkpoint

from pv.registry.errors import DataError, UsageError
from pv.registry.provenance import Trained
from pv.vecstore.data.rows import read_rows
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.train.general_set import general_set

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


def test_general_answers_are_pvs_own_or_yours_or_none(repo: Repo, rows: Path) -> None:
    own = repo.train(rows, name="own", **FAST).provenance.settings
    assert own["hold"] == own["general"] == 10
    assert own["general_set"] == {
        "name": "pv's general set",
        "id": general_set().id,
        "rows": len(general_set()),
    }
    assert own["loss_tokens"]["learnt"] > 0 and own["loss_tokens"]["general"] > 0
    file = rows.with_name("general.jsonl")
    answer = "An answer that is a good deal longer than what is left free."
    file.write_text(json.dumps({"prompt": "Why?", "chosen": answer}) + "\n")
    made = repo.train(rows, name="yours", learn="all", general_set=file, **FAST)
    yours = made.provenance.settings
    assert yours["general_set"] == {"name": "general.jsonl", "id": read_rows(file).id, "rows": 1}
    assert read_rows(file).id in made.provenance.packs
    assert yours["loss_tokens"]["general"] % 2 == 0, "the one answer, in each of two steps"
    none = repo.train(rows, name="none", learn="all", **FAST).provenance.settings
    assert "general_set" not in none
    assert none["loss_tokens"]["held"] == none["loss_tokens"]["general"] == 0
    assert (
        len({repo.registry.persona("HEAD").behaviours[x].terms[0].vector for x in ("own", "yours", "none")})
        == 3
    )


def test_general_answers_that_hold_nothing_are_refused(repo: Repo, rows: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        repo.train(rows, name="x", general_set=rows.with_name("none.jsonl"), **FAST)
    file = rows.with_name("general.jsonl")
    file.write_text('{"prompt": "Why?", "chosen": "No."}\n')
    with pytest.raises(DataError, match="no answer is longer than 8 tokens"):
        repo.train(rows, name="x", general_set=file, **FAST)
    with pytest.raises(UsageError, match="general_rows"):
        repo.train(rows, name="x", general_rows=0, **FAST)


def test_replies_are_measured_if_asked_for(repo: Repo, rows: Path) -> None:
    some = {**FAST, "held_out": "beside"}
    plain = repo.train(rows, name="x", **some).held_out
    assert plain is not None and plain.replies is None and plain.damage is not None
    asked = repo.train(rows, name="y", replies=2, seed=1, **some).held_out
    assert asked is not None and asked.replies is not None and asked.replies.to_json()["n"] == 2
    with pytest.raises(UsageError, match="replies"):
        repo.train(rows, name="z", replies=-1, **some)


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
