"""What `pv probe concept` finds: directions, weights, and length of a behaviour, and how JSON has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.elbow import Elbow
from pv.vecstore.probe.gain import Gains
from pv.vecstore.probe.length import Length
from pv.vecstore.probe.values import read, unlike

__all__ = ["OF", "Concept", "Effects", "Layer", "Of", "Step"]

Of = Literal["change", "pairs"]
OF: Mapping[Of, str] = {
    "change": "B's activations minus A's, on the same texts: what training changed",
    "pairs": "A's activations on chosen answers minus those on rejected ones: the concept as A has it",
}
SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that was looked at. `tried`: the effect of the mean difference there, on the rows that chose; None
    where nothing was to be chosen. `relative`: the mean difference's norm over that of A's activations."""

    site: str
    layer: int
    n95: int
    kept: int
    first: float
    norm: float
    relative: float
    tried: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """A steered with the mean difference's part in the first `components` components. `share`: of the effect of the
    whole mean difference."""

    components: int
    effect: Interval
    share: Interval | None


@dataclass(frozen=True, slots=True)
class Effects:
    """On held-out rows, margins in nats minus A's. `whole` is B's; `steered` that of the mean difference, and `share`
    how much of `whole` it is. `random`: directions of the same norm, drawn with A's activations' covariance."""

    whole: Interval
    steered: Interval
    share: Interval | None
    steps: tuple[Step, ...]
    random: tuple[float, ...]

    @property
    def enough(self) -> int | None:
        """The fewest components with 95 % of the effect; None where the effect is not `certain`."""
        if not self.certain:
            return None
        good = [one.components for one in self.steps if one.share is not None and one.share.mean >= SHARE]
        return min(good, default=None)

    @property
    def certain(self) -> bool:
        """Above 0 for certain, and above that of all random directions: of that alone see `chance`."""
        return self.steered.low > 0 and self.steered.mean > max(self.random, default=0.0)

    @property
    def chance(self) -> float:
        """How likely one more random direction is above all of them: the least p that so few can give."""
        return 1 / (len(self.random) + 1)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "enough": self.enough, "certain": self.certain}

    @staticmethod
    def from_json(document: object) -> Effects:
        """Raises FormatError, also where nothing was steered."""
        made = read(Effects, document)
        if not made.steps:
            raise unlike("effects.steps")
        return made


@dataclass(frozen=True, slots=True)
class Concept:
    """`probe` is the record's id; a, b what was compared. Directions are of `pairs` rows of `source`, effects are on
    `rows` others, of `data`. What was not asked for, or makes no sense of these builds, is None, and `notes` say so."""

    probe: str
    a: str
    b: str
    of: Of
    data: str
    rows: int
    source: str
    pairs: int
    coefficient: float
    seed: int
    layers: tuple[Layer, ...]
    elbow: Elbow
    effects: Effects | None = None
    gains: Gains | None = None
    length: Length | None = None
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """How many directions it is, in a sentence."""
        elbow = self.elbow
        if elbow.verdict == "none":
            chance = "random labels" if self.of == "pairs" else "random signs"
            return f"no direction: {chance} or noise do as well"
        above = f"{elbow.kept} component{'s' if elbow.kept > 1 else ''} above chance"
        if self.of == "change":
            above = f"{above}, {elbow.kept - 1 or 'none'} beyond a common shift"
        if elbow.rises:
            said = f"no elbow: {above}, and N95, {elbow.n95} here, still grows with the number of pairs"
        else:
            said = f"{above}, N95 {elbow.n95}"
        enough = self.effects.enough if self.effects else None
        if enough is None:
            return said
        first = "the first alone carries" if enough == 1 else f"the first {enough} carry"
        return f"{said}; {first} 95 % of the mean difference's effect"

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        parts = {key: getattr(self, key) for key in ("elbow", "effects", "gains", "length")}
        made = {key: None if part is None else part.to_json() for key, part in parts.items()}
        return {**found, **made, "headline": self.headline}

    @staticmethod
    def from_json(document: object) -> Concept:
        """Raises FormatError."""
        made = read(Concept, document)
        for part in (made.elbow, made.effects, made.gains):
            if part is not None:
                part.from_json(part.to_json())
        return made
