"""A sweep as a picture: effect and damage by layer and coefficient, and the dose curves of the best three layers.

Drawn by matplotlib, which is asked for when a picture is.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.vecstore.evaluate.steering_sweep import BREAKS, LIMIT, Cell, Place, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["best_places", "need_matplotlib", "png", "style", "svg"]

BEST = 3
SHIFT = 0.05
CURVES = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
)  # Okabe and Ito's, which the colour-blind can tell apart
DARK_CURVES = ("#56B4E9", "#FF9248", "#2CC79A", "#E39CC6")
MARKERS = ("o", "s", "^")
LIGHT = {"ink": "#1f2430", "faint": "#d9dce3", "paper": "#ffffff"}
DARK = {"ink": "#e6e8ee", "faint": "#3b4150", "paper": "#171a21"}
MOST_NUMBERS = 160  # cells in which their numbers are written
WIDTH, ROW, CURVES_HEIGHT = 11.0, 0.3, 3.4  # inches


def need_matplotlib() -> None:
    """Raises UsageError where it is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "a plot is drawn by matplotlib, and matplotlib is not installed",
            hint="pip install 'personavec[plots]'",
        ) from error


def png(sweep: Sweep) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(sweep, "png", dark=False)


def svg(sweep: Sweep, *, dark: bool) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(sweep, "svg", dark=dark)


def best_places(sweep: Sweep) -> list[Place]:
    """The sites with the largest effects where text is not broken, at most three; in the order of the sweep."""

    def largest(place: Place) -> float:
        return max((c.effect.mean for c in sweep.at(place) if not c.is_broken), default=float("-inf"))

    best = sorted(sweep.places, key=largest, reverse=True)[:BEST]
    return [place for place in sweep.places if place in best]


def _render(sweep: Sweep, form: str, *, dark: bool) -> bytes:
    need_matplotlib()
    from matplotlib.figure import Figure

    with style(dark=dark):
        rows = max(2.4, ROW * len(sweep.places) + 1.2)
        figure = Figure(figsize=(WIDTH, rows + CURVES_HEIGHT + 0.5), layout="constrained")
        _draw(figure, sweep, rows)
        out = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # of a name in letters that the font lacks
            figure.savefig(out, format=form, dpi=160, metadata=metadata)
    return out.getvalue()


def _draw(figure: Figure, sweep: Sweep, rows: float) -> None:
    grid = figure.add_gridspec(2, 2, height_ratios=[rows, CURVES_HEIGHT])
    figure.suptitle(f"{sweep.name}: {sweep.rows} rows of {sweep.data}", x=0.01, ha="left", weight="bold")
    effects, costs = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    most = max((abs(c.effect.mean) for c in sweep.cells if not c.is_broken), default=0) or 1
    _heat(
        figure,
        effects,
        sweep,
        lambda c: c.effect.mean,
        "effect, nats",
        ("PuOr_r", -1.3 * most, 1.3 * most),
        1,
    )
    _heat(
        figure, costs, sweep, lambda c: c.cost.mean if c.cost else float("nan"),
        f"damage on {sweep.cost_of}, nats a token (at most {sweep.limit:g} is wanted)", ("OrRd", 0, BREAKS), 2,
    )  # fmt: skip
    costs.set_ylabel("")
    best = best_places(sweep)
    gains, losses = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    for at, place in enumerate(best):
        _curve(gains, sweep, place, at, lambda c: c.effect)
        _curve(losses, sweep, place, at, lambda c: c.cost)
    _curve_axes(gains, sweep, "effect, nats, 95 % interval", [0])
    _curve_axes(
        losses, sweep, f"damage on {sweep.cost_of}, nats a token, 95 % interval", [0, sweep.limit, BREAKS]
    )
    even = sweep.limit or LIMIT
    losses.set_yscale("symlog", linthresh=even)
    low, high = losses.dataLim.intervaly
    losses.set_ylim(min(1.5 * low, -0.2 * even), max(1.5 * high, 1.5 * even))
    losses.set_yticks(*_ticks(losses, even))
    losses.minorticks_off()
    _legend(figure, gains, sweep)


def _heat(
    figure: Figure,
    axes: Axes,
    sweep: Sweep,
    number: Callable[[Cell], float],
    title: str,
    colours: tuple[str, float, float],
    digits: int,
) -> None:
    import numpy as np

    steps, places = sweep.coefficients, sweep.places
    table = np.array([[number(sweep.cell(place.site, c)) for c in steps] for place in places])
    name, low, high = colours
    picture = axes.imshow(table, cmap=name, vmin=low, vmax=high, aspect="auto", origin="lower")
    extend = ("min" if np.nanmin(table) < low else "") + ("max" if np.nanmax(table) > high else "")
    bar = figure.colorbar(
        picture,
        ax=axes,
        extend={"": "neither", "minmax": "both"}.get(extend, extend),
        fraction=0.05,
        pad=0.02,
    )
    bar.outline.set_visible(False)
    axes.set_title(title)
    axes.set_xticks(range(len(steps)), [_minus(f"{c:g}") for c in steps])
    axes.set_yticks(range(len(places)), [place.words for place in places])
    axes.set_xlabel("coefficient")
    axes.set_ylabel("layer" if all(place.words.isdigit() for place in places) else "site")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for y, place in enumerate(places):
        for x, c in enumerate(steps):
            _mark(axes, x, y, sweep, sweep.cell(place.site, c), table[y, x], picture, digits)


def _mark(
    axes: Axes, x: int, y: int, sweep: Sweep, cell: Cell, number: float, picture: Any, digits: int
) -> None:
    """The number of a cell, a hatch over what is broken, and a frame around what is suggested."""
    from matplotlib.patches import Rectangle

    red, green, blue, _ = picture.cmap(picture.norm(number))
    ink = LIGHT["ink"] if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else LIGHT["paper"]
    if cell.is_broken:
        box = Rectangle(
            (x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", edgecolor=ink, linewidth=0, alpha=0.35
        )
        axes.add_patch(box)
    if len(sweep.cells) <= MOST_NUMBERS:
        text = f"{number:+.{digits}f}" if digits == 1 else f"{number:.{digits}f}".replace("-0.00", "0.00")
        axes.text(x, y, _minus(text), ha="center", va="center", fontsize=8, color=ink)
    if sweep.suggestion is not None and sweep.suggestion.cell == cell:
        frame = Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor=ink, linewidth=2.2)
        axes.add_patch(frame)


def _curve(axes: Axes, sweep: Sweep, place: Place, at: int, of: Callable[[Cell], Any]) -> None:
    """One site's cells by coefficient; 0, where nothing is added, is a point too. Where text breaks, a cross."""
    found = {cell.coefficient: of(cell) for cell in sweep.at(place) if of(cell) is not None}
    steps = sorted([*found, 0.0])
    aside = SHIFT * (at - 1)  # so that intervals are beside each other
    x = [_place(c, sweep) + (aside if c else 0) for c in steps]
    means = [found[c].mean if c else 0.0 for c in steps]
    bars = [[found[c].mean - found[c].low if c else 0.0 for c in steps],
            [found[c].high - found[c].mean if c else 0.0 for c in steps]]  # fmt: skip
    label = f"layer {place.words}" if place.words.isdigit() else place.words
    axes.errorbar(
        x, means, bars, label=label, color=f"C{at}", marker=MARKERS[at], elinewidth=1, capsize=2.5
    )  # fmt: skip
    broken = [cell for cell in sweep.at(place) if cell.is_broken and cell.coefficient in found]
    axes.plot(
        [_place(cell.coefficient, sweep) + aside for cell in broken],
        [of(cell).mean for cell in broken], linestyle="none",
        marker="x", markersize=11, markeredgewidth=2, color=f"C{at}",
    )  # fmt: skip
    chosen = sweep.suggestion.cell if sweep.suggestion else None
    if chosen is not None and chosen.place == place:
        axes.plot(
            [_place(chosen.coefficient, sweep) + aside], [of(chosen).mean], marker="*", markersize=17, color=f"C{at}",
            markeredgecolor="white", markeredgewidth=1, zorder=5,
        )  # fmt: skip


def _place(coefficient: float, sweep: Sweep) -> float:
    """Where a coefficient stands: evenly spread, 0 among them."""
    return sorted([*sweep.coefficients, 0.0]).index(coefficient)


def _curve_axes(axes: Axes, sweep: Sweep, title: str, levels: Sequence[float]) -> None:
    import matplotlib as mpl

    steps = sorted([*sweep.coefficients, 0.0])
    axes.set_title(title)
    axes.set_xticks(range(len(steps)), [_minus(f"{c:g}") for c in steps])
    axes.set_xlabel("coefficient")
    for level in levels:
        axes.axhline(
            level, color=mpl.rcParams["text.color"], linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6, zorder=0
        )


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _ticks(axes: Axes, limit: float) -> tuple[list[float], list[str]]:
    """Readable places on a scale that is even around 0 and logarithmic beyond the limit."""
    low, high = axes.get_ylim()
    sizes = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 50, 100)
    every = sorted({*sizes, *(-size for size in sizes), 0, limit})
    places = [one for one in every if low <= one <= high and (one == 0 or abs(one) >= limit)]
    return places, [_minus(f"{one:g}") for one in places]


def _legend(figure: Figure, axes: Axes, sweep: Sweep) -> None:
    import matplotlib as mpl
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    ink = mpl.rcParams["text.color"]
    if any(cell.is_broken for cell in sweep.cells):
        handles.append(
            Line2D([], [], linestyle="none", marker="x", markersize=9, markeredgewidth=2, color=ink)
        )
        labels.append("text is broken (hatched above)")
    if sweep.suggestion is not None:
        handles.append(Line2D([], [], linestyle="none", marker="*", markersize=13, color=ink))
        labels.append("suggested (framed above)")
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)


@contextmanager
def style(*, dark: bool) -> Iterator[None]:
    import matplotlib as mpl
    from cycler import cycler

    tone = DARK if dark else LIGHT
    with mpl.rc_context({
        "axes.prop_cycle": cycler(color=DARK_CURVES if dark else CURVES),
        "figure.facecolor": tone["paper"], "axes.facecolor": tone["paper"], "savefig.facecolor": tone["paper"],
        "text.color": tone["ink"], "axes.labelcolor": tone["ink"], "axes.edgecolor": tone["ink"],
        "xtick.color": tone["ink"], "ytick.color": tone["ink"], "axes.titlecolor": tone["ink"],
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": tone["faint"], "grid.linewidth": 0.6,
        "axes.axisbelow": True, "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.labelsize": 9.5,
        "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "lines.linewidth": 1.6,
        "lines.markersize": 5, "figure.titlesize": 12, "hatch.linewidth": 0.8, "font.family": "DejaVu Sans",
        "svg.hashsalt": "pv", "svg.fonttype": "path", "text.parse_math": False,
    }):  # fmt: skip
        yield
