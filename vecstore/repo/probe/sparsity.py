"""probe sparsity: the behaviour trained again, plainly and with a penalty on what moves: how few neurons carry it?

Each training is a part of its own, and what is measured of it are further ones: a run that was stopped trains again at
most the one it was at. Trainings are those of `pv train`, with the options that the behaviour was trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.registry.provenance import Trained
from pv.registry.provenance_ways import as_behaviour, origins
from pv.vecstore.data.joined import RowFiles, joined
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.probe.sparse_found import Sparsity
from pv.vecstore.progress import Report
from pv.vecstore.publish.outputs import check_outputs
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.probe.edit import FEWEST, training_rows
from pv.vecstore.repo.probe.files import write_files
from pv.vecstore.repo.probe.record import ProbeRecord, going_on
from pv.vecstore.repo.probe.sides import Sides, probed_rows, sides
from pv.vecstore.repo.probe.sparsity_run import SparsePlan, measured
from pv.vecstore.train.options import TrainOptions

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["PENALIZED", "STRENGTHS", "Sparsity", "sparsity"]

PENALIZED = ("neurons", "weights")
STRENGTHS = (0.1, 0.3, 0.6)


def sparsity(
    repo: Repo,
    what: str,
    rows: Rows | None = None,
    *,
    train: Rows | str | PathLike[str] | None = None,
    neighbours: RowFiles | None = None,
    penalty: str = "neurons",
    strengths: Sequence[float] = (),
    seed: int = 0,
    again: bool = False,
    plot: Path | None = None,
    page: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Sparsity:
    """Trains `train` again, by default the rows that the behaviour was trained on, once without and once with each of
    `strengths` (0.1, 0.3 and 0.6 if none are given) of a penalty on whole "neurons" and heads, or on single "weights".
    `neighbours` are rows that are to stay as they are, by default pv's neutral set.

    Raises NotFoundError without training rows, DataError for too few, UsageError for a model whose MLPs have no
    neurons that pv can tell apart.
    """
    check_outputs(plot, page)
    if penalty not in PENALIZED:
        raise UsageError(f"no penalty on {penalty!r}", hint=f"there are: {', '.join(PENALIZED)}")
    if any(not 0 < one <= 1000 for one in strengths):
        raise UsageError(
            "the strength of a penalty is a number above 0, and 1000 at most",
            hint="as in 0.1; plain training is always there",
        )
    asked = sides(repo, what)
    held = probed_rows(repo, asked, rows, fewest=FEWEST)
    training = training_rows(repo, asked, train)
    options, notes = _options(repo, asked, training)
    plan = SparsePlan(
        what=what,
        rows=held,
        training=training,
        neighbours=neutral_set() if neighbours is None else joined(neighbours),
        options=options,
        penalty=penalty,
        strengths=tuple(sorted({float(one) for one in strengths or STRENGTHS})),
        seed=seed,
        threads=threads,
        notes=notes,
    )
    record = ProbeRecord.open(repo, "sparsity", asked, plan.every_row, plan.settings, again=again)
    with ExitStack() as open_until, going_on(record):

        def folder() -> Path:
            return open_until.enter_context(_checkpoint(repo, asked, threads, progress))

        found = measured(record, plan, folder, progress)
    found = record.finish(found)
    write_files(repo, "sparsity", found, plot, page)
    return found


@contextmanager
def _checkpoint(repo: Repo, asked: Sides, threads: int, progress: Report | None) -> Iterator[Path]:
    """What is trained from: A, as a checkpoint; its vectors are held meanwhile."""
    packs = repo.registry.packs
    with ExitStack() as held:
        for vector in asked.a.persona.vectors:
            if packs.has(vector):
                held.enter_context(packs.holding(vector))
        held.enter_context(torch_threads(threads))
        persona = asked.a.persona
        if persona.is_base:
            persona = persona.with_output(dtype="base")
        yield held.enter_context(
            temporary_checkpoint(
                repo.registry, asked.a.commit, persona, what=asked.a.name, threads=threads, progress=progress
            )
        )


def _options(repo: Repo, asked: Sides, training: Rows) -> tuple[TrainOptions, tuple[str, ...]]:
    """Those that the behaviour was trained with on these rows. pv's defaults, and a note, where that is not known, and
    for an adapter or what another model taught."""
    known = {one.name for one in fields(TrainOptions)}
    revision = repo.at(asked.b.commit)
    terms = revision.behaviour(asked.behaviour).terms if asked.behaviour is not None else ()
    why = "how the behaviour was trained on these rows is not known"
    for term in reversed(terms):
        noted = revision.registry.provenance(revision.commit, term.vector)
        for origin in origins(as_behaviour(noted, asked.behaviour or "")):
            if isinstance(origin, Trained) and origin.data.id == training.id:
                given: dict[str, Any] = {key: one for key, one in origin.options.items() if key in known}
                if given.get("adapter") is not None:
                    why = "the behaviour was trained as an adapter"
                elif given.get("learn") == "teacher":
                    why = "another model taught the behaviour"
                else:
                    return TrainOptions(**given), ()
    return TrainOptions(), (f"{why}: pv's default options train it here, so plain training is another one",)
