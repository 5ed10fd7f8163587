"""probe concept: how many directions a behaviour is, which weights deal with it, how short it can be written down.

Differences of activations, each row's mean over its answer: of B minus A on the same texts (what training changed, and
what is looked at if nothing is said), or of chosen minus rejected answers in A (the concept itself). They come from the
rows that the behaviour was trained on, and every effect is measured on held-out ones; without training rows, every
other held-out row is used for the one, the rest for the other. A part that was measured is noted at once, a gain layer
by layer, a length encoding by encoding: the same command goes on with the rest, or adds what was left out before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import DataError, NotFoundError, UsageError
from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.evaluate.margins import need_pairs
from pv.vecstore.evaluate.statistics import effect, kept
from pv.vecstore.probe.concept import OF, Concept, Effects, Layer, Of, Step
from pv.vecstore.probe.elbow import Elbow
from pv.vecstore.progress import Report, stage
from pv.vecstore.publish.outputs import check_outputs
from pv.vecstore.repo.probe.concept_length import length_of
from pv.vecstore.repo.probe.concept_model import GAINS, RANDOM, Measured
from pv.vecstore.repo.probe.files import write_files
from pv.vecstore.repo.probe.record import ProbeRecord, going_on
from pv.vecstore.repo.probe.sides import Sides, probed_rows, sides
from pv.vecstore.repo.rows import kept_rows

if TYPE_CHECKING:
    from os import PathLike

    from pv.vecstore.repo.repo import Repo

    Data = Rows | str | PathLike[str] | None

__all__ = ["FEWEST", "Concept", "concept"]

FEWEST = 8  # rows of either kind
STEPS = (1, 2, 3, 4, 8, 16, 32, 64, 128)


def concept(
    repo: Repo,
    what: str,
    rows: Rows | None = None,
    *,
    source: Data = None,
    of: Of = "change",
    layers: str | Sequence[int] | None = None,
    coefficient: float = 1.0,
    effects: bool = True,
    gain: bool = True,
    length: bool = True,
    seed: int = 0,
    again: bool = False,
    plot: Path | None = None,
    page: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Concept:
    """`source`: rows that directions are taken from. `layers` as in `3,9,15`, or all: the best of them is shown.

    Raises NotFoundError without held-out rows, DataError for too few, UsageError for a layer that is not there.
    """
    if of not in OF:
        raise UsageError(f"no differences {of!r}", hint=f"there are: {', '.join(OF)}")
    if not 0 < coefficient <= 1e6:
        raise UsageError(
            f"coefficient {coefficient:g} steers nothing", hint="above 0; 1 adds the mean difference once"
        )
    check_outputs(plot, page)
    asked = sides(repo, what)
    rows, taken = _rows(repo, asked, rows, None if source is None else as_rows(source), of)
    settings = {"of": of, "layers": _words(layers), "coefficient": float(coefficient), "seed": seed}
    record = ProbeRecord.open(repo, "concept", asked, [rows, taken], settings, again=again)
    with going_on(record):
        with Measured(repo, asked, record, rows, taken, of, seed, threads, progress) as model:
            found = _measured(model, layers, coefficient, effects=effects, gain=gain)
        if length or record.known("length"):
            found = _with_length(found, repo, asked, rows, record, seed, threads, progress)
    found = record.finish(found)
    write_files(repo, "concept", found, plot, page)
    return found


def _rows(repo: Repo, asked: Sides, given: Rows | None, source: Rows | None, of: Of) -> tuple[Rows, Rows]:
    """Held-out rows, and those that directions are from."""
    rows = probed_rows(repo, asked, given, fewest=FEWEST)
    if source is None and asked.behaviour is not None:
        try:
            source = kept_rows(repo.at(asked.b.commit), asked.behaviour).named
        except NotFoundError:
            source = None
        else:
            paired = tuple(row for row in source if row.rejected is not None)
            if of == "pairs" and len(paired) < len(source):
                source = Rows(paired, source.source)
            if len(source) < FEWEST:
                source = None
    if source is None:
        if len(rows) < 2 * FEWEST:
            raise DataError(
                f"{rows.source}: {len(rows)} rows are too few to take directions from half of them, and to measure "
                "on the rest",
                hint=f"at least {2 * FEWEST}; or name other rows for the directions: --from ROWS",
            )
        return Rows(tuple(rows)[1::2], rows.source), Rows(tuple(rows)[::2], rows.source)
    if of == "pairs":
        need_pairs(source)
    if len(source) < FEWEST:
        raise DataError(
            f"{source.source}: {len(source)} rows are too few to take directions from",
            hint=f"at least {FEWEST}, better 24 or more",
        )
    return rows, source


def _measured(
    model: Measured, layers: str | Sequence[int] | None, coefficient: float, *, effects: bool, gain: bool
) -> Concept:
    sites = model.sites(layers)
    update = stage(model.progress, "looking for an elbow", "layers", len(sites))
    elbows: dict[str, tuple[Elbow, float]] = {}
    for done, site in enumerate(sites, start=1):
        if (one := model.elbow(site)) is not None:
            elbows[site] = one
        if update is not None:
            update(done, len(sites))
    if not elbows:
        raise DataError(
            f"{model.asked} do the same at {', '.join(sites)}", hint="look at later layers: --layers"
        )
    tried = model.tried(list(elbows), coefficient)
    chosen = max(elbows, key=lambda site: (tried.get(site, 0.0), elbows[site][1]))
    numbers = model.layers()
    lines = tuple(
        Layer(
            site, numbers.index(site), one.n95, one.kept, one.shares[0], one.norm, relative, tried.get(site)
        )
        for site, (one, relative) in elbows.items()
    )
    record, asked = model.record, model.asked
    shown = effects or record.known("random:0")
    return Concept(
        record.id, asked.a.name, asked.b.name, model.of, _name(model.rows), len(model.rows), _name(model.source),
        elbows[chosen][0].pairs, coefficient, model.seed, lines, elbows[chosen][0],
        _effects(model, chosen, coefficient, elbows[chosen][0]) if shown else None,
        model.gains() if gain or record.known(f"gains:{GAINS}") else None,
        notes=(*model.notes(), *_notes(asked, sites, elbows)),
    )  # fmt: skip


def _notes(asked: Sides, sites: Sequence[str], elbows: Mapping[str, Any]) -> Iterator[str]:
    left_out = [site for site in sites if site not in elbows]
    if left_out:
        yield f"{asked} do the same at {', '.join(left_out)}: left out"


def _effects(model: Measured, site: str, coefficient: float, elbow: Elbow) -> Effects:
    counts = [count for count in STEPS if count < elbow.pairs]
    update = stage(model.progress, f"steering at {site}", "models", len(counts) + RANDOM + 3)
    before, after = model.margins("a"), model.margins("b")
    whole = model.steered(site, coefficient, None)
    found, done = [], 3
    for count in counts:
        margins = model.steered(site, coefficient, count)
        found.append(Step(count, effect(margins, before), kept(margins, whole, before)))
        done += 1
        if update is not None:
            update(done, len(counts) + RANDOM + 3)
    random = []
    for draw in range(RANDOM):
        random.append(effect(model.random(site, coefficient, draw), before).mean)
        done += 1
        if update is not None:
            update(done, len(counts) + RANDOM + 3)
    return Effects(
        effect(after, before), effect(whole, before), kept(whole, after, before), tuple(found), tuple(random)
    )


def _with_length(
    found: Concept,
    repo: Repo,
    asked: Sides,
    rows: Rows,
    record: ProbeRecord,
    seed: int,
    threads: int,
    progress: Report | None,
) -> Concept:
    if asked.behaviour is None:
        note = (
            f"without a length, which is one behaviour's: {asked} differ in another way; name one behaviour, "
            "as in REV:NAME"
        )
        return replace(found, notes=(*found.notes, note))
    share = found.effects.share if found.effects is not None else None
    made = length_of(
        repo,
        asked,
        rows,
        record,
        seed=seed,
        vector=(found.elbow.width, share),
        threads=threads,
        progress=progress,
    )
    notes = found.notes
    if not made.baselines:
        note = (
            f"the length is that of {asked.behaviour} alone on the base, at weight 1, and {asked} are not: without "
            "random elements and one steering vector beside it"
        )
        notes = (*notes, note)
    return replace(found, length=made, notes=notes)


def _words(layers: str | Sequence[int] | None) -> str | None:
    return layers if layers is None or isinstance(layers, str) else ",".join(map(str, layers))


def _name(rows: Rows) -> str:
    return Path(rows.source).name
