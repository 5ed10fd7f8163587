"""pv forecast"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option
from pv.cli.render import table

if TYPE_CHECKING:
    from pv.vecstore.forecast.calibration import Predicted
    from pv.vecstore.forecast.forecast import Forecast

__all__ = ["command"]


@click.command("forecast", short_help="Forecast what behaviours would keep of their effects.")
@click.argument("behaviours", metavar="[REV:]NAME [REV:]NAME ...", nargs=-1, required=True)
@click.option("--calibration", metavar="FILE", help="Use these coefficients, not those that come with pv.")
@json_option
@pass_app
def command(app: App, behaviours: tuple[str, ...], calibration: str | None, as_json: bool) -> None:
    """Forecast, for every two of the behaviours, the share of its effect that each would keep if both were added at
    weight 1: on average of the two, and the lower one. No rows and no model are needed, and the vectors' data only
    where a vector has no sketch yet.

    "Don't know" is an answer: of vectors that pv did not train, of another base, and
    of all that is unlike what was measured. docs/forecast.md says what that was, and how well it ranked.

    \b
    pv forecast pirate listening
    pv forecast pirate stranger:formal stranger:terse
    """
    file = None if calibration is None else app.file(calibration)
    with app.progress() as progress:
        found = app.repo().forecast(*behaviours, calibration=file, progress=progress)
    if as_json:
        app.json(found)
        return
    app.page("\n".join(_lines(found)))


def _lines(found: Forecast) -> list[str]:
    rows = [
        [
            f"{pair.a} + {pair.b}",
            _share(pair.mean),
            _share(pair.least),
            "unknown" if pair.cosine is None else f"{pair.cosine:+.2f}",
        ]
        for pair in found.pairs
    ]
    header = ["added up", "kept on average", "the lower of the two", "cosine"]
    lines = [table(header, rows), ""]
    lines += [f"{pair.a} + {pair.b}: don't know: {pair.unknown}" for pair in found.pairs if pair.unknown]
    own = found.calibration
    if own is not None:
        ranked = own.models["least"].spearman
        lines += [
            f"calibrated on {own.on}: {own.pairs} pairs; intervals held {100 * own.level:.0f} % of them",
            f"rank correlation with what the lower one kept, pairs left out: {_ends(ranked)}; "
            f"of the cosine alone: {_ends(own.baseline['least'])}",
        ]
    return lines


def _share(predicted: Predicted | None) -> str:
    if predicted is None:
        return "don't know"
    return f"{100 * predicted.kept:.0f} % [{100 * predicted.low:.0f}, {100 * predicted.high:.0f}]"


def _ends(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"
