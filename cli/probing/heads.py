"""What `pv probe heads` found, as text: the verdict, what grafts recover, the top heads, and where the change is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pv.cli.app import short
from pv.cli.render import counted, table
from pv.cli.say import plain
from pv.cli.scores import nats
from pv.vecstore.probe.error_rate import error_rate_words
from pv.vecstore.probe.verdict import band_of
from pv.vecstore.publish.probe_heads import linear_row

if TYPE_CHECKING:
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.probe.heads import Heads

__all__ = ["lines"]

SHOWN = 12


def lines(found: Heads) -> Iterator[str]:
    yield plain(
        f"heads of {found.a}..{found.b}, {counted(len(found.heads), 'head')} in {counted(found.layers, 'layer')}, on "
        f"{found.ranked} rows that rank and {found.tested} that test, of {found.data}"
    )
    yield f"shift of the margin: {nats(found.shift)} nats, {counted(found.shift.n, 'row')}, 95 % interval"
    yield ""
    yield click.style(f"verdict: {found.verdict.kind}", bold=True)
    for reason in found.verdict.reasons:
        yield f"  {reason}"
    yield f"  {error_rate_words()}"
    yield ""
    if found.curve:
        yield from _grafts(found)
        yield ""
    yield from _top(found)
    yield ""
    yield from _weights(found)
    if found.probe:
        yield f"probe {short(found.probe)}"


def _grafts(found: Heads) -> Iterator[str]:
    core = len(found.top)
    rows = [
        [f"top {counted(point.k, 'head')}{', the core' if point.k == core else ''}", _share(point.recovered)]
        for point in found.curve
    ]
    for label, one in (
        ("all MLPs", found.mlp),
        ("all linear attention", found.linear_attention),
        ("all but the heads", found.rest),
    ):
        if one is not None:
            rows.append([label, _share(one)])
    yield table(["A with B's weights in", "share of the shift, 95 % interval"], rows)
    if found.lost is not None:
        yield f"B without the core's change loses {_share(found.lost)} of it"
    p = found.random_p
    if found.random and found.beside is not None and p is not None:
        band = band_of(found.random, found.verdict.thresholds.band)
        yield (
            f"{counted(len(found.random), 'random set')} of {counted(core, 'head')}, layers matched, on "
            f"{found.random_rows} rows: {100 * min(found.random):.0f} to {100 * max(found.random):.0f} %, threshold "
            f"{100 * band:.0f} %; the core on these rows {100 * found.beside.mean:.0f} %, p = {p:.3f}, with so few "
            f"at least {1 / (1 + len(found.random)):.3f}"
        )


def _top(found: Heads) -> Iterator[str]:
    yield (
        f"heads that changed by more than noise: {found.beyond} of {len(found.heads)} (false discovery rate "
        f"{100 * found.verdict.thresholds.fdr:.0f} %)"
    )
    rows = [
        [
            f"{one.layer}.{one.head}",
            f"{one.score:+.2f}",
            f"{one.change:.3f}",
            f"{one.own:.3f}{' *' if one.beyond else '  '}",
            f"{one.pattern:.3f}",
        ]
        for one in found.ranking[:SHOWN]
    ]
    yield table(["layer.head", "score, nats", "change", "own change", "pattern"], rows)
    yield "  *  more than noise   score: first-order estimate of its part of the shift; ranks the heads"
    if found.linear:
        yield ""
        yield table(
            ["linear attention in layer", "change", "own change", "state"], map(linear_row, found.linear)
        )


def _weights(found: Heads) -> Iterator[str]:
    of = found.weights
    yield f"change of the weights: norm {of.norm:.3g}, {100 * of.relative:.2f} % of A's; below, shares of its square"
    yield table(["by depth", "share"], [[name, _percent(value)] for name, value in of.by_depth.items()])
    yield table(
        ["by projection", "share", "of all weights"],
        [[name, _percent(value), _percent(of.expected[name])] for name, value in of.by_projection.items()],
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _share(one: Interval) -> str:
    return f"{100 * one.mean:.0f} %, {100 * one.low:.0f} to {100 * one.high:.0f}"
