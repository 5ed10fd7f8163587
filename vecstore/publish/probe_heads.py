"""What `pv probe heads` found as a picture and as a page: a map of the heads, the graft curve, where the change is."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pv.registry.words import number
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.error_rate import error_rate_words
from pv.vecstore.probe.heads import Heads, Linear
from pv.vecstore.probe.verdict import band_of
from pv.vecstore.publish.html_page import Picture, Table, Verdict
from pv.vecstore.publish.html_page import page as framed
from pv.vecstore.publish.steering_plot import need_matplotlib, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["linear_row", "page", "png", "svg"]

WIDTH, HEIGHT = 13.0, 6.4  # inches
ROW = 0.19  # of a layer
ALT = (
    "A map of every head's own change, the share of the shift that grafts of the top heads recover beside random ones, "
    "and shares of the weights' change; the numbers are in the tables below"
)


def png(found: Heads) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(found, "png", dark=False)


def svg(found: Heads, *, dark: bool) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(found, "svg", dark=dark)


def page(found: Heads, command: str) -> str:
    """Raises UsageError without matplotlib, which draws the picture."""
    lines = (*found.verdict.reasons, error_rate_words())
    return framed(
        f"Heads of {found.a}..{found.b}",
        f"Which attention heads changed, and which of them carry the behaviour, on {found.ranked} rows that rank and "
        f"{found.tested} that test, of {found.data}.",
        verdict=Verdict(found.verdict.kind, lines, settled=found.verdict.kind != "inconclusive"),
        notes=found.notes,
        pictures=[Picture(svg(found, dark=False), svg(found, dark=True), ALT)],
        tables=_tables(found),
        how=_how(found),
        command=command,
        footer=f"probe {found.probe}" if found.probe else "",
    )


def _render(found: Heads, form: str, *, dark: bool) -> bytes:
    need_matplotlib()
    from matplotlib.figure import Figure

    with style(dark=dark):
        height = max(HEIGHT, ROW * found.layers + 1.4)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        _draw(figure, found)
        out = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # of a name in letters that the font lacks
            figure.savefig(out, format=form, dpi=150, metadata=metadata)
    return out.getvalue()


def _draw(figure: Figure, found: Heads) -> None:
    grid = figure.add_gridspec(2, 3, width_ratios=[1.05, 1.35, 1])
    figure.suptitle(f"{found.a}..{found.b}: {found.verdict.kind}", x=0.01, ha="left", weight="bold")
    _map(figure, figure.add_subplot(grid[:, 0]), found)
    _curve(figure.add_subplot(grid[:, 1]), found)
    depth = {name: (value, None) for name, value in found.weights.by_depth.items()}
    _bars(figure.add_subplot(grid[0, 2]), "change of the weights by depth", depth)
    of = found.weights
    projections = {name: (value, of.expected[name]) for name, value in of.by_projection.items()}
    _bars(figure.add_subplot(grid[1, 2]), "by projection; line: of all weights", projections)


def _map(figure: Figure, axes: Axes, found: Heads) -> None:
    """Own change by layer and head, on a logarithmic scale; a dot: more than noise, a frame: in the core."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    table = np.full((found.layers, 1 + max(one.head for one in found.heads)), np.nan)
    for one in found.heads:
        table[one.layer, one.head] = one.own if one.own > 0 else np.nan
    seen = table[np.isfinite(table)]
    most = float(seen.max()) if len(seen) else 1.0
    least = max(float(seen.min()), most / 1000) if len(seen) else 0.1
    picture = axes.imshow(
        table, cmap="viridis", norm=LogNorm(least, max(most, 1.01 * least)), aspect="auto", origin="lower"
    )
    bar = figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    ticks = [10.0**k for k in range(-12, 12) if least <= 10.0**k <= most]
    if len(ticks) < 2:  # all heads are within a decade
        ticks = np.geomspace(least, max(most, 1.01 * least), 3).tolist()
    bar.set_ticks(ticks, labels=[f"{one:.2g}" for one in ticks])
    bar.minorticks_off()
    ink = figure.get_facecolor()
    for one in found.heads:
        if one.beyond:
            axes.plot([one.head], [one.layer], marker=".", markersize=3.5, color="white", markeredgewidth=0)
    for one in found.top if found.curve else ():
        box = (one.head - 0.46, one.layer - 0.44)
        axes.add_patch(Rectangle(box, 0.92, 0.88, fill=False, edgecolor="#D55E00", linewidth=1.6))
    axes.set_facecolor(ink)
    axes.set_title("own change; dot: beyond noise, frame: core")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _curve(axes: Axes, found: Heads) -> None:
    """R(k) with its intervals, the random sets of the core's size, and what other parts recover alone."""
    axes.set_title("share of the shift, with B's top k heads in A")
    axes.set_xlabel("k heads")
    if not found.curve:
        axes.text(0.5, 0.5, "the shift may be 0: nothing was grafted", ha="center", transform=axes.transAxes)
        return
    k = [point.k for point in found.curve]
    shares = [point.recovered for point in found.curve]
    bars = [[one.mean - one.low for one in shares], [one.high - one.mean for one in shares]]
    axes.errorbar(
        k, [one.mean for one in shares], bars, marker="o", capsize=2.5, elinewidth=1, label="top k", zorder=4
    )
    core = len(found.top)
    if found.random:
        band = band_of(found.random, found.verdict.thresholds.band)
        axes.plot([core] * len(found.random), found.random, linestyle="none", marker="_", color="C2", markersize=9,
                  label=f"random {core}, layers matched")  # fmt: skip
        axes.axhline(band, color="C2", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    others = (
        ("MLPs", found.mlp),
        ("linear attention", found.linear_attention),
        ("all but heads", found.rest),
    )
    for at, (label, one) in enumerate((label, one) for label, one in others if one is not None):
        x = len(found.heads) * (1.25 + 0.3 * at)
        axes.errorbar(
            [x], [one.mean], _bar(one), marker="s", capsize=2.5, linestyle="none", color="C1", elinewidth=1
        )
        below = at % 2 == 0
        axes.annotate(
            label, (x, one.low if below else one.high), xytext=(6, -4 if below else 4), fontsize=8,
            textcoords="offset points", ha="right", va="top" if below else "bottom",
        )  # fmt: skip
    if found.lost is not None:
        axes.errorbar(
            [core], [found.lost.mean], _bar(found.lost), marker="v", color="C1", capsize=2.5, elinewidth=1,
            linestyle="none", label="lost without the core",
        )  # fmt: skip
    for level in (0, found.verdict.thresholds.localized, 1):
        axes.axhline(level, color=axes.xaxis.label.get_color(), linewidth=0.7, alpha=0.4, zorder=0)
    axes.set_xscale("log")
    axes.minorticks_off()
    apart = [one for one, after in zip(k, [*k[1:], None], strict=True) if after is None or after > 1.6 * one]
    axes.set_xticks(apart, [str(one) for one in apart])
    axes.legend(frameon=False, loc="upper left")


def _bar(one: Interval) -> list[list[float]]:
    return [[one.mean - one.low], [one.high - one.mean]]


def _bars(axes: Axes, title: str, shares: Mapping[str, tuple[float, float | None]]) -> None:
    names = list(shares)
    axes.barh(range(len(names)), [shares[name][0] for name in names], color="C0", height=0.62)
    for at, name in enumerate(names):
        expected = shares[name][1]
        if expected is not None:
            axes.plot([expected, expected], [at - 0.4, at + 0.4], color="C1", linewidth=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)


def _heads(count: int) -> str:
    return "1 head" if count == 1 else f"{count} heads"


def _tables(found: Heads) -> list[Table]:
    tables = []
    if found.curve:
        rows = [[f"top {_heads(point.k)}", _share(point.recovered)] for point in found.curve]
        rows += [
            [label, _share(one)]
            for label, one in (
                ("all MLPs", found.mlp),
                ("all linear attention", found.linear_attention),
                ("all but the heads", found.rest),
                (f"lost by B without the top {len(found.top)}", found.lost),
            )
            if one is not None
        ]
        if found.random:
            ends = f"{100 * min(found.random):.0f} to {100 * max(found.random):.0f} % (all of them)"
            sets = "random set" if len(found.random) == 1 else "random sets"
            rows.append([f"{len(found.random)} {sets} of {_heads(len(found.top))}", ends])
        tables.append(
            Table(
                "Grafts",
                "Share of the shift of the margin, 95 % interval over rows",
                ["B's weights in", "share"],
                rows,
            )
        )
    heads = [
        [
            f"{one.layer}.{one.head}", f"{one.score:+.3f}", f"{one.change:.4f}", f"{one.own:.4f}",
            f"{one.pattern:.4f}", f"{one.p:.2g}", "yes" if one.beyond else "no",
        ]
        for one in found.ranking
    ]  # fmt: skip
    header = ["layer.head", "score, nats", "change", "own change", "pattern", "p", "beyond noise"]
    legend = "By score, a first-order estimate of a head's part of the shift; p: own change against noise of that norm"
    tables.append(Table("All heads", legend, header, heads, folded=True))
    if found.linear:
        header = ["layer", "change", "own change", "recurrent state"]
        legend = "Change of a layer's output, and of its state after the last token"
        tables.append(Table("Linear attention", legend, header, [linear_row(one) for one in found.linear]))
    shares = [
        [name, f"{100 * value:.1f} %"]
        for name, value in (*found.weights.by_depth.items(), *found.weights.by_projection.items())
    ]
    tables.append(
        Table("Where the weights changed", "Shares of the squared norm", ["where", "share"], shares)
    )
    return tables


def linear_row(one: Linear) -> list[str]:
    state = "-" if one.state is None else f"{one.state:.4f}"
    return [str(one.layer), f"{one.change:.4f}", f"{one.own:.4f}", state]


def _how(found: Heads) -> list[tuple[str, str]]:
    lines = found.verdict.thresholds
    return [
        ("shift", f"margin of B minus that of A: {_nats(found.shift)} nats on the rows that test"),
        ("change", "norm of the change of a head's output / its norm in A, at the answers' tokens"),
        (
            "own change",
            "the same of what a head writes, with B's weights of this head on A's residual stream",
        ),
        ("pattern", "total variation between the attention of A and of B, averaged over these tokens"),
        (
            "noise",
            f"{found.settings.noise} draws of Gaussian noise in place of the change, of its norm in each matrix; a "
            f"log-normal for each layer; Benjamini and Hochberg at {100 * lines.fdr:.0f} %",
        ),
        ("rank", "gradient of the margin halfway between A and B, times the change of a head's weights"),
        (
            "graft",
            "A with B's weights in some heads, and in the keys and values that they read, nothing trained again",
        ),
        (
            "random",
            f"{len(found.random)} sets with as many heads in each layer, on {found.random_rows} rows; threshold: "
            f"their {number(100 * lines.band)}th percentile",
        ),
        (
            "verdict",
            "thresholds: " + "; ".join(f"{name} {number(value)}" for name, value in lines.to_json().items()),
        ),
    ]


def _share(one: Interval) -> str:
    return f"{100 * one.mean:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f})"


def _nats(one: Interval) -> str:
    return f"{one.mean:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
