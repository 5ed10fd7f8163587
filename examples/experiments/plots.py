"""How plots look: Okabe and Ito's colours, which the colour-blind can tell apart, and a marker for each as well."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from cycler import cycler

matplotlib.use("Agg")

from matplotlib.figure import Figure

from pv.vecstore.evaluate.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["level", "line", "render", "ticks"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LIGHT = {"ink": "#1f2430", "faint": "#d9dce3", "paper": "#ffffff"}
DARK = {"ink": "#e6e8ee", "faint": "#3b4150", "paper": "#171a21"}
DARK_COLOURS = ("#56B4E9", "#FF9248", "#2CC79A", "#E39CC6", "#F2B632", "#9DB2C4")


def line(
    axes: Axes, x: Sequence[float], found: Sequence[Interval | None], label: str, at: int, *,
    factor: float = 1, style: str = "-", shift: float = 0.0,
) -> None:  # fmt: skip
    """Means with their intervals; what is None is left out. `shift`, in percent of x, keeps bars apart."""
    there = [(place, one) for place, one in zip(x, found, strict=True) if one is not None]
    if not there:
        return
    places = np.array([place for place, _ in there], float)
    places = places * (1 + shift / 100) if axes.get_xscale() == "log" else places + shift / 100
    means = np.array([one.mean for _, one in there]) * factor
    bars = np.array([[one.mean - one.low for _, one in there], [one.high - one.mean for _, one in there]])
    axes.errorbar(
        places, means, np.abs(bars * factor), label=label, color=f"C{at % 6}", marker=MARKERS[at % 6],
        linestyle=style, elinewidth=1, capsize=2.5,
    )  # fmt: skip


def level(axes: Axes, y: float, words: str) -> None:
    """A line that something is held against, named beside the axes, where nothing is drawn over it."""
    ink = matplotlib.rcParams["text.color"]
    axes.axhline(y, color=ink, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.65, zorder=0)
    axes.annotate(
        words, (1, y), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
        ha="left", va="center", fontsize=8, alpha=0.8,
    )  # fmt: skip


def ticks(axes: Axes, places: Sequence[float], words: Sequence[str] | None = None) -> None:
    """At these places alone."""
    axes.set_xticks(list(places), [f"{place:g}" for place in places] if words is None else list(words))
    axes.minorticks_off()


def render(draw: Callable[[Figure], None]) -> dict[str, bytes]:
    """`png`, and `light` and `dark` as SVG: the same bytes for the same figures."""
    found: dict[str, bytes] = {}
    for name, form, dark in (("png", "png", False), ("light", "svg", False), ("dark", "svg", True)):
        with _style(dark=dark):
            figure = Figure(figsize=(9.6, 4.0), layout="constrained")
            draw(figure)
            _legend(figure)
            out = io.BytesIO()
            metadata = {"Software": None} if form == "png" else {"Date": None}
            figure.savefig(out, format=form, dpi=160, metadata=metadata)
        found[name] = out.getvalue()
    return found


def _legend(figure: Figure) -> None:
    """One for all panels, below them."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=min(4, len(entries)),
            frameon=False,
        )


@contextmanager
def _style(*, dark: bool) -> Iterator[None]:
    tone = DARK if dark else LIGHT
    with matplotlib.rc_context({
        "axes.prop_cycle": cycler(color=DARK_COLOURS if dark else COLOURS),
        "figure.facecolor": tone["paper"], "axes.facecolor": tone["paper"], "savefig.facecolor": tone["paper"],
        "text.color": tone["ink"], "axes.labelcolor": tone["ink"], "axes.edgecolor": tone["ink"],
        "xtick.color": tone["ink"], "ytick.color": tone["ink"], "axes.titlecolor": tone["ink"],
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
        "axes.grid": True, "axes.grid.axis": "y", "grid.color": tone["faint"], "grid.linewidth": 0.6,
        "axes.axisbelow": True, "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.labelsize": 9.5,
        "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "lines.linewidth": 1.6,
        "lines.markersize": 5, "font.family": "DejaVu Sans", "svg.hashsalt": "pv", "svg.fonttype": "path",
    }):  # fmt: skip
        yield
