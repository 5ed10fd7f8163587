"""pv log"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.graph import graph
from pv.cli.options import Whole, json_option
from pv.cli.render import persona_line
from pv.cli.say import plain

if TYPE_CHECKING:
    from pv.registry.history.log import LogEntry

__all__ = ["command"]


@click.command("log", short_help="Show the history.")
@click.argument("rev", default="HEAD")
@click.option("--graph", "as_graph", is_flag=True, help="Draw how the lines of history join.")
@click.option("--all", "everything", is_flag=True, help="From every branch and tag.")
@click.option("--oneline", is_flag=True, help="One line a commit.")
@click.option("-n", "limit", type=Whole(1), help="At most so many commits.")
@json_option
@pass_app
def command(
    app: App, rev: str, as_graph: bool, everything: bool, oneline: bool, limit: int | None, as_json: bool
) -> None:
    """Show the commits that lead to a revision, newest first, each with the persona it made.

    \b
    pv log
    pv log --graph --all --oneline
    pv log v1 -n 5
    """
    repo = app.repo()
    entries = repo.log(rev, all=everything, limit=limit, graph=as_graph)
    if as_json:
        app.json({"commits": [entry.to_json() for entry in entries]})
        return
    current = repo.head.branch
    texts = [[_one_line(entry, current)] if oneline else _full(entry, current) for entry in entries]
    lines = _beside_graph(entries, texts) if as_graph else [line for text in texts for line in text]
    app.page("\n".join(lines))


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


def _one_line(entry: LogEntry, current: str) -> str:
    commit = click.style(short(entry.id), fg="yellow")
    return f"{commit}{_names(entry, current)} {plain(entry.subject)}  [{persona_line(entry.persona)}]"


def _full(entry: LogEntry, current: str) -> list[str]:
    return [
        f"{click.style('commit ' + short(entry.id), fg='yellow')}{_names(entry, current)}",
        f"author   {plain(entry.author)}, {_ago(entry.time)}",
        f"persona  {persona_line(entry.persona)}",
        "",
        *(f"    {line}".rstrip() for line in map(plain, entry.message.splitlines())),
        "",
    ]


def _names(entry: LogEntry, current: str) -> str:
    here = f"refs/heads/{current}"
    names = [f"HEAD -> {current}"] if here in entry.refs else []
    names += [
        name.removeprefix("refs/heads/").replace("refs/tags/", "tag: ").replace("refs/pv/", "pv: ")
        for name in entry.refs
        if name != here
    ]
    return click.style(f" ({plain(', '.join(names))})", fg="green") if names else ""


def _ago(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")
