"""neurons: how few MLP neurons, set to what they do in B, flip what A would say at the token that decides a row."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.probe.neurons_found import Neurons
from pv.vecstore.probe.neurons_lab import (
    FEWEST,
    MOST,
    MOST_DRAWS,
    Lab,
    Part,
    Settings,
    Sides,
    measured,
    parts_in_all,
)
from pv.vecstore.probe.neurons_summary import flips_of, margin_of, scopes_of
from pv.vecstore.progress import Progress, Report, stage
from pv.vecstore.publish.outputs import check_outputs
from pv.vecstore.repo.probe.files import write_files
from pv.vecstore.repo.probe.pair import pair
from pv.vecstore.repo.probe.record import ProbeRecord, going_on
from pv.vecstore.repo.probe.sides import Sides as Asked
from pv.vecstore.repo.probe.sides import probed_rows, sides

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["Neurons", "neurons"]

FEW = 24
VERSION = 1


def neurons(
    repo: Repo,
    what: str,
    rows: Rows | None = None,
    *,
    prompts: int = MOST,
    draws: int = 5,
    steps: int = 5,
    seed: int = 0,
    again: bool = False,
    plot: Path | None = None,
    page: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Neurons:
    """The first `prompts` of the rows, `draws` of every random ranking, `steps` of integrated gradients. Raises what
    `sides`, `probed_rows` and `pair` raise; UsageError for a model whose MLPs pv does not know, DataError for rows
    whose answers never differ."""
    _check(prompts, draws, steps, plot, page)
    asked = sides(repo, what)
    data = probed_rows(repo, asked, rows, fewest=FEWEST)
    command = _said(what, None if rows is None else rows.source, prompts, draws, steps, seed)
    data = data[:prompts] if len(data) > prompts else data
    settings = Settings(seed, draws, steps)
    neutral = neutral_set()
    record = ProbeRecord.open(
        repo, "neurons", asked, [data, neutral], settings.to_json(), version=VERSION, again=again
    )
    with ExitStack() as held, going_on(record):

        def open_() -> Sides:
            both = held.enter_context(pair(repo, asked, threads=threads, progress=progress))
            return Sides(both.model, both.tokenizer, both.swapped)

        parts = measured(_counted(record, progress), Lab(open_, data, neutral, settings))
        found = _found(record.id, asked, data, settings, parts)
    found = record.finish(found)
    write_files(repo, "neurons", found, plot, page, command)
    return found


def _counted(record: ProbeRecord, progress: Report | None) -> Part:
    """`record.part`, which says how many of the parts are known. It says so only once something is measured."""
    total, done = parts_in_all(), 0
    update: Progress | None = None

    def part(key: str, compute: Any) -> Any:
        nonlocal done, update
        known = record.known(key)
        found = record.part(key, compute)
        done += 1
        if not known:
            update = update or stage(progress, "measuring neurons", "parts", total)
        if not known and update is not None:
            update(done, total)
        return found

    return part


def _found(probe: str, asked: Asked, data: Rows, settings: Settings, parts: dict[str, Any]) -> Neurons:
    rows = parts["rows"]
    return Neurons(
        probe,
        asked.a.name,
        asked.b.name,
        Path(data.source).name,
        data.id,
        len(rows["a"]["margin"]),
        rows["first"],
        rows["deeper"],
        rows["left_out"],
        rows["neutral"],
        settings.seed,
        settings.draws,
        settings.steps,
        len(rows["layers"]) + len(rows["without"]),
        tuple(rows["without"]),
        sum(rows["widths"]),
        margin_of(rows["a"], settings.seed),
        margin_of(rows["b"], settings.seed),
        flips_of(rows["a"]),
        flips_of(rows["b"]),
        *scopes_of(parts, settings.seed),
        tuple(_notes(rows)),
    )


def _notes(rows: dict[str, Any]) -> list[str]:
    n, found = len(rows["a"]["margin"]), []
    if rows["left_out"]:
        found.append(f"{rows['left_out']} rows are left out: their two answers are the same tokens")
    if rows["deeper"]:
        found.append(f"{rows['deeper']} of {n} rows are decided after tokens with which both answers begin")
    if rows["without"]:
        found.append(f"layers without an MLP: {', '.join(map(str, rows['without']))}")
    if n < FEW:
        found.append(f"{n} rows, {n - rows['first']} of which had no say: intervals of so few are wide")
    return found


def _said(what: str, rows: str | None, prompts: int, draws: int, steps: int, seed: int) -> str:
    """The command that measures the same."""
    data = [] if rows is None else ["--data", rows]
    options = {"--prompts": prompts, "--draws": draws, "--steps": steps, "--seed": seed}
    words = (word for key, value in options.items() for word in (key, str(value)))
    return shlex.join(["pv", "probe", "neurons", what, *data, *words])


def _check(prompts: int, draws: int, steps: int, plot: Path | None, page: Path | None) -> None:
    if not FEWEST <= prompts <= MOST:
        raise UsageError(f"{prompts} prompts", hint=f"{FEWEST} to {MOST}: a record has room for so many")
    if not 1 <= draws <= MOST_DRAWS:
        raise UsageError(f"{draws} draws", hint=f"1 to {MOST_DRAWS}: a record has room for so many")
    if steps < 1:
        raise UsageError(f"{steps} steps", hint="at least 1; 5 is the default")
    check_outputs(plot, page)
