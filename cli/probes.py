"""A probe that is noted in the registry, as text: what was asked, and what it found in the words of its kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import short
from pv.cli.options import Command, json_option, model_threads_option
from pv.cli.render import table
from pv.cli.say import echo, plain

if TYPE_CHECKING:
    from pv.cli.app import App
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.repo.probe.diff import ProbeDiff
    from pv.vecstore.repo.probe.known import KnownProbe
    from pv.vecstore.repo.repo import Repo

__all__ = [
    "ask",
    "data_option",
    "named_rows",
    "neighbours_option",
    "probe_diff_lines",
    "probe_lines",
    "probe_options",
    "rows_words",
    "when",
]

data_option = click.option(
    "--data",
    metavar="ROWS",
    multiple=True,
    help="Held-out rows; may be repeated.  [default: those kept with the training]",
)
neighbours_option = click.option(
    "--neighbours",
    metavar="ROWS",
    multiple=True,
    help="Rows that are to stay as they are; may be repeated.  [default: pv's neutral set]",
)


def probe_options(command: Command) -> Command:
    """Those that every probe has, after its own."""
    for option in (
        json_option,
        model_threads_option,
        click.option("--page", metavar="FILE.html", help="Write it as one HTML page, with the picture."),
        click.option("--plot", metavar="FILE.png", help="Draw it, with matplotlib."),
        click.option("--again", is_flag=True, help="Measure again what is recorded."),
    ):
        command = option(command)
    return command


def ask(
    app: App,
    repo: Repo,
    kind: str,
    what: str,
    *,
    data: Iterable[str],
    plot: str | None,
    page: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Ask a probe of this kind, and say what it found."""
    rows = named_rows(app, data, repo)
    how |= {key: app.file(one) for key, one in (("plot", plot), ("page", page)) if one is not None}
    with app.progress() as progress:
        found = getattr(repo.probe, kind)(what, rows, progress=progress, **how)
    _say(app, kind, found, filter(None, (plot, page)), as_json=as_json)


def named_rows(app: App, names: Iterable[str], repo: Repo) -> Rows | None:
    """The rows of all files that were named, or None if none was."""
    from pv.vecstore.data.joined import joined

    found = [app.rows(name, repo) for name in names]
    return joined(found) if found else None


def _say(app: App, kind: str, found: Any, files: Iterable[str], *, as_json: bool) -> None:
    """What a probe has just found, in the words of its kind, its notes, and the files that were written."""
    if as_json:
        app.json(found)
        return
    for line in import_module(f"pv.cli.probing.{kind}").lines(
        found
    ):  # numpy, which the list of commands does without
        echo(line)
    for note in found.notes:
        app.note(f"note: {note}")
    for file in files:
        app.done(f"wrote {file}")


def probe_lines(known: KnownProbe) -> Iterator[str]:
    """Raises FormatError for a record that cannot be read."""
    a, b = known.a, known.b
    yield click.style(f"probe {known.id}", fg="yellow")
    yield f"kind     {known.kind}"
    yield f"a        {plain(a['name'])}  commit {short(a['commit'])}  build {short(a['build'])}"
    yield f"b        {plain(b['name'])}  commit {short(b['commit'])}  build {short(b['build'])}"
    yield f"rows     {rows_words(known)}"
    yield f"measured {when(known)}"
    yield ""
    if known.found is None:
        yield f"It was stopped: the same pv probe {known.kind} goes on with the rest."
        return
    from pv.vecstore.probe.values import MISREAD
    from pv.vecstore.repo.probe.result import malformed, result

    found = result(known)
    try:
        lines = list(import_module(f"pv.cli.probing.{known.kind}").lines(found))
    except MISREAD as error:
        raise malformed(known) from error
    yield from lines
    yield from (f"note: {plain(note)}" for note in found.notes)


def rows_words(known: KnownProbe) -> str:
    return ", ".join(f"{one['n']} of {plain(one['name'])}" for one in known.rows)


def when(known: KnownProbe) -> str:
    try:
        return f"{datetime.fromisoformat(known.time or ''):%Y-%m-%d %H:%M}"
    except ValueError:
        return "stopped"


def probe_diff_lines(found: ProbeDiff) -> Iterator[str]:
    """Each figure that differs, side by side; a mark where two intervals do not overlap."""
    yield f"two probes of {found.a.kind}: a {short(found.a.id)}, b {short(found.b.id)}"
    if found.asked:
        yield ""
        yield table(
            ("asked", "a", "b"), [(plain(one.name), _value(one.a), _value(one.b)) for one in found.asked]
        )
    if found.figures:
        yield ""
        rows = [
            (plain(one.name), _value(one.a), _value(one.b), "*" if one.apart else "") for one in found.figures
        ]
        yield table(("figure", "a", "b", ""), rows)
        if any(one.apart for one in found.figures):
            yield "* the two 95 % intervals do not overlap"
    yield ""
    yield f"{found.same} figures are the same" if found.figures else "every figure is the same"


def _value(value: Any) -> str:
    match value:
        case {
            "mean": float() | int() as mean,
            "low": float() | int() as low,
            "high": float() | int() as high,
        }:
            return f"{mean:.4g} [{low:.4g}, {high:.4g}]"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case None:
            return "-"
    return plain(str(value))
