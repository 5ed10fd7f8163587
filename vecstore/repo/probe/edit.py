"""probe edit: a rank-one edit of one layer beside the trained change, on paraphrases and on neighbours.

Four arms: both changes as they were made; the edit at the strength that comes closest to the trained change's effect on
training rows, and the trained change scaled to the edit's effect there, so that the two can be compared. Held-out rows
choose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import DataError, NotFoundError, UsageError
from pv.vecstore.data.joined import RowFiles, joined
from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.evaluate.margins import need_pairs
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.probe.edit_found import Edits
from pv.vecstore.probe.edit_verdict import originals
from pv.vecstore.progress import Report
from pv.vecstore.publish.outputs import check_outputs
from pv.vecstore.repo.probe.edit_run import EditPlan, measured
from pv.vecstore.repo.probe.files import write_files
from pv.vecstore.repo.probe.pair import Pair, pair
from pv.vecstore.repo.probe.record import ProbeRecord, going_on
from pv.vecstore.repo.probe.sides import Sides, probed_rows, sides
from pv.vecstore.repo.rows import kept_rows

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["FEWEST", "SHARES", "SWEEP", "Edits", "edit", "training_rows"]

FEWEST = 8
SWEEP = "sweep"
SHARES = (1.0, 4.0)
DRAWS = 2


def edit(
    repo: Repo,
    what: str,
    rows: Rows | None = None,
    *,
    layer: int | str | None = None,
    train: Rows | str | PathLike[str] | None = None,
    paraphrases: RowFiles | None = None,
    neighbours: RowFiles | None = None,
    noise: Sequence[float] = (),
    seed: int = 0,
    again: bool = False,
    plot: Path | None = None,
    page: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Edits:
    """The edit is made of `train`, by default the rows that the behaviour was trained on, at `layer`: the middle one,
    a number, or "sweep" for the best of a few on training rows. `paraphrases` re-word the prompts of `rows` and keep
    their answers; `neighbours` are rows that are to stay as they are, by default pv's neutral set. `noise`: shares of
    the change's norm, 1 and 4 if none are given.

    Raises NotFoundError without training rows, DataError for rows that do not fit, UsageError for a layer without an
    MLP that can be edited.
    """
    check_outputs(plot, page)
    chosen = _layer(layer)
    if any(not 0 < share <= 1000 for share in noise):
        raise UsageError("noise is a share of the change's norm: a number above 0", hint="as in 1 or 0.5")
    asked = sides(repo, what)
    held = probed_rows(repo, asked, rows, fewest=FEWEST)
    plan = EditPlan(
        what=what,
        rows=held,
        training=training_rows(repo, asked, train),
        paraphrases=None if paraphrases is None else _reworded(joined(paraphrases), held),
        neighbours=neutral_set() if neighbours is None else joined(neighbours),
        layer=chosen,
        noise=tuple(dict.fromkeys(float(share) for share in noise or SHARES)),
        draws=DRAWS,
        seed=seed,
    )
    record = ProbeRecord.open(repo, "edit", asked, plan.every_row, plan.settings, again=again)
    with ExitStack() as held_open, going_on(record):

        def opened() -> Pair:
            return held_open.enter_context(pair(repo, asked, threads=threads, progress=progress))

        found = measured(record, plan, opened, progress)
    found = record.finish(found)
    write_files(repo, "edit", found, plot, page)
    return found


def training_rows(repo: Repo, asked: Sides, train: Rows | str | PathLike[str] | None) -> Rows:
    """Those that are given, or those that the one behaviour was trained on. Raises NotFoundError, DataError."""
    if train is not None:
        rows = as_rows(train)
    elif asked.behaviour is None:
        raise NotFoundError(
            f"no training rows go with {asked}: it is not one behaviour of {asked.b.name} in which they differ",
            hint="name one behaviour, as in pv probe edit pirate, or rows: --train ROWS",
        )
    else:
        try:
            rows = kept_rows(repo.at(asked.b.commit), asked.behaviour).named
        except NotFoundError as error:
            raise NotFoundError(str(error), hint="name the rows it was trained on: --train ROWS") from error
    need_pairs(rows)
    if len(rows) < FEWEST:
        raise DataError(
            f"{rows.source}: {len(rows)} training rows are too few for this probe", hint=f"at least {FEWEST}"
        )
    return rows


def _layer(layer: int | str | None) -> int | str | None:
    if layer is None or layer == SWEEP or (isinstance(layer, int) and layer >= 0):
        return layer
    if isinstance(layer, str) and layer.isdecimal():
        return int(layer)
    raise UsageError(
        f"{str(layer)[:40]!r} is no layer", hint="a number from 0, or sweep; the middle one if none is given"
    )


def _reworded(paraphrases: Rows, rows: Rows) -> Rows:
    need_pairs(paraphrases)
    if len(set(originals(paraphrases, rows))) < FEWEST:
        raise DataError(
            f"{paraphrases.source}: they re-word too few of the held-out rows",
            hint=f"paraphrases of at least {FEWEST} rows",
        )
    return paraphrases
