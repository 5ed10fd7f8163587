"""What `probe sparsity` found as a picture, and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.edit_found import counted
from pv.vecstore.probe.sparse_found import SparseRun, Sparsity
from pv.vecstore.probe.sparse_graft import Fewer, Reach
from pv.vecstore.publish import probe_drawn
from pv.vecstore.publish.figures import interval
from pv.vecstore.publish.html_page import Table, Verdict
from pv.vecstore.publish.html_page import page as frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "HEADER", "LEGEND", "NEEDED", "headline", "needed_legend", "needed_rows", "page", "png", "reach_words", "run_rows",
]  # fmt: skip

SIZE = (11.0, 4.0)
HEADER = (
    "penalty", "weights differ", "neurons differ", "effect, nats", "of plain, %", "all neurons, %", "damage",
)  # fmt: skip
NEEDED = ("penalty", "k50", "/ plain's", "k90", "k50 random", "k50 of neurons'", "/ plain's")
GRAFTS = ("penalty", "neurons", "effect", "as many at random")
LEGEND = (
    "95 % intervals over rows; each training was run once. all neurons: the share of the training's own effect that a "
    "graft of all of them has. damage: log-likelihood that neighbours lost, nats a token"
)
HOW = (
    (
        "penalty",
        "after every step the change D of each neuron and head becomes D max(0, 1 - lr s √n / ‖D‖); weights in no "
        "group, and all if weights are penalized, become sign(D) max(0, |D| - lr s) one by one",
    ),
    (
        "graft",
        "k neurons (rows of gate and up, columns of down) have the trained weights, all else those from before",
    ),
    ("random", "as many neurons drawn at random from all layers"),
    (
        "k50 of neurons'",
        "for half of what all neurons together have: moving the effect to attention does not make it smaller",
    ),
    ("/ plain's", "on the same resamples; below 1, the behaviour sits in fewer neurons"),
)


def png(found: Sparsity) -> bytes:
    """Raises UsageError without matplotlib."""
    return probe_drawn.png(lambda figure: _draw(figure, found), SIZE)


def page(found: Sparsity, command: str | None = None) -> str:
    """`command` made it, as it was typed. Raises UsageError without matplotlib."""
    alt = "effect of grafts by how many neurons they have, a curve for each training, and random neurons beside it"
    return frame(
        f"How few neurons carry {found.what}",
        f"Trained plainly, and with a penalty on changed {found.penalized}. {found.count:,} neurons in the model.",
        verdict=Verdict(headline(found), (found.why,), found.claim != "inconclusive"),
        notes=found.notes,
        pictures=[probe_drawn.picture(lambda figure: _draw(figure, found), SIZE, alt)],
        tables=[
            Table("Trainings", LEGEND, HEADER, list(run_rows(found))),
            Table("Neurons that they need", needed_legend(found), NEEDED, list(needed_rows(found))),
            Table("Grafts", "effect in nats", GRAFTS, list(_points(found)), folded=True),
        ],
        how=HOW,
        command=command or f"pv probe sparsity {found.what} --penalty {found.penalized}",
        footer=f"probe {found.probe}; {counted(found.data)}",
    )  # fmt: skip


def headline(found: Sparsity) -> str:
    return f"Training with a penalty needs fewer neurons: {found.claim}"


def run_rows(found: Sparsity) -> Iterator[list[str]]:
    for run in found.runs:
        yield [
            name_of(run), f"{100 * run.weights:.1f} %", f"{100 * run.neurons:.1f} %", _said(run.effect),
            _said(run.kept, 0, 100), _said(run.alone, 0, 100), _said(run.damage, 3),
        ]  # fmt: skip


def needed_rows(found: Sparsity) -> Iterator[list[str]]:
    for run in found.runs:
        yield [
            name_of(run), reach_words(run.k50), _times(run.fewer), reach_words(run.k90), reach_words(run.random50),
            reach_words(run.alone50), _times(run.alone_fewer),
        ]  # fmt: skip


def needed_legend(found: Sparsity) -> str:
    levels = {run.alone_fewer.level for run in found.runs if run.alone_fewer is not None}
    together = "".join(f"; / plain's: {100 * level:.3g} %, Bonferroni-corrected" for level in levels)
    return (
        "k50, k90: neurons, those that changed most first, whose graft has 50 or 90 % of the training's own effect; "
        "-: not even all have. k50 of neurons': for half of what all neurons together have; the claim is about this. "
        f"95 % intervals{together}"
    )


def name_of(run: SparseRun) -> str:
    return f"{run.strength:g}" if run.strength else "plain"


def reach_words(one: Reach) -> str:
    if one.k is None:
        return "-"
    ends = ("all" if end is None else f"{end:,.0f}" for end in (one.low, one.high))
    return f"{one.k:,.0f} [{', '.join(ends)}]"


def _times(few: Fewer | None) -> str:
    return "-" if few is None or few.ratio is None else f"{few.ratio:.2f} [{_end(few.low)}, {_end(few.high)}]"


def _end(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _points(found: Sparsity) -> Iterator[list[str]]:
    for run in found.runs:
        for point in run.curve:
            yield [name_of(run), f"{point.k:,}", _said(point.effect), _said(point.random)]


def _said(one: Interval | None, digits: int = 2, factor: float = 1.0) -> str:
    return "-" if one is None else interval(factor * one.mean, factor * one.low, factor * one.high, digits)


def _draw(figure: Figure, found: Sparsity) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    figure.suptitle(f"{found.what}: a penalty on changed {found.penalized}", x=0.01, ha="left", weight="bold")
    for at, run in enumerate(found.runs):
        _curve(left, run, at)
    left.set_xscale("log")
    ks = [point.k for point in found.runs[0].curve]
    left.set_xticks(ks, [f"{k:,}" for k in ks])
    left.minorticks_off()
    left.set_xlabel("neurons grafted, those that changed most first")
    left.set_title("share of the training's own effect, % (dashed: random neurons)")
    left.legend(frameon=False)
    kept = [(name_of(run), run.effect) for run in found.runs]
    probe_drawn.bars(right, kept)
    right.set_title("effect of the training, nats")
    right.set_ylabel("penalty")


def _curve(axes: Axes, run: SparseRun, at: int) -> None:
    whole = run.effect.mean
    if not whole:
        return
    colour = f"C{at % 4}"
    ks = [point.k for point in run.curve]
    means, lows, highs = (
        [100 * getattr(point.effect, end) / whole for point in run.curve] for end in ("mean", "low", "high")
    )
    axes.plot(ks, means, marker="o", color=colour, label=name_of(run))
    axes.fill_between(ks, lows, highs, color=colour, alpha=0.15, linewidth=0)
    chance = [(point.k, 100 * point.random.mean / whole) for point in run.curve if point.random is not None]
    axes.plot(
        [k for k, _ in chance], [share for _, share in chance], linestyle="--", linewidth=1, color=colour
    )
