"""Whether a behaviour is in a few heads, in many, or in the MLPs: numbers in, a verdict and its reasons out.

Concentration of scores cannot tell a core from a smooth heavy tail, so the verdict is causal: R, the share of the
behaviour's shift that A has when it is given B's weights in the top heads alone; N, the share that B loses when it is
given A's weights there; and the same of random heads of the same layers. The lines are conventions, kept with the
result; how often they are wrong was measured on planted cases (see error_rate.py).

    mostly MLP                    R of the MLPs alone is surely above `mlp`
    localized                     R(core) surely above the band and at least `localized`; N(core) >= `necessary`
    hierarchically distributed    R(core) surely above the band, at least `hierarchical` and below `localized`; more
                                  than `most_beyond` of the heads changed by more than noise
    distributed                   R(core) inside the band or surely below `hierarchical`, and R >= `localized` takes at
                                  least `distributed` of the heads
    inconclusive                  all else: so where all heads together recover less than `localized`, and where random
                                  sets have more than `overlap` of the core

Surely is: with the whole 95 % interval. The band is the percentile of random sets: of 20, the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pv.vecstore.evaluate.statistics import Interval

__all__ = [
    "KINDS",
    "Evidence",
    "Kind",
    "Point",
    "Thresholds",
    "Verdict",
    "band_of",
    "heads_needed",
    "is_shift",
    "verdict",
]

Kind = Literal["mostly MLP", "localized", "hierarchically distributed", "distributed", "inconclusive"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares; `least` is in nats: a smaller shift is none. `fdr` bounds false finds among heads beyond noise, `band` is
    the percentile of random sets."""

    core: float = 0.1
    localized: float = 0.8
    necessary: float = 0.5
    most_beyond: float = 0.25
    mlp: float = 0.5
    least: float = 0.25
    hierarchical: float = 0.3
    distributed: float = 0.5
    fdr: float = 0.05
    band: float = 0.975
    overlap: float = 0.5

    def core_of(self, heads: int) -> int:
        return max(1, round(self.core * heads))

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Point:
    """The share recovered by the `k` heads that rank highest."""

    k: int
    recovered: Interval


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of `heads` heads, `beyond` changed by more than noise. `curve` has the core's k. `mlp` is None without MLPs.

    With a shift that may be 0 nothing was grafted: `curve` and `random` are empty. `beside`: R of the core on the rows
    of the random sets, where those are fewer; `overlap`: how much of the core random sets have, on average.
    """

    heads: int
    beyond: int
    shift: Interval
    mlp: Interval | None = None
    curve: tuple[Point, ...] = ()
    lost: Interval | None = None
    random: tuple[float, ...] = ()
    beside: Interval | None = None
    rest: Interval | None = None
    overlap: float = 0.0

    def core(self, k: int) -> Interval | None:
        return next((point.recovered for point in self.curve if point.k == k), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: Kind
    reasons: tuple[str, ...]
    thresholds: Thresholds = field(default_factory=Thresholds)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "reasons": list(self.reasons), "thresholds": self.thresholds.to_json()}


def band_of(random: Sequence[float], percentile: float) -> float:
    """The smallest of the values at or above this percentile: of few draws, the largest."""
    ordered = sorted(random)
    at = next((i for i in range(len(ordered)) if (i + 1) / len(ordered) >= percentile), len(ordered) - 1)
    return ordered[at]


def heads_needed(curve: Sequence[Point], line: float) -> float | None:
    """How many heads recover this share, by straight lines between the points from (0, 0); None if all do not."""
    before_k, before = 0.0, 0.0
    for point in sorted(curve, key=lambda one: one.k):
        now = point.recovered.mean
        if now >= line:
            return (
                before_k + (point.k - before_k) * (line - before) / (now - before)
                if now > before
                else point.k
            )
        before_k, before = point.k, now
    return None


def is_shift(shift: Interval, lines: Thresholds) -> bool:
    """Whether there is something to look for. Noise in the weights moves all rows a little, and alike: an interval
    over rows that leaves 0 out is not enough."""
    return not shift.low <= 0 <= shift.high and abs(shift.mean) >= lines.least


def verdict(found: Evidence, lines: Thresholds | None = None) -> Verdict:
    """Pure: the same evidence gives the same verdict."""
    lines = lines or Thresholds()
    if not is_shift(found.shift, lines):
        why = "may be 0" if found.shift.low <= 0 <= found.shift.high else f"is below {lines.least:g} nats"
        return Verdict("inconclusive", (f"the shift {why}: {_nats(found.shift)}",), lines)
    if found.mlp is not None and found.mlp.low > lines.mlp:
        return Verdict(
            "mostly MLP", (f"the MLPs alone recover {_share(found.mlp)}", *_heads(found, lines)), lines
        )
    if found.mlp is not None and found.mlp.mean > lines.mlp:
        reason = f"the MLPs alone recover {_share(found.mlp)}: on both sides of {_percent(lines.mlp)}"
        return Verdict("inconclusive", (reason,), lines)
    k = lines.core_of(found.heads)
    core = found.core(k)
    if core is None or found.lost is None or not found.random:
        return Verdict("inconclusive", ("nothing was grafted",), lines)
    return _of_heads(found, core, found.lost, k, lines)


def _heads(found: Evidence, lines: Thresholds) -> list[str]:
    """What the heads carry beside the MLPs."""
    k = lines.core_of(found.heads)
    core = found.core(k)
    if core is None or not found.random:
        return []
    every = max(found.curve, key=lambda one: one.k).recovered
    band = _percent(band_of(found.random, lines.band))
    return [f"all heads recover {_share(every)}; the top {k} {_share(core)}, random ones up to {band}"]


def _of_heads(found: Evidence, core: Interval, lost: Interval, k: int, lines: Thresholds) -> Verdict:
    band = band_of(found.random, lines.band)
    every = max(found.curve, key=lambda one: one.k).recovered
    said = (f"the top {k} heads recover {_share(core)}, random ones up to {_percent(band)}",)
    if every.mean < lines.localized:
        where = "" if found.rest is None else f", and all but the heads {_share(found.rest)}"
        return Verdict(
            "inconclusive", (*said, f"all heads together recover only {_share(every)}{where}"), lines
        )
    if found.overlap > lines.overlap:
        why = (
            f"random heads of the same layers are to {_percent(found.overlap)} the top ones: there is no null"
        )
        return Verdict("inconclusive", (*said, why), lines)
    surely = core.low > band and (found.beside is None or found.beside.mean > band)
    many = found.beyond > lines.most_beyond * found.heads
    moved = f"{found.beyond} of {found.heads} heads changed by more than noise"
    without = f"without them {_share(lost)} is lost"
    if surely and core.low >= lines.localized and lost.mean >= lines.necessary:
        return Verdict("localized", (*said, without, moved), lines)
    if surely and core.low >= lines.hierarchical and core.high < lines.localized and many:
        return Verdict("hierarchically distributed", (*said, moved), lines)
    needed = heads_needed(found.curve, lines.localized) or found.heads
    wanted = f"{_percent(lines.localized)} takes {needed:.0f} heads"
    broad = needed >= lines.distributed * found.heads
    if (core.mean <= band or core.high < lines.hierarchical) and broad:
        return Verdict("distributed", (*said, wanted), lines)
    return Verdict("inconclusive", (*said, *_why_not(surely, core, lines), without, moved, wanted), lines)


def _why_not(surely: bool, core: Interval, lines: Thresholds) -> list[str]:
    """Where the core's share lies, if that is what keeps it from a verdict."""
    both = [line for line in (lines.hierarchical, lines.localized) if core.low < line <= core.high]
    found = [] if surely else ["that is not surely more than random ones"]
    return [*found, *(f"that is on both sides of {_percent(line)}" for line in both)]


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _share(one: Interval) -> str:
    return f"{_percent(one.mean)} ({100 * one.low:.0f} to {100 * one.high:.0f})"


def _nats(one: Interval) -> str:
    return f"{one.mean:+.2f} nats ({one.low:+.2f} to {one.high:+.2f})"
