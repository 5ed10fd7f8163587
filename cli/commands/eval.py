"""pv eval"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Whole, dtype_option, json_option, model_threads_option
from pv.cli.render import columns, persona_line, table
from pv.cli.say import echo, plain
from pv.cli.scores import (
    NATS,
    control_lines,
    damage_of_all,
    damage_table,
    nats,
    reply_lines,
    task_lines,
    tasks_of_all,
    won_rows,
)
from pv.registry.errors import UsageError
from pv.registry.words import revision_words
from pv.vecstore.publish.words import VERDICTS, caveats, caveats_of_all
from pv.vecstore.repo.score_plan import REPLIES, TOKENS, ScorePlan

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.progress import Report
    from pv.vecstore.repo.compare import Comparison
    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.revision import Revision
    from pv.vecstore.repo.score import Score
    from pv.vecstore.repo.score_all import Scores
    from pv.vecstore.repo.score_controls import Controlled

    Found = Score | Scores | Comparison | Controlled

__all__ = ["command"]

INTERVAL = "+38.96 [+35.86, +42.17]"  # as wide as most
RIGHT = "pv eval [A [B]] ROWS.jsonl: the file of rows comes last"
WORDS = {
    "up": "the interval lies above 0: the behaviour is stronger in B than in A",
    "down": "the interval lies below 0: the behaviour is weaker in B than in A",
    "inconclusive": "the interval includes 0: these rows show no difference between A and B",
}


WHAT = """
Margin: log-probability of the chosen answer minus that of the rejected one, in nats. Effect: margin minus
margin of the base, averaged over rows. B - A: margin of B minus margin of A, on the same rows. Intervals
(95 %) come from a paired bootstrap over rows, those of shares are Wilson's. Held-out rows that are also training
rows are counted and reported, where the registry keeps the training rows. Measurements are kept per build, and
not made twice.

Damage: log-likelihood that plain answers (after their first 16 tokens, which a behaviour may open as it likes)
and plain text lose against the base, in nats a token, on pv's neutral set or that of --neutral. Replies: greedy
answers to the first prompts of the rows, persona beside base: how many fall into loops, and how many show the
behaviour, if the file's first line says how it shows (docs/rows.md).

Tasks: questions with choices, 60 of general knowledge and 60 of arithmetic, or those of --questions: how many are
answered right, that is, how often the right choice is the likeliest one (docs/scores.md).
"""


@click.command("eval", short_help="Measure a behaviour on held-out rows.", epilog=WHAT)
@click.argument("what", nargs=-1, metavar="[A [B]] ROWS.jsonl | --all [REV]")
@click.option(
    "--all", "every", is_flag=True, help="Each behaviour alone and the persona, on all held-out rows."
)
@click.option(
    "--data", "files", multiple=True, metavar="FILE", help="With --all: these rows (can be repeated)."
)
@click.option("--neutral", metavar="FILE", help="Measure damage on these rows, not on pv's own neutral set.")
@click.option(
    "--replies", "asked", type=Whole(1), metavar="N", help=f"Ask the first N prompts.  [default: {REPLIES}]"
)
@click.option("--no-replies", "--quick", "quick", is_flag=True, help="Write no replies: that takes longest.")
@click.option("--max-tokens", type=Whole(1), default=TOKENS, show_default=True, help="Cut replies there.")
@click.option("--tasks", is_flag=True, help="Also ask questions with choices: how many are answered right.")
@click.option(
    "--questions", metavar="FILE", help="Ask these questions, not pv's own; --tasks goes without saying."
)
@click.option("--judge", is_flag=True, help="Run the command that a file of rows names to judge replies.")
@click.option("--controls", is_flag=True, help="Also measure noise of the vector's size in its place.")
@click.option("--prompt", metavar="TEXT", help="A control too: the base with this system prompt.")
@dtype_option("Dtype of the builds that are measured.")
@model_threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    what: tuple[str, ...],
    every: bool,
    files: tuple[str, ...],
    as_json: bool,
    **how: Any,
) -> None:
    """Measure one revision (default HEAD), or the difference of two, on held-out rows.

    --all measures on the held-out rows that `pv train` kept, or on those of --data; replies only with --replies N.

    \b
    pv eval listening.heldout.jsonl
    pv eval v1 listening.heldout.jsonl --json
    pv eval main style listening.heldout.jsonl
    pv eval --all
    pv eval rows.jsonl --no-replies --neutral my-answers.jsonl
    pv eval rows.jsonl --tasks
    pv eval pirate.heldout.jsonl --controls --prompt "Talk like a pirate."
    """
    revisions, data = _asked(app, what, every, files)
    repo = app.repo()
    sides = [repo.at(name) for name in revisions]
    sets = [app.rows(name, repo) for name in ([data] if data else files)]
    how["plan"] = _plan(app, repo, every, how)
    with app.progress() as progress:
        found = _measured(sides, sets, every, how, progress)
    if as_json:
        app.json(found if every or len(sides) > 1 else {"commit": sides[0].commit, **_built(found)})
    else:
        _show_any(app, sides, found)


def _measured(
    sides: Sequence[Revision], sets: Sequence[Rows], every: bool, how: dict[str, Any], progress: Report | None
) -> Found:
    first, *others = sides
    settings = {"progress": progress, **{key: how[key] for key in ("plan", "dtype", "threads")}}
    if _controls(how, alone=not every and not others):
        return first.score_controls(sets[0], prompt=how["prompt"], **settings)
    if every:
        return first.score_all(sets, **settings)
    return first.compare(others[0], sets[0], **settings) if others else first.score(sets[0], **settings)


def _built(found: Any) -> dict[str, Any]:
    """A score, with the build that it is of."""
    return {"build": getattr(found, "score", found).build, **found.to_json()}


def _show_any(app: App, sides: Sequence[Revision], found: Found) -> None:
    from pv.vecstore.repo.compare import Comparison
    from pv.vecstore.repo.score_all import Scores
    from pv.vecstore.repo.score_controls import Controlled

    match found:
        case Scores():
            _show_all(app, sides[0], found)
        case Comparison():
            _show_pair(sides[0], sides[1], found)
        case Controlled():
            _show(sides[0], found.score)
            for line in control_lines(found):
                echo(line)
        case _:
            _show(sides[0], found)


def _controls(how: dict[str, Any], *, alone: bool) -> bool:
    """Whether controls are asked for: a prompt is one. Raises UsageError where they are of more than one revision."""
    asked = how["controls"] or how["prompt"] is not None
    if asked and not alone:
        raise UsageError(
            "controls are of one revision, on one file of rows", hint="pv eval --controls REV ROWS.jsonl"
        )
    return asked


def _asked(app: App, what: Sequence[str], every: bool, files: Sequence[str]) -> tuple[Sequence[str], str]:
    """Revisions, and the file of rows. Raises UsageError with what was meant."""
    if every:
        if len(what) > 1:
            raise UsageError(
                "--all measures one revision", hint="pv eval --all [REV] [--data ROWS.jsonl] names the rows"
            )
        return what or ("HEAD",), ""
    if files:
        raise UsageError("--data goes with --all", hint=RIGHT)
    if not what:
        raise UsageError(
            "eval needs a file of held-out rows, or --all",
            hint="pv eval ROWS.jsonl measures HEAD on a file; pv eval --all on all held-out rows that are kept",
        )
    if len(what) > 3:
        raise UsageError(
            f"eval takes up to two revisions and a file of rows, not {len(what)} words", hint=RIGHT
        )
    *revisions, rows = what
    early = [name for name in revisions if app.file(name).is_file()]
    if early and not app.file(rows).is_file():
        rest = [name for name in what if name != early[0]]
        raise UsageError(
            f"{rows} is not a file", hint=f"the rows come last: pv eval {' '.join([*rest, early[0]])}"
        )
    return revisions or ["HEAD"], rows


def _plan(app: App, repo: Repo, every: bool, how: dict[str, Any]) -> ScorePlan:
    """With --all, replies only if they are asked for: every line on every set is many."""
    if how["quick"] and (how["asked"] or how["judge"]):
        other = "--replies" if how["asked"] else "--judge"
        raise UsageError(f"--no-replies and {other} do not go together", hint="give one of them")
    asked = 0 if how["quick"] else how["asked"] or (0 if every else REPLIES)
    neutral = {} if how["neutral"] is None else {"neutral": app.rows(how["neutral"], repo)}
    wanted = how["tasks"] or how["questions"] is not None
    return ScorePlan(
        replies=asked,
        max_tokens=how["max_tokens"],
        judge=how["judge"],
        questions=app.questions(how["questions"]) if wanted else None,
        **neutral,
    )


def _headline(label: str, revision: Revision) -> str:
    return f"{label}{revision_words(revision.name, revision.commit)}  {persona_line(revision.persona)}"


def _cells(rows: Sequence[tuple[str, Interval]]) -> list[list[str]]:
    return [[label, nats(i), str(i.n)] for label, i in rows]


def _show(revision: Revision, found: Score) -> None:
    rows = (
        ("margin of the base", found.base_margin),
        ("margin", found.margin),
        ("effect", found.effect),
        ("effect per token", found.effect_per_token),
    )
    echo(_headline("", revision))
    echo(table([found.data, NATS, "rows"], [*_cells(rows), *won_rows(found)]))
    if revision.persona.is_plain:
        echo("no behaviour has a weight: this is the base, whose effect is 0 by definition")
    else:
        echo(VERDICTS[found.effect.verdict][1])
    _caveats(found)
    for line in (*damage_table(found), *task_lines(found), *reply_lines(found.replies)):
        echo(line)


def _caveats(found: Score) -> None:
    for line in caveats(found.effect.n, found.overlap):
        echo(plain(line))


def _show_pair(a: Revision, b: Revision, found: Comparison) -> None:
    rows = (
        ("effect of A", found.a.score.effect),
        ("effect of B", found.b.score.effect),
        ("B - A", found.difference),
        ("B - A per token", found.difference_per_token),
    )
    echo(_headline("A  ", a))
    echo(_headline("B  ", b))
    echo(table([found.a.score.data, NATS, "rows"], _cells(rows)))
    if found.a.score.build == found.b.score.build:
        echo("A and B are the same build")
    else:
        echo(WORDS[found.difference.verdict])
    _caveats(found.b.score)
    for name, one in (("A", found.a.score), ("B", found.b.score)):
        for line in (*damage_table(one, name), *task_lines(one, name), *reply_lines(one.replies, name)):
            echo(line)


def _show_all(app: App, revision: Revision, found: Scores) -> None:
    echo(_headline("", revision))
    sets = [f"{score.data}, {score.effect.n} rows" for score in found.lines[0].scores]
    lines = [
        [line.behaviour or "the persona", *(nats(score.effect) for score in line.scores)]
        for line in found.lines
    ]
    echo(f"effect in {NATS}; each behaviour alone at weight 1, and the persona")
    wide = max(len(line[0]) for line in lines) + sum(max(len(name), len(INTERVAL)) + 3 for name in sets)
    if wide <= columns():
        echo(table(["", *sets], lines))
    else:
        pairs = [[name, one, e] for name, *es in lines for one, e in zip(sets, es, strict=True)]
        echo(table(["", "held-out rows", "effect"], pairs))
    named = [(one.behaviour or "the persona", one.scores) for one in found.lines]
    for line in (*damage_of_all(named), *tasks_of_all(named)):
        echo(line)
    scores = [(line.behaviour or "the persona", one) for line in found.lines for one in line.scores]
    for note in caveats_of_all((name, one.data, one.effect.n, one.overlap) for name, one in scores):
        echo(plain(note))
    if found.without_rows:
        app.note(
            f"  no held-out rows are kept for {', '.join(found.without_rows)}; give them with --data FILE"
        )
