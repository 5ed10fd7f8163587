"""A sweep as one HTML file that needs nothing beside it: the picture, the tables, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from pv.registry.words import number
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.evaluate.steering_sweep import BREAKS, LIMIT, Cell, Sweep
from pv.vecstore.publish.figures import interval
from pv.vecstore.publish.html_page import Picture, Verdict, frame, table
from pv.vecstore.publish.steering_plot import svg

__all__ = ["VERDICTS", "command_of", "page"]

VERDICTS = {
    "up": "the interval lies above 0",
    "down": "the interval lies below 0: the other half says the opposite",
    "inconclusive": "the interval includes 0: these rows do not settle it",
}

CSS = """
:root { --up: 200, 100, 20; --down: 94, 76, 160; --lost: 190, 40, 30 }
@media (prefers-color-scheme: dark) { :root { --up: 236, 145, 60; --down: 150, 130, 225; --lost: 235, 90, 75 } }
table { min-width: 34rem }
td.chosen { outline: 2px solid var(--ink); outline-offset: -2px; font-weight: 700 }
td.broken { text-decoration: line-through; text-decoration-color: var(--soft) }
"""
ALT = "Heat maps of effect and damage, and dose curves; the numbers are in the tables below"


def page(sweep: Sweep) -> str:
    """Raises UsageError without matplotlib, which draws the picture."""
    return frame(
        f"Sweep of the steering term {sweep.name}",
        f"What {sweep.name} does at each layer with each coefficient, on {sweep.rows} rows of {sweep.data}.",
        _tables(sweep),
        verdict=_choice(sweep),
        notes=sweep.notes,
        pictures=[Picture(svg(sweep, dark=False), svg(sweep, dark=True), ALT)],
        how=_how(sweep),
        command=command_of(sweep),
        footer=f"steering vector {sweep.vector[:12]}, commit {sweep.commit[:12]}, rows {sweep.data_id[:12]}",
        css=CSS,
    )


def command_of(sweep: Sweep) -> str:
    """What measures the same, in the folder where the rows are."""
    layers = sorted({place.layer for place in sweep.places if place.layer is not None})
    words = [f"pv steer sweep {sweep.name} --data {sweep.data}"]
    words += [f"--layers {','.join(map(str, layers))}"] if layers else []
    words.append(f"--coefficients {','.join(number(c) for c in sweep.coefficients)}")
    words += [f"--damage {number(sweep.limit)}"] if sweep.limit != LIMIT else []
    return " ".join(words)


def _choice(sweep: Sweep) -> Verdict:
    found = sweep.suggestion
    limit = f"{sweep.limit:g} nats a token"
    if found is None:
        said = f"No cell has an effect above 0 on the first half of the rows at a damage of at most {limit}."
        return Verdict("No suggestion", (said,), settled=False)
    cell = found.cell
    first, verdict = sweep.rows // 2, VERDICTS[found.effect.verdict]
    lines = [
        f"Effect on the {found.effect.n} rows that had no say in the choice: {_nats(found.effect)} nats; {verdict}.",
        f"Chosen on the first {first} rows, where it is {_nats(cell.first)}, among the cells whose damage is at most "
        f"{limit}: here {_nats(cell.cost, 3)}.",
    ]
    if sweep.set_in:
        lines.append(f"Set in commit {sweep.set_in[:12]}.")
    return Verdict(f"{cell.place.site}, coefficient {number(cell.coefficient)}", tuple(lines))


def _tables(sweep: Sweep) -> str:
    most = max((abs(cell.effect.mean) for cell in sweep.cells if not cell.is_broken), default=0) or 1

    def effect(cell: Cell) -> tuple[str, str, float]:
        tone = "up" if cell.effect.mean > 0 else "down"
        return f"{cell.effect.mean:+.2f}", tone, abs(cell.effect.mean) / most

    def lost(cell: Cell) -> tuple[str, str, float]:
        mean = cell.cost.mean if cell.cost else 0.0
        return f"{mean:.3f}", "lost", max(mean, 0) / BREAKS

    parts = [
        (
            "Effect, nats",
            "Margin with the term minus margin without it. Struck out: text is broken there.",
            effect,
        ),
        (
            f"Damage on {sweep.cost_of}, nats a token",
            "Log-likelihood lost against the model without the term.",
            lost,
        ),
    ]
    found = [
        f'<h2>{title}</h2><p class="soft">{said}</p><div class="table">{_heat(sweep, of)}</div>'
        for title, said, of in parts
    ]
    breaks = [[one.place.words, "above 0" if one.sign > 0 else "below 0", one.words or "not in this sweep"]
              for one in sweep.breaks]  # fmt: skip
    found.append(
        f'<h2>Where text breaks</h2><p class="soft">The smallest coefficient at which replies are empty or loop more '
        f"often than without the term (replies), or at which plain text or plain answers lose more than {BREAKS:g} "
        "nats a token (damage).</p>"
        f"{table(['layer', 'side', 'breaks at'], breaks)}"
    )
    found.append(f"<details><summary>Every number</summary>{_every(sweep)}</details>")
    return "".join(found)


def _heat(sweep: Sweep, of: object) -> str:
    assert callable(of)
    rows = []
    for place in sweep.places:
        cells = [f"<td>{escape(place.words)}</td>"]
        for cell in sweep.at(place):
            text, tone, strength = of(cell)
            names = ["chosen"] if sweep.suggestion and sweep.suggestion.cell == cell else []
            names += ["broken"] if cell.is_broken else []
            colour = f"rgba(var(--{tone}), {min(strength, 1) * 0.6:.3f})"
            title = f"effect {_nats(cell.effect)}, damage {_nats(cell.cost, 3)}"
            cells.append(
                f'<td class="{" ".join(names)}" style="background: {colour}" title="{escape(title)}">{text}</td>'
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{number(c)}</th>" for c in sweep.coefficients)
    return f"<table><thead><tr><th>layer</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _every(sweep: Sweep) -> str:
    header = ["layer", "coefficient", "dose", "effect", "margin above 0", "moved the wrong way",
              "damage, answers", "damage, text", "broken replies", "text is broken by"]  # fmt: skip
    rows = [
        [
            cell.place.words, number(cell.coefficient), f"{cell.dose:.2f}", _nats(cell.effect), _share(cell.wins),
            _share(cell.against), _nats(cell.damage.answers, 3), _nats(cell.damage.text, 3), _share(cell.broken),
            ", ".join(cell.broken_by) or "-",
        ]
        for cell in sweep.cells
    ]  # fmt: skip
    return table(header, rows)


def _how(sweep: Sweep) -> Iterable[tuple[str, str]]:
    yield "Control", "the same model without any steering term, on the same rows"
    yield "Without the term", f"margin {_nats(sweep.margin)} nats, above 0 on {_share(sweep.wins)}"
    yield "Effect", "mean over rows of the margin's change (log-probability of the chosen answer minus that of the " \
        "rejected one), with a 95 % interval from a paired bootstrap"  # fmt: skip
    yield (
        "Damage",
        f"on {sweep.neutral}, {sweep.neutral_rows} rows, with a 95 % interval from a bootstrap over rows",
    )
    if sweep.broken is not None:
        yield "Replies", f"greedy, to {sweep.prompts} prompts of the rows, of at most {sweep.max_tokens} tokens; a " \
            f"reply is broken if it is empty or falls into a loop: without the term {_share(sweep.broken)}"  # fmt: skip
    yield (
        "Dose",
        "norm of what is added over that of the activation, averaged over the tokens that are steered",
    )
    yield "Shares", "with Wilson's 95 % interval"
    yield "Positions and rule", f"{sweep.positions}; {sweep.rule}"


def _nats(one: Interval | None, digits: int = 2) -> str:
    return interval(one.mean, one.low, one.high, digits) if one else "-"


def _share(one: Interval | None) -> str:
    if one is None:
        return "-"
    return f"{round(one.mean * one.n)} of {one.n} ({100 * one.low:.0f} to {100 * one.high:.0f} %)"
