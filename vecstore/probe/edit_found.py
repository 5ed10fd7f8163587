"""What an edit did beside the trained change: effects, how far they carry over, damage, and how sharp each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.edit_verdict import Claim
from pv.vecstore.probe.values import read, written

__all__ = ["Arm", "Edits", "Norms", "Sharp", "Used", "counted"]


class _Reworded(TypedDict, total=False):
    of: int


class Used(_Reworded):
    """Rows of a probe; `of`: of paraphrases, how many of the held-out rows they re-word."""

    name: str
    id: str
    n: int


class Norms(TypedDict):
    edit: float
    trained: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One change at one strength. Effects in nats, damage and KL in nats a token of the neighbours.

    `paraphrases` is the mean over rows of the mean over their paraphrases, `transfer` that share of the effect on these
    rows; None without paraphrases, and `transfer` also where the effect is not above 0 for certain. `opening` is what
    the first 16 tokens of neighbouring answers lost: None where they have no answers.
    """

    name: str
    change: str  # "trained" or "edit"
    strength: float
    effect: Interval
    paraphrases: Interval | None
    transfer: Interval | None
    damage: Interval
    kl: Interval
    opening: Interval | None


@dataclass(frozen=True, slots=True)
class Sharp:
    """Noise of `share` times the change's norm beside it: the effect that is left, and the share that was lost."""

    name: str
    share: float
    effect: Interval
    lost: Interval | None


@dataclass(frozen=True, slots=True)
class Edits:
    """`claims` by at which strengths the two are compared; none without paraphrases.

    `tried`: the layers of a sweep, each with the edit's effect on training rows. `norms` and `loss` are of the change
    and of the gradient that found the edit's value.
    """

    probe: str
    what: str
    layer: int
    layers: int
    tried: tuple[tuple[int, float], ...]
    data: Mapping[str, Used]  # rows, training, paraphrases, neighbours
    norms: Norms
    loss: tuple[float, float]
    arms: tuple[Arm, ...]
    claims: Mapping[str, Claim]
    sharpness: tuple[Sharp, ...]
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return written(self)

    @staticmethod
    def from_json(document: object) -> Edits:
        """Raises FormatError."""
        return read(Edits, document)


def counted(data: Mapping[str, Used]) -> str:
    """Which rows there were, in words: in one order, also of a record, whose keys are sorted."""
    order = ("rows", "training", "paraphrases", "neighbours")
    return ", ".join(_counted(name, data[name]) for name in order if name in data)


def _counted(name: str, one: Used) -> str:
    """Paraphrases with the number of the held-out rows that they re-word."""
    of = f" of {one['of']} rows," if "of" in one else " of"
    return f"{one['n']} {name}{of} {one['name']}"
