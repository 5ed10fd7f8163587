"""What `probe edit` found as a picture, and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.edit_found import Edits, counted
from pv.vecstore.publish import probe_drawn
from pv.vecstore.publish.figures import interval
from pv.vecstore.publish.html_page import Table, Verdict
from pv.vecstore.publish.html_page import page as frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["arm_rows", "claim_words", "page", "png", "sharp_rows"]

SIZE = (11.0, 3.4)
EQUAL = "at equal effect"
HEADER = ("change", "strength", "effect, nats", "on paraphrases, nats", "carries over, %", "damage", "KL")
SHARP_HEADER = ("change", "noise / change, norms", "effect, nats", "lost, %")
LEGEND = (
    "95 % intervals. effect: margin on the held-out rows above that of A. carries over: effect on paraphrases / effect "
    "on the rows that they re-word. damage: log-likelihood that neighbours lost, and KL(A || changed), nats a token, "
    "without the first 16 tokens of answers"
)
HOW = (
    (
        "edit",
        "ROME's closed form at one layer's down projection: W' = W + (v* - W k*) (C⁻¹ k*)ᵀ / ((C⁻¹ k*)ᵀ k*)",
    ),
    ("k*", "the projection's mean input at the deciding token of the training rows"),
    (
        "v*",
        "by gradient: makes the tokens that differ from the rejected answer likely, and keeps neutral answers",
    ),
    (
        "at its best",
        "the smallest strength that has the trained change's effect, or 95 % of its own largest, on some 16 training "
        "rows (up to 31)",
    ),
    ("weakened", "the trained change scaled to the edit's effect on those rows, and on no others"),
    (
        "paraphrases",
        "averaged by the row that they re-word; rows are resampled whole, for both changes together",
    ),
    ("noise", "Gaussian, in the tensors of the change, with so many times its norm in each"),
)


def png(found: Edits) -> bytes:
    """Raises UsageError without matplotlib."""
    return probe_drawn.png(lambda figure: _draw(figure, found), SIZE)


def page(found: Edits, command: str | None = None) -> str:
    """`command` made it, as it was typed. Raises UsageError without matplotlib."""
    alt = "effect, transfer to paraphrases and damage of the trained change and of the edit, with intervals"
    claim = found.claims.get(EQUAL)
    return frame(
        f"A rank-one edit beside {found.what}",
        f"What training changed everywhere against an edit of one matrix in layer {found.layer} of {found.layers}.",
        verdict=None
        if claim is None
        else Verdict(
            f"The trained change carries over further: {claim.verdict}",
            tuple(claim_words(found)),
            claim.verdict != "inconclusive",
        ),
        notes=found.notes,
        pictures=[probe_drawn.picture(lambda figure: _draw(figure, found), SIZE, alt)],
        tables=[
            Table("Both changes", LEGEND, HEADER, list(arm_rows(found))),
            Table(
                "With noise added",
                "the share of the effect that noise takes away",
                SHARP_HEADER,
                sharp_rows(found),
            ),
        ],
        how=HOW,
        command=command or f"pv probe edit {found.what} --layer {found.layer}",
        footer=f"probe {found.probe}; {counted(found.data)}",
    )


def arm_rows(found: Edits) -> Iterator[list[str]]:
    for arm in found.arms:
        yield [
            arm.name, f"{arm.strength:g}", _said(arm.effect), _said(arm.paraphrases), _said(arm.transfer, 0, 100),
            _said(arm.damage, 3), _said(arm.kl, 3),
        ]  # fmt: skip


def sharp_rows(found: Edits) -> list[list[str]]:
    return [
        [one.name, f"{one.share:g}", _said(one.effect), _said(one.lost, 0, 100)] for one in found.sharpness
    ]


def claim_words(found: Edits) -> Iterator[str]:
    """The claim, as made and at equal effect."""
    for name, claim in found.claims.items():
        by = "" if claim.difference is None else f": {_said(claim.difference, 0, 100)} percentage points"
        yield f"{name}: {claim.verdict}{by} ({claim.why})"
        if (matched := _matched(found)) and name == EQUAL:
            yield matched


def _matched(found: Edits) -> str:
    """How equal the two effects are on the rows that did not choose the strengths."""
    arms = [found.arm(name) for name in ("trained, weakened", "edit at its best")]
    each = [f"{arm.name} {_said(arm.effect)}" for arm in arms if arm is not None]
    if len(each) < len(arms):
        return ""
    return f"effects on held-out rows, matched on training rows only: {'; '.join(each)} nats"


def _said(one: Interval | None, digits: int = 2, factor: float = 1.0) -> str:
    return "-" if one is None else interval(factor * one.mean, factor * one.low, factor * one.high, digits)


def _draw(figure: Figure, found: Edits) -> None:
    left, middle, right = figure.subplots(1, 3, sharey=True)
    figure.suptitle(
        f"{found.what}: trained, and edited in layer {found.layer}", x=0.01, ha="left", weight="bold"
    )
    probe_drawn.bars(left, [(arm.name, arm.effect) for arm in found.arms])
    probe_drawn.bars(middle, [(arm.name, arm.transfer) for arm in found.arms], factor=100)
    probe_drawn.bars(right, [(arm.name, arm.damage) for arm in found.arms])
    left.set_title("effect on held-out rows, nats")
    middle.set_title("carries over to paraphrases, %")
    right.set_title("damage on neighbours, nats a token")
