"""A probe of neurons as a picture and as a page: curves by k, what is predicted, directions, and the four claims."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.neurons_found import Claim, Curve, Half, Neurons, Point, ScopeFound
from pv.vecstore.publish.figures import interval
from pv.vecstore.publish.html_page import Picture, Table, Verdict
from pv.vecstore.publish.html_page import page as page_of
from pv.vecstore.publish.steering_plot import need_matplotlib, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["METHOD_WORDS", "claim_figure", "half_words", "page", "png", "scope_words", "svg"]

METHOD_WORDS = {
    "delta*grad": "delta x gradient",
    "delta": "|delta|",
    "grad": "|gradient|",
    "ig": "integrated gradients",
    "random": "random, |delta| matched",
    "fixed": "delta x gradient, mean delta",
    "iterative": "step by step",
    "directions": "directions",
    "full": "all neurons",
    "b": "B itself",
}
COLOURS = {
    "delta*grad": "#0072B2", "delta": "#009E73", "grad": "#CC79A7", "ig": "#E69F00", "random": "#8a8f9c",
    "fixed": "#D55E00", "iterative": "#56B4E9",
}  # fmt: skip
MARKERS = {
    "delta*grad": "o", "delta": "s", "grad": "^", "ig": "D", "random": "x", "fixed": "v", "iterative": "P",
}  # fmt: skip
SCOPE_COLOURS = {"layer": "#009E73", "late": "#D55E00", "all": "#0072B2"}
HEADLINE = "all"
MOVED = "moved towards B"
STEPS = ("step by step: margin, nats", "its flips", MOVED)
BOTH = (False, True)  # row by row, shared
UNJUDGED = "The best layer is not judged: delta x gradient chose it, on rows that it would be judged by."


def scope_words(scope: ScopeFound) -> str:
    if scope.name == "layer":
        return f"layer {scope.layers[0]}, the best one"
    if scope.name == "late":
        first, last = scope.layers[0], scope.layers[-1]
        return f"late layers, {first} to {last}" if first < last else f"late layers: {last} alone"
    return "all layers"


def half_words(half: Half | None) -> str:
    """`12 (8 to 20)`, `> 1536`, or - where there is no ceiling to speak of."""
    if half is None:
        return "-"
    beyond = "" if half.reached or half.high < half.k else "> "
    ends = f"{half.low:.0f} to {beyond}{half.high:.0f}"
    return f"{half.k:.0f} ({ends})" if half.reached else f"> {half.k:.0f} ({ends})"


def claim_figure(claim: Claim) -> str:
    if claim.figure is None:
        return "-"
    one = claim.figure
    if claim.name.startswith("directions"):
        return _percent(one)
    return interval(one.mean, one.low, one.high)


def png(found: Neurons) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(found, "png", dark=False)


def svg(found: Neurons, *, dark: bool) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(found, "svg", dark=dark)


def _render(found: Neurons, form: str, *, dark: bool) -> bytes:
    need_matplotlib()
    from matplotlib.figure import Figure

    with style(dark=dark):
        figure = Figure(figsize=(13, 8), layout="constrained")
        _draw(figure, found)
        out = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None}
        figure.savefig(out, format=form, dpi=150, metadata=metadata)
    return out.getvalue()


def _draw(figure: Figure, found: Neurons) -> None:
    figure.suptitle(f"{found.a}..{found.b}: {found.n} rows of {found.data}", x=0.01, ha="left", weight="bold")
    axes = figure.subplots(2, 3)
    for at, scope in enumerate(found.scopes):
        _by_row(axes[0, at], scope)
    axes[0, 0].set_ylabel("effect on the margin, nats")
    handles, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _shared(axes[1, 0], found.scope(HEADLINE))
    _linearity(axes[1, 1], found)
    _directions(axes[1, 2], found)


def _by_number(axes: Axes, words: str) -> None:
    """A logarithmic axis of k, its numbers in plain digits."""
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    axes.minorticks_off()
    axes.set_xlabel(words)


def _by_row(axes: Axes, scope: ScopeFound) -> None:
    for curve in scope.by_row:
        _curve(axes, curve.method, curve.points, bars=curve.method == "delta*grad")
    _curve(axes, "iterative", scope.iterative, bars=False)
    axes.axhline(scope.ceiling.effect.mean, linestyle=(0, (4, 3)), linewidth=1, color="C0", alpha=0.8)
    axes.set_title(f"{scope_words(scope)} (dashed: all {scope.size:,} of them)")
    _by_number(axes, "k, neurons, ranked row by row")
    highest = max(one.effect.high for curve in scope.by_row for one in (*curve.points, scope.ceiling))
    beyond = max(one.effect.mean for one in scope.iterative)
    if beyond > 1.5 * highest > 0:  # what it does in the first steps is to be seen
        axes.set_ylim(top=1.15 * highest)
        axes.text(
            0.03, 0.97, f"step by step: up to {beyond:+.0f}", transform=axes.transAxes, ha="left", va="top",
            color=COLOURS["iterative"], fontsize=9,
        )  # fmt: skip


def _curve(axes: Axes, method: str, points: tuple[Point, ...], *, bars: bool) -> None:
    x = [one.k for one in points]
    y = [one.effect.mean for one in points]
    look: dict[str, Any] = {
        "color": COLOURS[method],
        "marker": MARKERS[method],
        "label": METHOD_WORDS[method],
        "markersize": 4,
    }
    if not bars:
        axes.plot(x, y, **look)
        return
    axes.errorbar(x, y, _spread([one.effect for one in points]), elinewidth=1, capsize=2, **look)


def _spread(known: list[Interval]) -> list[list[float]]:
    """Of error bars. A percentile interval of a ratio may leave the ratio out."""
    return [[max(one.mean - one.low, 0) for one in known], [max(one.high - one.mean, 0) for one in known]]


def _shared(axes: Axes, scope: ScopeFound) -> None:
    for curve in scope.shared:
        _curve(axes, curve.method, curve.points, bars=curve.method == "delta*grad")
    axes.axhline(scope.shared_ceiling.effect.mean, linestyle=(0, (4, 3)), linewidth=1, color="C0", alpha=0.8)
    axes.set_title(f"{scope_words(scope)}, one ranking for all rows")
    _by_number(axes, "k, neurons chosen on the other half")
    axes.set_ylabel("effect on the margin, nats")
    axes.plot([], [], color=COLOURS["fixed"], marker=MARKERS["fixed"], label=METHOD_WORDS["fixed"])
    line = [one for one in axes.get_lines() if one.get_label() == METHOD_WORDS["fixed"]]
    axes.legend(line[-1:], [METHOD_WORDS["fixed"]], frameon=False)


def _linearity(axes: Axes, found: Neurons) -> None:
    for scope in found.scopes:
        known = [(one.k, one.linear) for one in scope.curve("delta*grad").points if one.linear is not None]
        _line(axes, scope, known)
    axes.axhline(1, linestyle=(0, (4, 3)), linewidth=1, color="C0", alpha=0.8)
    _by_number(axes, "k, neurons, ranked row by row")
    axes.set_title("effect over what delta x gradient predicts")
    axes.legend(frameon=False)


def _directions(axes: Axes, found: Neurons) -> None:
    for scope in found.scopes:
        _line(axes, scope, [(one.rank, one.share) for one in scope.directions if one.share is not None])
    axes.axhline(0.8, linestyle=(0, (4, 3)), linewidth=1, color="C0", alpha=0.8)
    axes.set_xlabel("directions")
    axes.set_title("share of the ceiling that directions keep")


def _line(axes: Axes, scope: ScopeFound, known: list[tuple[int, Interval]]) -> None:
    if not known:
        return
    axes.errorbar(
        [k for k, _ in known],
        [one.mean for _, one in known],
        _spread([one for _, one in known]),
        color=SCOPE_COLOURS[scope.name], marker="o", markersize=4, elinewidth=1, capsize=2, label=scope_words(scope),
    )  # fmt: skip


def page(found: Neurons, command: str | None = None) -> str:
    """`command` measures the same again. Raises UsageError without matplotlib, which draws the picture."""
    main = found.scope(HEADLINE)
    k50 = main.curve("delta*grad").k50
    headline = (
        f"{half_words(k50)} neurons of {main.size:,} have half of the effect of all of them"
        if k50 is not None
        else "patching all neurons has no effect that is surely above 0"
    )
    picture = Picture(
        svg(found, dark=False),
        svg(found, dark=True),
        "Curves of effect by number of neurons for each ranking; the numbers are in the tables below",
    )
    return page_of(
        f"Neurons of {found.a}..{found.b}",
        f"How few MLP neurons of {found.a}, set to their values in {found.b}, flip the token that decides a row; "
        f"{found.n} rows of {found.data}.",
        verdict=Verdict(headline, tuple(_claim_lines(found.claims_of(HEADLINE))), k50 is not None),
        notes=found.notes,
        pictures=[picture],
        tables=_tables(found),
        how=_how(found),
        command=command
        or f"pv probe neurons {found.a}..{found.b}" + (f" --data {found.data}" if "." in found.data else ""),
        footer=f"probe {found.probe}",
    )


def _claim_lines(claims: tuple[Claim, ...]) -> Iterator[str]:
    for claim in claims:
        yield f"{claim.says}: {claim.verdict}, {claim_figure(claim)}"


def _tables(found: Neurons) -> Iterator[Table]:
    yield Table(
        "Claims",
        "Held: the whole interval is on the claim's side of the threshold; did not hold: it is on the other side. "
        f"{len(found.claims)} comparisons, not corrected for multiple testing. {UNJUDGED}",
        ["claim", "neurons", "verdict", "figure, 95 % interval", "what the figure is"],
        [
            [claim.says, scope_words(scope), claim.verdict, claim_figure(claim), claim.note]
            for scope in found.scopes
            for claim in found.claims_of(scope.name)
        ],
    )
    yield Table(
        "k50: neurons for half of the ceiling",
        "Row by row on all rows; shared: one ranking of the first half of the rows, on the others.",
        ["ranking", *(f"{scope_words(one)}{s}" for one in found.scopes for s in ("", ", shared"))],
        [
            [METHOD_WORDS[method], *(half_words(_k50(s, method, shared=b)) for s in found.scopes for b in BOTH)]
            for method in METHOD_WORDS
            if any(_has(one, method) for one in found.scopes)
        ],
    )  # fmt: skip
    for scope in found.scopes:
        yield Table(
            f"{scope_words(scope)}: by delta x gradient, row by row",
            f"Ceiling: {nats(scope.ceiling.effect)} nats, flips {_count(scope.ceiling.flips)}.",
            ["k", "margin, nats", "share of the ceiling", "flips", "effect over predicted", MOVED, *STEPS],
            [_cells(one, scope) for one in scope.curve("delta*grad").points],
            folded=True,
        )
    main = found.scope(HEADLINE)
    yield Table(
        "Off target: KL(A || patched) at neutral prompts, nats",
        "Of the next token, where the answer begins.",
        ["what", "k", "KL, 95 % interval"],
        [
            [METHOD_WORDS[one.what], "" if one.k is None else str(one.k), nats(one.kl, 4)]
            for one in main.off_target
        ],
        folded=True,
    )
    yield Table(
        "The first neurons of the shared ranking",
        "By mean delta x gradient over the rows that chose.",
        ["layer", "neuron", "mean delta", "mean score, nats"],
        [[str(one.layer), str(one.index), f"{one.delta:+.3f}", f"{one.score:+.4f}"] for one in main.neurons],
        folded=True,
    )


def _k50(scope: ScopeFound, method: str, *, shared: bool) -> Half | None:
    curves = scope.shared if shared else scope.by_row
    return next((one.k50 for one in curves if one.method == method), None)


def _has(scope: ScopeFound, method: str) -> bool:
    curves: tuple[Curve, ...] = (*scope.by_row, *scope.shared)
    return any(one.method == method for one in curves)


def _cells(one: Point, scope: ScopeFound) -> list[str]:
    step = next((step for step in scope.iterative if step.k == one.k), None)
    return [
        str(one.k),
        nats(one.margin),
        "-" if one.share is None else _percent(one.share),
        _count(one.flips),
        "-" if one.linear is None else nats(one.linear),
        "-" if one.moved is None else f"{one.moved:.2f}",
        "-" if step is None else nats(step.margin),
        "-" if step is None else _count(step.flips),
        "-" if step is None or step.moved is None else f"{step.moved:.2f}",
    ]


def nats(one: Interval, digits: int = 2) -> str:
    return interval(one.mean, one.low, one.high, digits)


def _percent(one: Interval) -> str:
    return f"{100 * one.mean:.0f} % [{100 * one.low:.0f}, {100 * one.high:.0f}]"


def _count(one: Interval | float) -> str:
    """A mean of several draws has no interval."""
    if isinstance(one, float):
        return f"{100 * one:.0f} %"
    return f"{round(one.mean * one.n)} of {one.n}, {100 * one.low:.0f} to {100 * one.high:.0f} %"


def _how(found: Neurons) -> Iterator[tuple[str, str]]:
    yield (
        "Position",
        "the last token before the chosen and the rejected answer first differ; nothing else is patched",
    )
    yield (
        "Margin",
        "logit of the chosen answer's next token minus that of the rejected one's, which is the difference of their "
        f"log-probabilities, in nats: {nats(found.margin_a)} in A, {nats(found.margin_b)} in B",
    )
    yield (
        "Neuron",
        "an input of the projection that ends an MLP; patched, it takes the value that it has in B there",
    )
    yield (
        "delta x gradient",
        "a neuron's activation in B minus that in A, times the gradient of the margin in A; positive ones",
    )
    yield (
        "Baselines",
        f"|delta|; |gradient|; integrated gradients, {found.steps} steps; random, {found.draws} draws, each neuron "
        "replaced by one of about its |delta|",
    )
    yield (
        "Shared",
        f"ranked by the mean score of {found.chosen_on} rows, tried on the other {found.n - found.chosen_on}; mean "
        "delta: each neuron moved by the mean of those rows instead of what B has in this one",
    )
    yield (
        "Step by step",
        "10, 10, 30, then 50 neurons at a time; gradient and delta are taken again after each",
    )
    yield (
        "Directions",
        "right singular vectors of the rows' deltas, not centred; delta's projection on them, times one alpha that "
        "the first half chose: that with which it comes closest to the full patch",
    )
    yield (
        "Intervals",
        "95 %, bootstrap over whole rows, paired; of rates Wilson's, but for means over random draws",
    )
