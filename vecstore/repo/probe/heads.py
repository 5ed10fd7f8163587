"""heads: which attention heads changed between two builds, and which of them carry the behaviour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import FormatError, UsageError
from pv.vecstore.data.rows import Rows
from pv.vecstore.probe.heads import FEWEST_ROWS, VERSION, Heads, HeadsSettings, measure_heads
from pv.vecstore.progress import Report
from pv.vecstore.publish.outputs import check_outputs
from pv.vecstore.repo.probe.files import write_files
from pv.vecstore.repo.probe.pair import pair
from pv.vecstore.repo.probe.record import ProbeRecord, going_on
from pv.vecstore.repo.probe.sides import Sides, probed_rows, sides

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["DRAWS", "NOISE", "PROMPTS", "Heads", "heads"]

DRAWS, NOISE, PROMPTS = HeadsSettings().draws, HeadsSettings().noise, HeadsSettings().prompts
FEWEST_NOISE = 2


def heads(
    repo: Repo,
    what: str,
    rows: Rows | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    noise: int = NOISE,
    prompts: int = PROMPTS,
    again: bool = False,
    plot: Path | None = None,
    page: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Heads:
    """Measure, or go on with, or give again what is known; then write the picture and the page that were asked for.

    `draws` random sets of heads, `noise` draws of the null of each head's change, at most `prompts` of the rows.
    Raises UsageError, UnknownRevision, UnknownBehaviour, BaseMismatch, NotFoundError, DataError, MissingBase.
    """
    _check(draws, noise, prompts, plot, page)
    asked = sides(repo, what)
    data = probed_rows(repo, asked, rows, fewest=FEWEST_ROWS)
    settings = HeadsSettings(seed, draws, noise, prompts)
    record = ProbeRecord.open(repo, "heads", asked, data, settings.to_json(), version=VERSION, again=again)
    found = _known(record, asked) or _measured(repo, asked, data, settings, record, threads, progress)
    write_files(repo, "heads", found, plot, page, f"pv probe heads {what}")
    return found


def _measured(
    repo: Repo,
    asked: Sides,
    rows: Rows,
    settings: HeadsSettings,
    record: ProbeRecord,
    threads: int,
    progress: Report | None,
) -> Heads:
    with going_on(record), pair(repo, asked, threads=threads, progress=progress) as both:
        found = measure_heads(
            both.model, both.tokenizer, both.other, rows, settings=settings,
            names=(record.id, asked.a.name, asked.b.name), part=record.part, progress=progress,
        )  # fmt: skip
    return record.finish(found)


def _known(record: ProbeRecord, asked: Sides) -> Heads | None:
    """What was found before, by the names that the sides have now; None for nothing, and for what cannot be read."""
    if record.found is None:
        return None
    try:
        found = Heads.from_json(record.found)
    except FormatError:
        return None
    return replace(found, a=asked.a.name, b=asked.b.name)


def _check(draws: int, noise: int, prompts: int, plot: Path | None, page: Path | None) -> None:
    if draws < 1 or noise < FEWEST_NOISE or prompts < FEWEST_ROWS:
        raise UsageError(
            f"{draws} random sets, {noise} draws of noise and {prompts} prompts are too few",
            hint=f"at least 1 set, {FEWEST_NOISE} draws and {FEWEST_ROWS} prompts",
        )
    check_outputs(plot, page)
