"""pv log"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, json_option, pass_app, short
from pv.cli.graph import graph
from pv.cli.render import persona_line

if TYPE_CHECKING:
    from pv.registry.log import LogEntry

__all__ = ["command"]


@click.command("log", short_help="Show the history.")
@click.argument("rev", default="HEAD")
@click.option("--graph", "as_graph", is_flag=True, help="Draw how the lines of history join.")
@click.option("--all", "everything", is_flag=True, help="From every branch and tag.")
@click.option("--oneline", is_flag=True, help="One line a commit.")
@click.option("-n", "limit", type=click.IntRange(1), help="At most so many commits.")
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
    registry = app.registry()
    entries = registry.log(rev, all=everything, limit=limit)
    if as_json:
        app.json({"commits": [_json(entry) for entry in entries]})
        return
    lines: list[str] = []
    drawn = graph((entry.id, entry.parents) for entry in entries)
    for entry, (above, own, rest) in zip(entries, drawn, strict=True):
        text = _one_line(entry) if oneline else _full(entry)
        if as_graph:
            lines += above
            lines.append(f"{own} {text[0]}")
            lines += [f"{rest} {line}".rstrip() for line in text[1:]]
            if rest.endswith("\\") and len(text) == 1:
                lines.append(rest)
        else:
            lines += text
    app.page("\n".join(lines))


def _one_line(entry: LogEntry) -> list[str]:
    title = entry.message.splitlines()[0] if entry.message else ""
    return [
        f"{click.style(short(entry.id), fg='yellow')}{_names(entry)} {title}  [{persona_line(entry.persona)}]"
    ]


def _full(entry: LogEntry) -> list[str]:
    return [
        f"{click.style('commit ' + short(entry.id), fg='yellow')}{_names(entry)}",
        f"author   {entry.author}, {_ago(entry.time)}",
        f"persona  {persona_line(entry.persona)}",
        "",
        *(f"    {line}" for line in entry.message.splitlines()),
        "",
    ]


def _names(entry: LogEntry) -> str:
    names = [
        name.removeprefix("refs/heads/").replace("refs/tags/", "tag: ").replace("refs/pv/", "pv: ")
        for name in entry.refs
    ]
    return click.style(f" ({', '.join(names)})", fg="green") if names else ""


def _ago(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def _json(entry: LogEntry) -> dict[str, object]:
    return {
        "id": entry.id,
        "parents": list(entry.parents),
        "author": {"name": entry.author, "email": entry.email},
        "time": entry.time.isoformat(),
        "message": entry.message,
        "refs": list(entry.refs),
        "persona_id": entry.persona.id,
        "behaviours": {name: b.to_json() for name, b in entry.persona.behaviours.items()},
    }
