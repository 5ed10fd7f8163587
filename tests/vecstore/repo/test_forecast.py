"""`forecast` on a registry: sketches that training leaves, that packs give, and vectors about which nobody knows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import write_rows
from support.tiny import tiny_checkpoint

from pv.registry import ids
from pv.registry.errors import NotFoundError, UnknownBehaviour, UnknownRevision, UsageError
from pv.registry.provenance import Trained
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import read_rows
from pv.vecstore.forecast.calibration import TARGETS, Calibration, Model, write_calibration
from pv.vecstore.forecast.features import Sketches
from pv.vecstore.forecast.forecast import PairForecast
from pv.vecstore.forecast.sketch import Sketching
from pv.vecstore.models.load import load
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.train.batches import batches
from pv.vecstore.train.objective import Objective
from pv.vecstore.train.options import TrainOptions

FAST: dict[str, Any] = {
    "lr": 3e-3, "max_steps": 2, "batch": 3, "threads": 1, "held_out": None, "learn": "all", "dtype": "fp32"
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two trained behaviours, and one more in another encoding. Copy it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "here").mkdir()
    base = tiny_checkpoint(folder / "base")
    init(folder / "here", base, threads=1)
    with Repo.open(folder / "here") as repo:
        repo.train(write_rows(folder / "a.jsonl"), name="a", **FAST)
        repo.train(write_rows(folder / "b.jsonl", 6, first=20), name="b", **FAST)
    return folder


@pytest.fixture
def repo(made: Path, tmp_path: Path) -> Repo:
    shutil.copytree(made / "here", tmp_path / "here")
    return Repo.open(tmp_path / "here")


@pytest.fixture
def table(repo: Repo, tmp_path: Path) -> Path:
    """Coefficients for the tiny model."""
    model = Model(0.9, {"mean_help": 0.5}, (-0.1, 0.2), (0.7, 0.4, 0.9))
    shapes = ids.shapes_id((name, row.shape) for name, row in repo.at().base.tensors.items())
    made = Calibration("a tiny model", shapes, "all", 28, 0.9, dict.fromkeys(TARGETS, model),
                       {"mean_help": (-9.0, 9.0)}, (0.0, 99.0), dict.fromkeys(TARGETS, (0.1, 0.0, 0.2)))  # fmt: skip
    write_calibration(tmp_path / "table.json", made)
    return tmp_path / "table.json"


def only(repo: Repo, *names: str, table: Path) -> PairForecast:
    (pair,) = repo.forecast(*names, calibration=table).pairs
    return pair


def provenance(repo: Repo, name: str) -> Trained:
    at = repo.at()
    found = repo.registry.provenance(at.commit, at.behaviour(name).terms[0].vector)
    assert isinstance(found, Trained)
    return found


def test_a_pair_has_a_forecast_and_the_cosine_beside_it(repo: Repo, table: Path) -> None:
    pair = only(repo, "a", "b", table=table)
    assert pair.unknown is None and pair.mean is not None and pair.least is not None
    assert pair.mean.low < pair.mean.kept < pair.mean.high
    exact = repo.plan_merge("HEAD").interference.pairs[0].cosine
    assert pair.cosine == pytest.approx(exact, abs=0.1)


def test_it_needs_neither_packs_nor_the_base(repo: Repo, made: Path, table: Path) -> None:
    before = only(repo, "a", "b", table=table)
    shutil.rmtree(repo.path / ".pv" / "packs")
    (repo.path / ".pv" / "packs").mkdir()
    assert only(repo, "a", "b", table=table) == before


def test_the_gradient_is_that_of_the_loss_at_the_base(repo: Repo, made: Path) -> None:
    """Against one pass with autograd over the first step's rows."""
    options = TrainOptions.of(lr=3e-3, max_steps=2, batch=3, learn="all")
    rows = read_rows(made / "a.jsonl")
    model, tokenizer = load(made / "base")
    data = encode(tokenizer, rows, stops=(258,), limit=512)
    batch = [data[i] for i in next(batches(len(data), options, 2))]
    objective = Objective.prepare(model, data, options, [])
    pairs = [row for row in batch if row.rejected is not None]
    for part in (pairs, [row for row in batch if row.rejected is None]):
        if part:
            objective.loss(model, part, batch).total.backward()
    sketching = Sketching(name for name, _ in model.named_parameters())
    for name, p in model.named_parameters():
        if p.grad is not None and "embed" not in name and "lm_head" not in name:
            sketching.add(name, p.grad.numpy())
    expected, found = sketching.done(), Sketches.of_json(provenance(repo, "a").sketches).gradient
    assert found is not None
    assert found.norm == pytest.approx(expected.norm, rel=1e-3)
    assert found.dot(expected) / expected.dot(expected) == pytest.approx(1, abs=0.01)
    assert not torch.is_inference_mode_enabled()


def test_an_older_vector_is_sketched_from_its_pack_once(
    repo: Repo, tmp_path: Path, table: Path, made: Path
) -> None:
    """What was committed from elsewhere, or by a pv that left no sketches: the deltas are known, and no more."""
    repo.commit(_tuned(made, tmp_path), name="c")
    pair = only(repo, "a", "c", table=table)
    assert (
        pair.cosine is not None and pair.unknown is not None and "c: it was not trained by pv" in pair.unknown
    )
    vector = repo.at().behaviour("c").terms[0].vector
    assert repo.registry.record(ids.sketches_id(vector))["sketches"].keys() == {"delta"}
    repo.registry.packs.path(vector).unlink()
    assert only(repo, "a", "c", table=table) == pair
    repo.registry.update_record(ids.sketches_id(vector), {"sketches": {"delta": {"sums": "!"}}})  # anybody's
    assert only(repo, "a", "c", table=table).cosine is None


def _tuned(made: Path, to: Path) -> Path:
    model, tokenizer = load(made / "base")
    with torch.no_grad():
        for p in model.model.layers.parameters():
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    model.to(torch.bfloat16).save_pretrained(to / "tuned")
    tokenizer.save_pretrained(to / "tuned")
    return to / "tuned"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda repo, rows: repo.scale("b", 0.5), "b: its weight is 0.5"),
        (lambda repo, rows: repo.negate("b"), "b: its weight is -1"),
        (lambda repo, rows: repo.scale("b", 1, modules={"*mlp*": 0.5}), "b: it has factors by module"),
        (lambda repo, rows: repo.compress("b", "sparse:0.1", force=True), "b: it is compressed (sparse)"),
        (
            lambda repo, rows: repo.train(rows, name="b", adapter="lora:4", **FAST),
            "b: it was trained as an adapter",
        ),
        (lambda repo, rows: repo.train(rows, name="b", on="HEAD", **FAST), "b: it is a sum of 2 vectors"),
        (
            lambda repo, rows: (repo.drop("b"), repo.train(rows, name="b", on="HEAD", **FAST)),
            "b: it was trained from a",
        ),
        (lambda repo, rows: (repo.drop("b"), repo.define("b", "a")), "they are the same vector"),
        (
            lambda repo, rows: repo.train(
                rows, name="b", seed=1, **FAST | {"learn": "difference", "general": 0}
            ),
            "--learn difference",
        ),
    ],
)
def test_when_nobody_knows(repo: Repo, made: Path, table: Path, change: Any, why: str) -> None:
    change(repo, made / "b.jsonl")
    pair = only(repo, "a", "b", table=table)
    assert pair.unknown is not None and why in pair.unknown
    assert pair.mean is pair.least is None


def test_a_compressed_vector_keeps_the_gradient_of_its_training(repo: Repo, table: Path) -> None:
    repo.compress("b", "float", force=True)
    pair = only(repo, "a", "b", table=table)
    assert pair.unknown is None and pair.mean is not None


def test_the_behaviour_of_another_branch(repo: Repo, made: Path, table: Path) -> None:
    repo.branch("other", switch=True)
    repo.drop("b")
    here = only(repo, "a", "main:b", table=table)
    assert (here.a, here.b, here.unknown) == ("a", "main:b", None)


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ((), UsageError, "two behaviours or more"),
        (("a",), UsageError, "two behaviours or more"),
        (("a", "b", "a"), UsageError, "'a' is named twice"),
        (("a", "nope"), UnknownBehaviour, "nope"),
        (("a", "nope:b"), UnknownRevision, "nope"),
        (("a", ""), UnknownBehaviour, "''"),
    ],
)
def test_what_cannot_be_asked(repo: Repo, names: tuple[str, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        repo.forecast(*names)


def test_a_calibration_that_is_not_there(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cannot read the calibration"):
        repo.forecast("a", "b", calibration=tmp_path / "none.json")


def test_the_calibration_of_pv_does_not_know_a_tiny_model(repo: Repo) -> None:
    (pair,) = repo.forecast("a", "b").pairs
    assert pair.unknown is not None and pair.cosine is not None


def test_sketches_change_no_id_and_go_where_the_vector_goes(
    repo: Repo, made: Path, tmp_path: Path, table: Path
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    init(again, made / "base", threads=1)
    with Repo.open(again) as other:
        other.train(made / "a.jsonl", name="a", resume=False, **FAST)
        assert provenance(other, "a").sketches == provenance(repo, "a").sketches
    repo.rename("a", "c")
    repo.branch("side", switch=True)
    assert only(repo, "c", "b", table=table).unknown is None
