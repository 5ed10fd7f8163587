"""What `pv probe edit` found, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pv.cli.render import table
from pv.cli.say import plain
from pv.vecstore.probe.edit_found import counted
from pv.vecstore.publish.probe_edit import HEADER, LEGEND, SHARP_HEADER, arm_rows, claim_words, sharp_rows

if TYPE_CHECKING:
    from pv.vecstore.probe.edit_found import Edits

__all__ = ["lines"]


def lines(found: Edits) -> Iterator[str]:
    """Both changes at both strengths, the claim, and how sharp each is."""
    yield plain(
        f"{found.what}: a rank-one edit of layer {found.layer} of {found.layers} beside what was trained"
    )
    yield plain(counted(found.data))
    first, last = found.loss
    norms = found.norms
    yield (
        f"norm of the change: trained {norms['trained']:.3g}, edit {norms['edit']:.3g}; loss while v* was optimized: "
        f"{first:.2f} to {last:.2f} nats a token"
    )
    if found.tried:
        yield "layers tried, effect on training rows in nats: " + ", ".join(
            f"{layer} {effect:+.2f}" for layer, effect in found.tried
        )
    yield ""
    yield table(HEADER, arm_rows(found))
    yield LEGEND
    yield ""
    if found.sharpness:
        yield table(SHARP_HEADER, sharp_rows(found))
        yield ""
    if found.claims:
        yield "claim: the trained change carries over further than the edit"
        for line in claim_words(found):
            yield plain(f"  {line}")
