"""What `pv probe neurons` found, as frozen values: to JSON and back, so that a record is drawn without running."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.neurons_rank import METHODS
from pv.vecstore.probe.values import read, unlike, written

__all__ = [
    "JUDGED",
    "OFF_TARGET",
    "SCOPES",
    "SHARED",
    "Claim",
    "Curve",
    "Direction",
    "Half",
    "Neuron",
    "Neurons",
    "OffTarget",
    "Point",
    "ScopeFound",
]

SCOPES = ("layer", "late", "all")
JUDGED = SCOPES[
    1:
]  # the layer is chosen by delta x gradient itself, on rows that would be judged: it is shown only
SHARED = (*METHODS, "fixed")
OFF_TARGET = ("delta*grad", "fixed", "random", "directions", "full", "b")
Verdict = Literal["held", "did not hold", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Point:
    """k neurons patched. `margin` in nats; `effect`: margin less A's; `share`: of what the whole scope's patch does,
    None where that is not surely above 0; `flips`: rows whose margin is above 0 and whose likeliest token is the chosen
    one's, of several draws their mean alone; `linear`: effect over the sum of delta x gradient. `cosine` and `moved`:
    drift. `patched`: the mean number of neurons, fewer than k where fewer have a score above 0."""

    k: int
    patched: float
    margin: Interval
    effect: Interval
    share: Interval | None
    flips: Interval | float
    linear: Interval | None
    cosine: float | None
    moved: float | None


@dataclass(frozen=True, slots=True)
class Half:
    """The k at which the mean effect is half of the ceiling, between grid points by logarithm. Not `reached`: more."""

    k: float
    low: float
    high: float
    reached: bool


@dataclass(frozen=True, slots=True)
class Curve:
    method: str
    points: tuple[Point, ...]
    k50: Half | None


@dataclass(frozen=True, slots=True)
class Direction:
    """`rank` directions and alpha, chosen on the first rows; the rest is of the others. `plain`: the share at alpha 1.
    `variance`: of their deltas, how much lies along the directions."""

    rank: int
    alpha: float
    effect: Interval
    share: Interval | None
    plain: Interval | None
    flips: Interval
    variance: float


@dataclass(frozen=True, slots=True)
class OffTarget:
    """KL(A || patched) of the next token at neutral prompts, nats; `k` None: of what has none."""

    what: str
    k: int | None
    kl: Interval


@dataclass(frozen=True, slots=True)
class Neuron:
    """One of the shared ranking: `delta` and `score` (nats) are means over the rows that chose."""

    layer: int
    index: int
    delta: float
    score: float


@dataclass(frozen=True, slots=True)
class Claim:
    """`few`, `linearity`, `iterative` or `directions`, and the scope that it is about: `few:all`. `figure` decides, by
    where its interval lies; `each`: what it is made of."""

    name: str
    scope: str
    says: str
    verdict: Verdict
    figure: Interval | None
    each: tuple[tuple[str, Interval], ...]
    note: str


@dataclass(frozen=True, slots=True)
class ScopeFound:
    """`by_row`: every row has its own ranking, of all rows; `shared`: one, chosen on half of the rows, of the others.
    `overlap`: share of the first k that both halves' rankings have in common, and what chance gives."""

    name: str
    layers: tuple[int, ...]
    size: int
    ceiling: Point
    by_row: tuple[Curve, ...]
    iterative: tuple[Point, ...]
    shared_ceiling: Point
    shared: tuple[Curve, ...]
    directions: tuple[Direction, ...]
    off_target: tuple[OffTarget, ...]
    neurons: tuple[Neuron, ...]
    overlap: tuple[tuple[int, float, float], ...]

    def curve(self, method: str, *, shared: bool = False) -> Curve:
        """Raises KeyError."""
        for one in self.shared if shared else self.by_row:
            if one.method == method:
                return one
        raise KeyError(method)


@dataclass(frozen=True, slots=True)
class Neurons:
    """`probe` is the record's id. `margin_*` and `flips_*`: of A and of B themselves. `deeper`: rows whose answers
    begin alike, and are decided after that. `left_out`: rows whose answers never differ."""

    probe: str
    a: str
    b: str
    data: str
    data_id: str
    n: int
    chosen_on: int
    deeper: int
    left_out: int
    neutral: int
    seed: int
    draws: int
    steps: int
    layers: int
    without: tuple[int, ...]
    neurons: int
    margin_a: Interval
    margin_b: Interval
    flips_a: Interval
    flips_b: Interval
    scopes: tuple[ScopeFound, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...]

    def scope(self, name: str) -> ScopeFound:
        """Raises KeyError."""
        for one in self.scopes:
            if one.name == name:
                return one
        raise KeyError(name)

    def claims_of(self, scope: str) -> tuple[Claim, ...]:
        return tuple(one for one in self.claims if one.scope == scope)

    def to_json(self) -> dict[str, Any]:
        return written(self)

    @staticmethod
    def from_json(document: object) -> Neurons:
        """Raises FormatError for what is none. Claims in a scope that is not judged, as once were noted, are left
        out."""
        found = read(Neurons, document)
        _check(found)
        return replace(found, claims=tuple(one for one in found.claims if one.scope in JUDGED))


def _check(found: Neurons) -> None:
    """What is drawn is there. Raises FormatError."""
    _same([one.name for one in found.scopes], SCOPES, "scopes")
    for scope in found.scopes:
        _same([one.method for one in scope.by_row], METHODS, f"{scope.name}.by_row")
        _same([one.method for one in scope.shared], SHARED, f"{scope.name}.shared")
        listed = (scope.layers, scope.iterative, *(one.points for one in (*scope.by_row, *scope.shared)))
        if not all(listed) or not {one.what for one in scope.off_target} <= {*OFF_TARGET}:
            raise unlike(f"neurons.scopes.{scope.name}")
    if not {one.scope for one in found.claims} <= {*SCOPES}:
        raise unlike("neurons.claims")


def _same(names: list[str], known: tuple[str, ...], where: str) -> None:
    if names != list(known):
        raise unlike(f"neurons.{where}")
