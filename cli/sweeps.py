"""A sweep as text: a line for each layer, a column for each coefficient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pv.cli.app import short
from pv.cli.render import counted, number, table
from pv.cli.say import plain
from pv.cli.scores import nats
from pv.vecstore.evaluate.steering_sweep import BREAKS

if TYPE_CHECKING:
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.evaluate.steering_sweep import Cell, Sweep

__all__ = ["sweep_lines"]

VERDICTS = {
    "up": "its interval lies above 0",
    "down": "its interval lies below 0: the other half says the opposite",
    "inconclusive": "its interval includes 0: these rows do not settle it",
}


def sweep_lines(found: Sweep) -> Iterator[str]:
    """Effects, damage, where text breaks, and what is suggested."""
    yield plain(
        f"{found.name}, vector {short(found.vector)}, {found.positions} positions, on {counted(found.rows, 'row')} "
        f"of {found.data}"
    )
    without = [f"margin {nats(found.margin)} nats", f"above 0 on {_share(found.wins)}"]
    if found.broken is not None:
        without.append(f"broken replies {_share(found.broken)}")
    yield f"without the term: {', '.join(without)}"
    yield ""
    yield _grid(found, "effect, nats", lambda cell: f"{cell.effect.mean:+.2f}{_mark(found, cell)}")
    yield from _legend(found)
    yield ""
    yield _grid(
        found,
        f"damage on {found.cost_of}, nats a token",
        lambda cell: f"{cell.cost.mean:.3f}  " if cell.cost else "-",
    )
    yield plain(
        f"measured on {found.neutral}, {counted(found.neutral_rows, 'row')}; text is broken where plain text or plain "
        f"answers lose more than {BREAKS:g}, or replies are surely more often empty or in a loop"
    )
    yield ""
    yield from _breaks(found)
    yield ""
    yield from _suggestion(found)


def _grid(found: Sweep, title: str, cell: Callable[[Cell], str]) -> str:
    header = [f"layer \\ {title}", *map(number, found.coefficients)]
    return table(header, [[place.words, *map(cell, found.at(place))] for place in found.places])


def _mark(found: Sweep, cell: Cell) -> str:
    """Two columns wide, so that the numbers stay below each other."""
    if cell.is_broken:
        return " x"
    if found.suggestion and found.suggestion.cell == cell:
        return " *"
    return " ~" if cell.effect.verdict == "inconclusive" else "  "


def _legend(found: Sweep) -> Iterator[str]:
    marks = {_mark(found, cell) for cell in found.cells}
    words = {" x": "x  text is broken", " *": "*  suggested", " ~": "~  the interval includes 0"}
    said = [text for mark, text in words.items() if mark in marks]
    if said:
        yield f"  {'   '.join(said)}"


def _breaks(found: Sweep) -> Iterator[str]:
    by_place = {
        place: {one.sign: one for one in found.breaks if one.place == place} for place in found.places
    }
    signs = sorted({one.sign for one in found.breaks})
    header = ["text breaks in layer", *("above 0, at" if sign > 0 else "below 0, at" for sign in signs)]
    rows = [
        [place.words, *((sides[sign].words or "none of these") for sign in signs)]
        for place, sides in by_place.items()
    ]
    yield table(header, rows)


def _suggestion(found: Sweep) -> Iterator[str]:
    suggestion = found.suggestion
    if suggestion is None:
        yield (
            "no suggestion: no cell has an effect above 0 on the first half of the rows at a damage of at most "
            f"{found.limit:g} nats a token"
        )
        return
    cell = suggestion.cell
    yield plain(f"suggested: {cell.place.site}, coefficient {number(cell.coefficient)}")
    rows = [
        [f"effect on the other {counted(cell.second.n, 'row')}, nats", nats(cell.second)],
        [f"effect on the {counted(cell.first.n, 'row')} that chose it, nats", nats(cell.first)],
        ["margin above 0, all rows", _share(cell.wins)],
        ["margin moved the wrong way", _share(cell.against)],
        ["damage on plain text, nats a token", nats(cell.damage.text, 3) if cell.damage.text else "-"],
        [
            "damage on plain answers, nats a token",
            nats(cell.damage.answers, 3) if cell.damage.answers else "-",
        ],
        ["dose: norm over the activation's", f"{cell.dose:.2f}"],
        ["broken replies", _share(cell.broken)],
    ]
    yield table(["", "95 % interval"], rows)
    yield f"the effect on the other half: {VERDICTS[suggestion.effect.verdict]}"
    if found.set_in is None:
        yield plain(f"pv steer set {found.name} {number(cell.coefficient)} --site {cell.place.site}")
    else:
        yield plain(f"set in commit {short(found.set_in)}")


def _share(one: Interval | None) -> str:
    if one is None:
        return "-"
    return f"{round(one.mean * one.n)} of {one.n}, {100 * one.low:.0f} to {100 * one.high:.0f} %"
