"""The interference report as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pv.cli.app import App
from pv.cli.render import change_lines, persona_line, table
from pv.vecstore.merge.advice import RULE

if TYPE_CHECKING:
    from pv.vecstore.merge.report import Interference, PairFigures
    from pv.vecstore.repo.plan_merge import MergePlan

__all__ = ["interference_lines", "report_merge_plan"]

PAIRS = 20
_TRIMMED = {"tensor": "each tensor", "model": "each behaviour over the whole model"}


def report_merge_plan(app: App, plan: MergePlan, *, as_json: bool) -> None:
    """What a merge would do, and the report of what would result."""
    if as_json:
        app.json(plan)
        return
    app.note(
        f"{plan.said}: nothing was changed"
        if plan.kind == "up-to-date"
        else f"would be a {plan.said}; nothing was changed"
    )
    for note in plan.notes:
        app.note(f"note: {note}")
    lines = [
        *change_lines(plan.changes),
        f"  {persona_line(plan.persona)}",
        *interference_lines(plan.interference),
    ]
    lines += [
        "",
        *(f"{'recommended' if at == 0 else 'and'}: {one.text}" for at, one in enumerate(plan.advice)),
    ]
    app.page("\n".join([*lines, f"the rule: {RULE}"]))


def interference_lines(found: Interference) -> list[str]:
    """Tables of the behaviours, the pairs and the classes, and a line about the whole."""
    if not found.behaviours:
        return ["", "no behaviour moves a weight"]
    rows = [[one.name, f"{one.norm:.4f}", f"{100 * one.share:.1f} %"] for one in found.behaviours]
    header = ["behaviour", "norm", "share of the squared norms"]
    lines = ["", table(header, rows, title="behaviours, each at its weight"), *_pairs(found.pairs)]
    return [*lines, "", _classes(found), "", *_whole(found)]


def _pairs(pairs: Sequence[PairFigures]) -> list[str]:
    if not pairs:
        return []
    shown = sorted(pairs, key=lambda p: -abs(p.cosine))[:PAIRS]
    rows = [
        [p.a, p.b, f"{p.cosine:+.3f}", f"{100 * p.overlap:.1f} %", f"{100 * p.conflict:.1f} %"] for p in shown
    ]
    rows.append(["unrelated", "", "+0.000", "-", "50.0 %"])
    header = ["pair", "", "cosine", "moved by both, of moved by either", "opposite signs there"]
    more = f", the {PAIRS} with the largest cosines of {len(pairs)}" if len(pairs) > PAIRS else ""
    return ["", table(header, rows, title=f"pairs{more}")]


def _classes(found: Interference) -> str:
    header = ["class of module", "norm of what is added", "relative to the base"]
    trims = found.density is not None
    if trims:
        header += ["elements kept by the trim", "squared norm kept"]
    rows = []
    for one in found.classes:
        share = one.total / one.base if one.base else 0.0
        row = [one.where, f"{one.total:.4f}", f"{100 * share:.3f} %"]
        if trims:
            kept = (one.trim.elements, one.trim.norm2) if one.trim else (1.0, 1.0)
            row += [f"{100 * part:.1f} %" for part in kept]
        rows.append(row)
    trim = (
        f"; {found.method} trims {_TRIMMED[found.trims or 'tensor']} to density {found.density:g}"
        if found.density is not None
        else ""
    )
    return table(header, rows, title=f"by class of module{trim}")


def _whole(found: Interference) -> list[str]:
    """The size of the update, beside what it could be at most and what it would be of unrelated ones."""
    relative = f", {100 * found.total / found.base:.3f} % of the base's there" if found.base else ""
    times = f" ({found.total / found.largest:.2f} times it)" if found.largest else ""
    lines = [
        f"total: norm {found.total:.4f}{relative}; the largest behaviour alone {found.largest:.4f}{times}; "
        f"unrelated ones of these norms {found.root_sum_square:.4f}"
    ]
    if found.method != "add":
        lines.append(f"total is what {found.method} adds; a plain sum would have norm {found.sum:.4f}")
    return lines
