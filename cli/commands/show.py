"""pv show"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import behaviour_line, change_lines, combine_words
from pv.cli.say import plain
from pv.cli.versions import one_line_each, stored_words, use_words
from pv.registry.provenance import Derived, Provenance, Trained
from pv.registry.words import output_words, revision_words, steering_line
from pv.vecstore.publish.lineage import NOTHING, lineage, losses, measured, original, others, ran, taught
from pv.vecstore.publish.words import at_weight_1

if TYPE_CHECKING:
    from pv.registry.history.log import LogEntry
    from pv.vecstore.repo.show import Shown, ShownBehaviour, ShownRows
    from pv.vecstore.repo.stored_vector import StoredVector
    from pv.vecstore.repo.vectors import KnownVector

__all__ = ["command"]


@click.command("show", short_help="Show a commit, a behaviour, or a vector.")
@click.argument("what", default="HEAD", metavar="[REV | BEHAVIOUR | REV:BEHAVIOUR | ID]")
@json_option
@pass_app
def command(app: App, what: str, as_json: bool) -> None:
    """Show a commit: its persona, what changed in it, and where its vectors came from.

    Of a behaviour, show the version that a revision (HEAD by default) has, and its other versions; of a vector,
    where it came from and who uses it; of rows, the vectors that were trained or measured on them; of a probe, what it
    found. ID is at least 4 digits of any id that pv prints: of a commit, a vector, rows, a probe, a persona, a build,
    its weights, a base. A name that is both a revision and a behaviour is the revision.

    \b
    pv show
    pv show v1 --json
    pv show listening
    pv show v1:listening
    pv show 2919cb558a47
    """
    from pv.cli.probes import probe_lines
    from pv.vecstore.repo.probe.known import KnownProbe
    from pv.vecstore.repo.show import Shown, ShownBehaviour, ShownRows
    from pv.vecstore.repo.vectors import KnownVector

    repo = app.repo()
    shown = repo.show(what)
    if as_json:
        kind = {"kind": "vector"} if isinstance(shown, KnownVector) else {}
        app.json({**kind, **shown.to_json()})
    elif isinstance(shown, Shown):
        if what != "HEAD" and shown.found is None and what in repo.persona.behaviours:
            app.note(f"{what} is both a revision and a behaviour: pv show HEAD:{what} shows the behaviour")
        app.page("\n".join([*_commit(shown), *_behaviours(shown), *_by_behaviour(shown)]))
    elif isinstance(shown, ShownBehaviour):
        app.page("\n".join([*_behaviour(shown), *_vectors(shown.version.vectors), *_versions(shown)]))
    elif isinstance(shown, ShownRows):
        app.page("\n".join(_rows(shown)))
    elif isinstance(shown, KnownProbe):
        app.page("\n".join(probe_lines(shown)))
    else:
        app.page("\n".join([*_vectors([shown.vector]), *_known(shown)]).lstrip("\n"))


def _behaviour(shown: ShownBehaviour) -> list[str]:
    entry, first, count = shown.since, shown.version.entry, len(shown.versions)
    before = [f"first    {_when(first)}"] if first.id != entry.id else []
    return [
        click.style(f"behaviour {shown.name}", fg="yellow"),
        f"version  {shown.version.number} of {count} in {plain(revision_words(shown.revision, shown.commit))}",
        f"recipe   {behaviour_line(shown.name, shown.behaviour, most=None)}",
        f"since    {_when(entry)}",
        *before,
        "",
        *(f"    {line}".rstrip() for line in map(plain, entry.message.splitlines())),
    ]


def _when(entry: LogEntry) -> str:
    return f"{short(entry.id)}, {plain(entry.author)}, {entry.time.astimezone():%Y-%m-%d %H:%M}"


def _versions(shown: ShownBehaviour) -> list[str]:
    if len(shown.versions) == 1:
        return []
    return ["", "all versions", *one_line_each(shown.versions)]


def _known(shown: KnownVector) -> Iterator[str]:
    first = shown.first
    yield f"  first in {short(first.id)} as {shown.name}, {first.time.astimezone():%Y-%m-%d %H:%M}"
    yield f"  {use_words(shown)}"


def _rows(shown: ShownRows) -> Iterator[str]:
    kept = "" if shown.kept else ", which are not in the registry"
    yield click.style(f"rows {short(shown.id)}", fg="yellow") + f"  {plain(', '.join(shown.files))}{kept}"
    for known, how in (
        *((known, "trained on them") for known in shown.trained),
        *((known, "measured on them") for known in shown.measured),
    ):
        yield from _vectors([known.vector], f"  {how},")
        yield from _known(known)


def _commit(shown: Shown) -> list[str]:
    entry, persona = shown.entry, shown.entry.persona
    return [
        *([plain(shown.found)] if shown.found else []),
        click.style(f"commit {entry.id}", fg="yellow"),
        f"author   {plain(entry.author)} <{plain(entry.email)}>, {entry.time.astimezone():%Y-%m-%d %H:%M}",
        *(f"parent   {short(parent)}" for parent in entry.parents),
        f"persona  {short(persona.id)}",
        f"base     {plain(shown.base)}",
        f"combine  {combine_words(persona.combine)}",
        f"output   {output_words(persona.output)}",
        "",
        *(f"    {line}".rstrip() for line in map(plain, entry.message.splitlines())),
        "",
    ]


def _behaviours(shown: Shown) -> Iterator[str]:
    """All of them, and what the commit changed, against its first parent."""
    changed = {change.name: change for change in shown.changes if change.kind == "behaviour"}
    now = shown.entry.persona.behaviours
    for name in sorted(now.keys() | changed.keys()):
        yield from (
            change_lines([changed[name]]) if name in changed else [f"  {behaviour_line(name, now[name])}"]
        )
    terms = {change.name: change for change in shown.changes if change.kind == "steering"}
    steering = shown.entry.persona.steering.terms
    for name in sorted(steering.keys() | terms.keys()):
        yield from (
            change_lines([terms[name]])
            if name in terms
            else [plain(f"  {steering_line(name, steering[name])}")]
        )
    yield from change_lines(change for change in shown.changes if change.kind == "field")


def _by_behaviour(shown: Shown) -> Iterator[str]:
    """Each vector once, in the order of the behaviours and steering terms that have it, whose names it bears."""
    names: dict[str, list[str]] = {}
    for name, behaviour in sorted(shown.entry.persona.behaviours.items()):
        for term in behaviour.terms:
            names.setdefault(term.vector, []).append(name)
    for name, steering in sorted(shown.entry.persona.steering.terms.items()):
        for one in sorted(steering.vectors):
            names.setdefault(one, []).append(f"steering {name}")
    known = {vector.id: vector for vector in shown.vectors}
    for vector, users in names.items():
        yield from _vectors([known[vector]], f"  {', '.join(map(plain, dict.fromkeys(users)))}")


def _vectors(vectors: Iterable[StoredVector], names: str = "") -> Iterator[str]:
    for vector in vectors:
        yield ""
        yield f"vector {short(vector.id)}{names}  {stored_words(vector)}"
        for line in (*_origin(vector.provenance), *others(vector.provenance)):
            yield f"  {plain(at_weight_1(line))}"


def _origin(origin: Provenance) -> list[str]:
    """Of a vector in another encoding: what is known of it, and then of the one before."""
    if isinstance(origin, Derived):
        source, error = short(origin.derived_from), origin.relative_l2
        now = f"{origin.encoding} of {source}, relative L2 error of the vector {error:.3f}"
        return [now, *measured(origin), *_made(origin.original), *original(origin)]
    return [*_made(origin), *measured(origin)]


def _made(origin: Provenance) -> list[str]:
    if not isinstance(origin, Trained):
        return [] if lineage(origin) == NOTHING else [lineage(origin)]
    how = "; ".join(words for words in (ran(origin), losses(origin)) if words)
    return [f"{taught(origin)} ({short(origin.data.id)})", *([how] if how else [])]
