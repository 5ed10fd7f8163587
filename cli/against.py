"""Movements of activations along directions, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pv.cli.app import App
from pv.cli.render import table

if TYPE_CHECKING:
    from pv.vecstore.evaluate.moved import Moved, Movement
    from pv.vecstore.repo.diff_against import Against

__all__ = ["movement_lines", "say_against"]

HEADER = ("where", "moved by", "95 % interval", "cosine", "by chance up to", "verdict")


def say_against(app: App, found: Against, *, as_json: bool) -> None:
    """What `pv diff --against` answers."""
    if as_json:
        app.json(found)
        return
    app.page("\n".join(_lines(found)))
    for note in found.notes:
        app.note(f"note: {note}")


def _lines(found: Against) -> Iterator[str]:
    yield f"a  {found.a}"
    yield f"b  {found.b}"
    yield f"mean activations over the answers of {found.n} texts ({found.texts}); 1 is as far as coefficient 1 goes"
    for one in found.traits:
        yield ""
        yield from movement_lines(one.name, one.movement, marked=one.applied)


def movement_lines(name: str, found: Movement, *, marked: tuple[str, ...] = ()) -> Iterator[str]:
    """The verdict, and a table of all sites. Those `marked` get a star, unless all are."""
    yield f"{name}: {found.verdict}, {_furthest(found)}"
    star = len(marked) < len(found.sites)
    yield table(HEADER, [_row(one, star=star and one.site in marked) for one in found.sites])


def _furthest(found: Movement) -> str:
    one = found.furthest
    where = f"furthest from chance at {one.site}"
    return f"p = {found.p:.3f}; {where}: moved by {one.by.mean:+.3f}, cosine {one.cosine:+.2f}"


def _row(one: Moved, *, star: bool) -> tuple[str, ...]:
    return (
        one.site + (" *" if star else ""),
        f"{one.by.mean:+.3f}",
        f"{one.by.low:+.3f} to {one.by.high:+.3f}",
        f"{one.cosine:+.2f}",
        f"{one.chance:.2f}",
        one.verdict,
    )
