"""pv log"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app, short
from pv.cli.graph import graph
from pv.cli.options import Whole, json_option
from pv.cli.render import persona_line
from pv.cli.say import plain
from pv.cli.terminal import cut
from pv.cli.versions import effect_lines, effect_words, one_line_each, ref_names, version_blocks
from pv.registry.changes import changes
from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.registry.words import change_line

if TYPE_CHECKING:
    from pv.registry.history.log import LogEntry
    from pv.vecstore.publish.words import Effect
    from pv.vecstore.repo.repo import Repo

__all__ = ["command"]

Keep = Callable[["LogEntry"], bool]


class Log(click.Command):
    """`-3` is `-n 3`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {"-n", "--grep", "--since", "--until", "--behaviour"}
        pairs = zip(["", *args], args, strict=False)
        spelled = [
            f"-n{arg[1:]}" if re.fullmatch(r"-\d+", arg) and before not in takes_value else arg
            for before, arg in pairs
        ]
        return super().parse_args(ctx, spelled)


def read_time(text: str, days: int = 0) -> datetime:
    """A date, or a date and a time, of here unless it has an offset; or so many days later."""
    try:
        return datetime.fromisoformat(text).astimezone() + timedelta(days)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a date such as 2026-01-31 or 2026-01-31T12:00") from None


def read_end(text: str) -> datetime:
    """The same; a date alone is the end of that day."""
    return read_time(text, 1 if re.fullmatch(r"[\d-]+", text) else 0)


@click.command("log", cls=Log, short_help="Show the history, or the versions of a behaviour.")
@click.argument("what", default="HEAD", metavar="[REV | A..B | BEHAVIOUR]")
@click.option("--behaviour", metavar="NAME", help="Show the versions of this behaviour, seen from REV.")
@click.option("--graph", "as_graph", is_flag=True, help="Draw the history as a graph.")
@click.option("--all", "everything", is_flag=True, help="Start from every branch and tag.")
@click.option("--oneline", is_flag=True, help="One line per commit, cut at the width of the terminal.")
@click.option("-n", "limit", type=Whole(1), metavar="N", help="Show at most N; -5 is short for -n 5.")
@click.option("--grep", metavar="TEXT", help="Only commits whose message contains TEXT, ignoring case.")
@click.option("--since", type=read_time, metavar="DATE", help="Only commits from this date on.")
@click.option("--until", type=read_end, metavar="DATE", help="Only commits up to and including this date.")
@click.option("--scores", is_flag=True, help="Show the effects that were measured of each commit's build.")
@click.option(
    "-p",
    "--patch",
    "--stat",
    is_flag=True,
    expose_value=False,
    help="Accepted as in git; changes are always shown.",
)
@json_option
@pass_app
def command(
    app: App,
    /,
    what: str,
    behaviour: str | None,
    everything: bool,
    limit: int | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Show the commits that lead to a revision, newest first: what each changed, and the persona that it made.

    A..B are the commits that lead to B and not to A. Of a behaviour, show its versions: each vector that it has
    had, how that was made, and the effect that was measured of it. A name that is both a revision and a behaviour
    is the revision.

    \b
    pv log
    pv log --graph --all --oneline
    pv log v1..main -5
    pv log listening
    pv log --scores --grep pirate
    """
    repo = app.repo()
    asked = (what, behaviour) if behaviour is not None else _behaviour(app, repo, what)
    if asked is None:
        _commits(app, repo, what, everything=everything, limit=limit, as_json=as_json, **how)
        return
    _check_fits_versions(how)
    found = repo.versions(asked[1], asked[0], all=everything)[:limit]
    if as_json:
        app.json({"behaviour": asked[1], "versions": [version.to_json() for version in found]})
    else:
        drawn = map(cut, one_line_each(found)) if how["oneline"] else version_blocks(found)
        app.page("\n".join(drawn))


def _commits(
    app: App, repo: Repo, what: str, *, everything: bool, limit: int | None, as_json: bool, **how: Any
) -> None:
    scores, as_graph = how["scores"], how["as_graph"]
    keep = _keep(how["grep"], how["since"], how["until"])
    if keep is not None and as_graph:
        raise UsageError("--graph draws every commit", hint="leave it out, or --grep, --since and --until")
    entries = repo.log(what, all=everything, limit=limit, keep=keep, graph=as_graph)
    effects = {entry.id: repo.at(entry.id).effects if scores else () for entry in entries}
    if as_json:
        measured = {
            c: {"scores": [e.to_json() for e in found]} if scores else {} for c, found in effects.items()
        }
        app.json({"commits": [{**entry.to_json(), **measured[entry.id]} for entry in entries]})
        return
    if not entries:
        app.note("no commit there matches" if keep else "no commits there")
        return
    if scores and not any(effects.values()):
        app.note("no effect of these commits was measured: pv eval REV ROWS.jsonl does")
    draw, current = _one_line if how["oneline"] else _full, repo.head.branch
    texts = [list(draw(entry, current, effects[entry.id])) for entry in entries]
    lines = _beside_graph(entries, texts) if as_graph else [line for text in texts for line in text]
    app.page("\n".join(map(cut, lines) if how["oneline"] else lines))


def _behaviour(app: App, repo: Repo, what: str) -> tuple[str, str] | None:
    if what == "HEAD":
        return None
    from pv.vecstore.repo.names import behaviour_named

    asked = behaviour_named(repo, what)
    if asked is None and repo.head.commit and what in repo.persona.behaviours:
        app.note(f"{what} is both a revision and a behaviour: pv log --behaviour {what} shows its versions")
    return asked


def _check_fits_versions(how: dict[str, Any]) -> None:
    for option, value in how.items():
        if value and option != "oneline":
            name = {"as_graph": "graph"}.get(option, option)
            raise UsageError(
                f"--{name} is for commits, not for the versions of a behaviour",
                hint="leave it out, or name a revision: pv log main",
            )


def _keep(grep: str | None, since: datetime | None, until: datetime | None) -> Keep | None:
    if grep is None and since is None and until is None:
        return None
    return lambda entry: (
        (grep is None or grep.casefold() in entry.message.casefold())
        and (since is None or entry.time >= since)
        and (until is None or entry.time < until)
    )


def _beside_graph(entries: list[LogEntry], texts: list[list[str]]) -> list[str]:
    """Each commit's lines, with the lines of history that pass on its left."""
    lines: list[str] = []
    drawn = graph((entry.id, entry.parents) for entry in entries)
    for left, text in zip(drawn, texts, strict=True):
        lines += [*left.above, f"{left.own} {text[0]}"]
        below = [left.fork or left.rest, *[left.rest] * len(text)]
        lines += [f"{beside} {line}".rstrip() for beside, line in zip(below, text[1:], strict=False)]
        if left.fork and len(text) == 1:
            lines.append(left.fork)
    return lines


def _one_line(entry: LogEntry, current: str, effects: tuple[Effect, ...]) -> Iterator[str]:
    commit = click.style(short(entry.id), fg="yellow")
    changed = "; ".join(map(_shorter, changed_lines(entry.before, entry.persona)))
    said = f"{commit}{_names(entry, current)} {plain(entry.subject)}{f'  [{changed}]' if changed else ''}"
    yield said + "".join(f"  {effect_words(effect)}" for effect in effects)


def _shorter(line: str) -> str:
    """`listening 1 -> 0.5` of `~ listening  weight 1 -> 0.5`."""
    return line.removeprefix("~ ").replace("  weight ", " ").replace("  ", " ")


def _full(entry: LogEntry, current: str, effects: tuple[Effect, ...]) -> Iterator[str]:
    yield f"{click.style('commit ' + short(entry.id), fg='yellow')}{_names(entry, current)}"
    if len(entry.parents) > 1:
        yield f"merge    {' '.join(map(short, entry.parents))}"
    yield f"author   {plain(entry.author)}, {entry.time.astimezone():%Y-%m-%d %H:%M}"
    yield f"persona  {persona_line(entry.persona)}"
    for place, line in enumerate(changed_lines(entry.before, entry.persona)):
        yield f"{'' if place else 'changed':<9}{line}"
    yield from effect_lines("effect   ", effects)
    yield ""
    yield from (f"    {line}".rstrip() for line in map(plain, entry.message.splitlines()))
    yield ""


def _names(entry: LogEntry, current: str) -> str:
    names = ref_names(entry.refs, current)
    return click.style(f" ({plain(', '.join(names))})", fg="green") if names else ""


def changed_lines(before: Persona | None, after: Persona) -> list[str]:
    """What a commit changed, an item a line."""
    return [] if before is None else [plain(change_line(change)) for change in changes(before, after)]
