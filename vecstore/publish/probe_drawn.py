"""A figure of a probe as a PNG, and as an SVG for a light page and for a dark one. Drawn by matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pv.vecstore.publish.html_page import Picture
from pv.vecstore.publish.steering_plot import need_matplotlib, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pv.vecstore.evaluate.statistics import Interval

__all__ = ["Draw", "bars", "picture", "png"]

Draw = Callable[["Figure"], None]


def png(draw: Draw, size: tuple[float, float]) -> bytes:
    """Raises UsageError without matplotlib."""
    return _render(draw, size, "png", dark=False)


def picture(draw: Draw, size: tuple[float, float], alt: str) -> Picture:
    """Raises UsageError without matplotlib."""
    return Picture(_render(draw, size, "svg", dark=False), _render(draw, size, "svg", dark=True), alt)


def bars(axes: Axes, found: Sequence[tuple[str, Interval | None]], *, factor: float = 1.0) -> None:
    """A point with its interval for each name, one below the other; what is None has a name alone."""
    for at, (_, one) in enumerate(found):
        if one is not None:
            ends = [[factor * (one.mean - one.low)], [factor * (one.high - one.mean)]]
            axes.errorbar(
                [factor * one.mean],
                [at],
                xerr=ends,
                fmt="o",
                color=f"C{at % 4}",
                capsize=3,
                elinewidth=1.5,
            )
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    axes.set_ylim(len(found) - 0.5, -0.5)


def _render(draw: Draw, size: tuple[float, float], form: str, *, dark: bool) -> bytes:
    need_matplotlib()
    from matplotlib.figure import Figure

    with style(dark=dark):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # of a name in letters that the font lacks
            figure.savefig(out, format=form, dpi=160, metadata=metadata)
    return out.getvalue()
