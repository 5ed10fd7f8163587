"""pv pack"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option
from pv.cli.render import interval, size, table
from pv.cli.say import echo

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.repo.compress import Candidate, Packing, Trial
    from pv.vecstore.vectors.derive import Recipe

__all__ = ["command"]

NONE_KEEPS = 1
CLOSER = 3  # tries between two rungs of the ladder


@click.command("pack", short_help="Keep a behaviour in a smaller encoding.")
@click.argument("name", metavar="NAME")
@click.option(
    "--to",
    "texts",
    multiple=True,
    metavar="ENCODING",
    help="float, float:fp32, int8, ternary, lowrank:64, sparse:0.1; with --keep several, or none for a ladder of them.",
)
@click.option(
    "--keep",
    "share",
    type=click.FloatRange(0, 1, min_open=True),
    help="The share of the effect that must stay.",
)
@click.option("--data", metavar="FILE", help="Held-out rows to measure the effect on.")
@click.option("--anyway", is_flag=True, help="Also if it takes more room than now.")
@click.option("-m", "--message", help="The commit's message.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    name: str,
    texts: tuple[str, ...],
    share: float | None,
    data: str | None,
    anyway: bool,
    message: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Re-encode a behaviour's vectors, smaller and approximate, and commit the behaviour with them.

    What comes out are other vectors, with ids of their own and an error measured against those before. With
    held-out rows the effect is measured too: --keep 0.95 tries a ladder of encodings, then ranks or shares
    between two of its rungs, and commits the smallest whose effect is, with its whole 95 % interval, at least
    95 % of what it was. Nothing is committed, and the exit code is 1, if none is.

    \b
    pv pack listening --to int8
    pv pack listening --to lowrank:16 --data listening.heldout.jsonl
    pv pack listening --keep 0.95 --data listening.heldout.jsonl
    """
    from pv.registry.errors import UsageError
    from pv.vecstore.data.rows import read_rows
    from pv.vecstore.repo.compress import Packing, next_try, smallest
    from pv.vecstore.vectors.derive import LADDER, Recipe

    if share is None and len(texts) != 1:
        raise UsageError(
            "pack takes one --to ENCODING, or --keep SHARE with --data FILE",
            hint=f"pv pack {name} --to int8, or pv pack {name} --keep 0.95 --data HELD_OUT.jsonl",
        )
    if share is not None and data is None:
        raise UsageError("--keep needs --data: an effect is measured on held-out rows")
    recipes = [Recipe.parse(text) for text in dict.fromkeys(texts or LADDER)]
    registry = app.registry()
    head = registry.resolve("HEAD")
    rows = read_rows(app.file(data)) if data is not None else None
    label = app.file(data).name if data is not None else ""

    with Packing(registry, head, name, threads=threads) as packing:
        if share is None and packing.is_already(recipes[0]):
            raise UsageError(f"nothing changed: {name} is {recipes[0].text} already")
        candidates = [_made(app, packing, recipe) for recipe in recipes]
        only = candidates[0]
        if share is None and only.differs and not packing.gains(only) and not anyway:
            raise UsageError(
                f"as {only.recipe.text}, {name} would take {size(only.stored_bytes)}, and takes "
                f"{size(packing.stored_bytes)} now: nothing was changed",
                hint="--anyway does it all the same",
            )
        effect: Interval | None = None
        trials: list[Trial] = []
        if rows is not None:
            with app.progress(f"measuring {name} on {label}", "answers") as update:
                effect = packing.effect(rows, progress=update)
            trials = [
                _tried(app, packing, c, rows, label) for c in candidates if share is None or packing.gains(c)
            ]
            for _ in range(CLOSER):
                between = None if texts or share is None else next_try(trials, share)
                if between is None:
                    break
                candidates.append(_made(app, packing, between))
                trials.append(_tried(app, packing, candidates[-1], rows, label))
        candidates.sort(key=lambda candidate: -candidate.stored_bytes)
        chosen = candidates[0] if share is None else None
        if share is not None and (best := smallest(trials, share)) is not None:
            chosen = best.candidate
        commit = None
        if chosen is not None:
            commit = packing.adopt(
                chosen,
                app.command_line,
                message or f"Pack {name} as {chosen.recipe.text}",
                measured=_facts(chosen, trials, label, rows, share),
            )
        if as_json:
            app.json(_document(packing, commit, chosen, effect, candidates, trials, share))
        else:
            if trials:
                echo(_drawn(packing, effect, candidates, trials, share))
            _say(app, packing, commit, chosen, effect, share)
    if chosen is None:
        click.get_current_context().exit(NONE_KEEPS)


def _made(app: App, packing: Packing, recipe: Recipe) -> Candidate:
    with app.progress(f"encoding {packing.name} as {recipe.text}", "numbers") as update:
        return packing.make(recipe, progress=update)


def _tried(app: App, packing: Packing, candidate: Candidate, rows: Rows, label: str) -> Trial:
    with app.progress(f"measuring {candidate.recipe.text} on {label}", "answers") as update:
        return packing.try_out(candidate, rows, progress=update)


def _facts(
    chosen: Candidate, trials: list[Trial], label: str, rows: Rows | None, share: float | None
) -> dict[str, Any]:
    trial = next((trial for trial in trials if trial.candidate is chosen), None)
    if trial is None or rows is None:
        return {}
    asked = {} if share is None else {"share": share}
    found = {"effect": trial.effect.to_json(), "kept": trial.kept.to_json() if trial.kept else None}
    return {"data": label, "data_id": rows.id, **asked, **found}


def _document(
    packing: Packing,
    commit: str | None,
    chosen: Candidate | None,
    effect: Interval | None,
    candidates: list[Candidate],
    trials: list[Trial],
    share: float | None,
) -> dict[str, Any]:
    tried = {trial.candidate.recipe.text: trial.to_json() for trial in trials}
    return {
        "commit": commit,
        "behaviour": packing.name,
        "share": share,
        "chosen": chosen.recipe.text if chosen else None,
        "vectors": {old: new.manifest.id for old, new in chosen.derived.items()} if chosen else {},
        "before": {
            "encodings": list(packing.encodings),
            "stored_bytes": packing.stored_bytes,
            "effect": effect.to_json() if effect else None,
        },
        "candidates": [tried.get(c.recipe.text, c.to_json()) for c in candidates],
    }


def _drawn(
    packing: Packing,
    effect: Interval | None,
    candidates: list[Candidate],
    trials: list[Trial],
    share: float | None,
) -> str:
    """The search as a table, from the largest to the smallest."""
    known = {trial.candidate.recipe.text: trial for trial in trials}
    now = f"{'+'.join(packing.encodings)} (now)"
    cells = [[now, size(packing.stored_bytes), "-", _nats(effect), "-", ""]]
    for candidate in candidates:
        trial = known.get(candidate.recipe.text)
        error = f"{candidate.error.relative_l2:.3f}"
        stored = size(candidate.stored_bytes)
        if trial is None:
            cells.append([candidate.recipe.text, stored, error, "-", "-", "not smaller"])
            continue
        verdict = "" if share is None else "keeps it" if trial.keeps(share) else "loses more"
        cells.append([candidate.recipe.text, stored, error, _nats(trial.effect), _share(trial.kept), verdict])
    header = ["encoding", "stored", "error of tau", "effect, nats", "kept, 95 % interval", ""]
    return table(header, cells)


def _nats(found: Interval | None) -> str:
    return "-" if found is None else interval(found.mean, found.low, found.high)


def _share(kept: Interval | None) -> str:
    return "-" if kept is None else f"{kept.mean:.3f} [{kept.low:.3f}, {kept.high:.3f}]"


def _say(
    app: App,
    packing: Packing,
    commit: str | None,
    chosen: Candidate | None,
    effect: Interval | None,
    share: float | None,
) -> None:
    if chosen is not None:
        app.done(
            f"{short(commit)} {packing.name} is {chosen.recipe.text}: {size(chosen.stored_bytes)}, was "
            f"{size(packing.stored_bytes)}; error of tau {chosen.error.relative_l2:.3f}"
        )
    elif effect is not None and effect.low <= 0:
        app.note(
            f"{packing.name} has no effect on these rows that is surely above 0: there is nothing to keep"
        )
    else:
        app.note(
            f"no smaller encoding keeps {share:g} of the effect of {packing.name}: nothing was committed"
        )
