"""A probe of a concept as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pv.cli.app import short
from pv.cli.render import counted, table
from pv.cli.say import plain
from pv.registry.words import size
from pv.vecstore.probe.concept import OF
from pv.vecstore.publish.probe_concept import (
    BOUND,
    GAIN_HEADER,
    LAYER_HEADER,
    LENGTH_HEADER,
    STEP_HEADER,
    beside_random,
    gain_rows,
    labels_words,
    layer_rows,
    length_rows,
    share_words,
    step_rows,
    weights_words,
)

if TYPE_CHECKING:
    from pv.vecstore.probe.concept import Concept, Effects
    from pv.vecstore.probe.gain import Gains
    from pv.vecstore.probe.length import Length

__all__ = ["lines"]


def lines(found: Concept) -> Iterator[str]:
    """Directions, their effect, weights, and length."""
    elbow = found.elbow
    yield plain(
        f"{found.a}..{found.b}: {counted(found.pairs, 'difference')} of {found.source}, effects on "
        f"{counted(found.rows, 'row')} of {found.data}"
    )
    yield plain(OF[found.of])
    yield ""
    yield table(LAYER_HEADER, layer_rows(found))
    yield plain(f"* shown: {elbow.site}")
    yield ""
    yield plain(found.headline)
    yield _growth(found)
    yield ": ".join(labels_words(found))
    if elbow.same is not None:
        yield f"{counted(elbow.same.kept, 'component')} above differences of texts with the same label"
    if found.effects is not None:
        yield ""
        yield from _effects(found, found.effects)
    if found.gains is not None:
        yield ""
        yield from _gains(found, found.gains)
    if found.length is not None:
        yield ""
        yield from _length(found.length)
    yield ""
    yield f"probe {short(found.probe)}"


def _growth(found: Concept) -> str:
    steps = ", ".join(
        f"{one.mean:.3g} of {one.pairs} pairs (noise {one.noise:.3g})" for one in found.elbow.growth
    )
    return f"N95: {steps}"


def _effects(found: Concept, effects: Effects) -> Iterator[str]:
    yield table(STEP_HEADER, step_rows(found))
    if not effects.certain:
        yield "the mean difference's effect is not surely above 0 or above random directions': shares of it mean little"
    elif effects.share is not None:
        yield plain(f"the mean difference gives {share_words(effects.share)} of the effect of {found.b}")
    if effects.random:
        yield beside_random(effects)


def _gains(found: Concept, gains: Gains) -> Iterator[str]:
    yield table(GAIN_HEADER, gain_rows(found))
    yield weights_words(gains)
    more = {null: one.more for null, one in gains.shares.items()}
    if not any(more.values()):
        yield "no more weights read or write it than random directions"
    if gains.left_out:
        more_of_them = f" and {len(gains.left_out) - 4} more" if len(gains.left_out) > 4 else ""
        named = f"{', '.join(gains.left_out[:4])}{more_of_them}"
        yield plain(f"left out (no matrix of the residual stream, or what the first layer reads): {named}")


def _length(length: Length) -> Iterator[str]:
    yield table(LENGTH_HEADER, length_rows(length))
    best = length.smallest()
    if best is None:
        yield "no smaller encoding does the same, or the behaviour's effect here is not surely above 0"
    else:
        yield plain(f"smallest that does the same: {best.encoding}, {size(best.stored_bytes)}; {BOUND}")
