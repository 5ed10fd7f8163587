"""The parts of a probe of neurons as curves, intervals and claims: the same parts give the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.evaluate.statistics import Interval, bootstrap, share
from pv.vecstore.probe.neurons_found import (
    JUDGED,
    OFF_TARGET,
    SCOPES,
    SHARED,
    Claim,
    Curve,
    Direction,
    Neuron,
    OffTarget,
    Point,
    ScopeFound,
)
from pv.vecstore.probe.neurons_lab import grid
from pv.vecstore.probe.neurons_measure import chosen_rank
from pv.vecstore.probe.neurons_rank import METHODS
from pv.vecstore.probe.neurons_statistics import Resamples, claims

__all__ = ["flips_of", "margin_of", "scopes_of"]

F64 = NDArray[np.float64]
Json = Mapping[str, Any]


def margin_of(said: Json, seed: int) -> Interval:
    return bootstrap(said["margin"], seed=seed)


def flips_of(said: Json) -> Interval:
    """Rows whose margin is above 0 and whose likeliest token is the chosen one's: Wilson's interval."""
    flipped = (np.asarray(said["margin"]) > 0) & np.asarray(said["top"], bool)
    return share(int(flipped.sum()), len(flipped))


def scopes_of(parts: Json, seed: int) -> tuple[tuple[ScopeFound, ...], tuple[Claim, ...]]:
    """And what becomes of the claims in each that is judged."""
    scopes = [_Scope(parts, name, seed) for name in SCOPES]
    judged = [claim for one in scopes if one.name in JUDGED for claim in one.claims()]
    return tuple(one.found() for one in scopes), tuple(judged)


class _Scope:
    def __init__(self, parts: Json, name: str, seed: int) -> None:
        self.name, self.parts = name, parts
        rows = parts["rows"]
        self.a = np.asarray(rows["a"]["margin"], np.float64)
        self.a_second = self.a[rows["first"] :]
        self.top = self._of("ceiling")
        self.ks = grid(self.top["size"])
        self.every = Resamples(len(self.a), seed)
        self.second = Resamples(len(self.a_second), seed)
        self.ceiling = np.asarray(self.top["every"]["margin"]) - self.a
        self.ceiling_second = np.asarray(self.top["second"]["margin"]) - self.a_second

        self.by_row = {method: _mean_of(self._of(f"row:{method}")) for method in METHODS}

    def _of(self, key: str) -> Any:
        return self.parts[f"{self.name}:{key}"]

    def found(self) -> ScopeFound:
        size = self.top["size"]
        steps = self._of("iterative")
        return ScopeFound(
            self.name,
            tuple(self.top["layers"]),
            size,
            self._point(size, self.top["every"], second=False),
            tuple(self._curve(method, one, second=False) for method, one in self.by_row.items()),
            tuple(self._point(k, _at(steps, i), second=False) for i, k in enumerate(steps["k"])),
            self._point(size, self.top["second"], second=True),
            tuple(self._curve(method, _mean_of(self._of(f"shared:{method}")), second=True) for method in SHARED),
            tuple(map(self._direction, self._of("directions"))),
            tuple(self._off_target()),
            tuple(Neuron(*one) for one in self._of("named")["neurons"]),
            tuple((k, float(a), float(b)) for k, a, b in self._of("named")["overlap"]),
        )  # fmt: skip

    def claims(self) -> tuple[Claim, ...]:
        own = self.by_row["delta*grad"]
        return claims(
            self.name,
            self.every,
            self.second,
            self.ks,
            {method: (np.asarray(one["margin"]) - self.a).T for method, one in self.by_row.items()},
            np.asarray(own["predicted"]).T,
            self.ceiling,
            self._largest(own, self._of("iterative")),
            self._low(),
        )

    def _curve(self, method: str, one: Json, *, second: bool) -> Curve:
        draw, a = (self.second, self.a_second) if second else (self.every, self.a)
        ceiling = self.ceiling_second if second else self.ceiling
        effects = (np.asarray(one["margin"]) - a).T
        points = tuple(self._point(k, _at(one, i), second=second) for i, k in enumerate(self.ks))
        return Curve(method, points, draw.half(self.ks, effects, ceiling))

    def _point(self, k: int, said: Json, *, second: bool) -> Point:
        draw, a = (self.second, self.a_second) if second else (self.every, self.a)
        margin = np.asarray(said["margin"], np.float64)
        flips = said.get("flips")
        predicted = said.get("predicted")
        return Point(
            k,
            float(np.mean(said.get("count", k))),
            draw.mean(margin),
            draw.mean(margin - a),
            draw.ratio(margin - a, self.ceiling_second if second else self.ceiling),
            flips_of(said) if flips is None else flips,
            None if predicted is None else draw.ratio(margin - a, np.asarray(predicted)),
            _mean(said.get("cosine")),
            _mean(said.get("moved")),
        )

    def _direction(self, one: Json) -> Direction:
        effect = np.asarray(one["margin"]) - self.a_second
        return Direction(
            one["rank"],
            one["alpha"],
            self.second.mean(effect),
            self.second.ratio(effect, self.ceiling_second),
            self.second.ratio(np.asarray(one["plain"]) - self.a_second, self.ceiling_second),
            flips_of(one),
            one["variance"],
        )

    def _off_target(self) -> list[OffTarget]:
        found = []
        for name in OFF_TARGET:  # what is noted has its keys in another order
            values = self._of("neutral")[name]
            several = isinstance(values[0], list)
            for k, kl in zip(self.ks if several else [None], values if several else [values], strict=True):
                found.append(OffTarget(name, k, bootstrap(kl)))
        return found

    def _largest(self, one_shot: Json, steps: Json) -> tuple[F64, F64]:
        """Over the same k: up to the first step both are one shot."""
        one = np.asarray(one_shot["margin"], np.float64)
        other = one.copy()
        for at, k in enumerate(self.ks):
            if k in steps["k"]:
                other[at] = steps["margin"][steps["k"].index(k)]
        return one.max(0), other.max(0)

    def _low(self) -> tuple[int, float, F64, F64, F64]:
        best = chosen_rank(self._of("directions"))
        along, plain = (np.asarray(best[key]) - self.a_second for key in ("margin", "plain"))
        return best["rank"], best["alpha"], along, plain, self.ceiling_second


def _mean_of(draws: Sequence[Json]) -> dict[str, Any]:
    """One set of columns: of several draws the mean of each row, and the mean share of rows that flip."""
    if len(draws) == 1:
        return dict(draws[0])
    found = {
        key: np.mean([one[key] for one in draws], 0).tolist()
        for key in ("margin", "count", "cosine", "moved")
    }
    flips = [(np.asarray(one["margin"]) > 0) & np.asarray(one["top"], bool) for one in draws]  # (K, n) each
    return {**found, "flips": np.mean([one.mean(1) for one in flips], 0).tolist()}


def _at(columns: Json, at: int) -> dict[str, Any]:
    return {key: values[at] for key, values in columns.items() if key != "k"}


def _mean(values: Any) -> float | None:
    return None if values is None else float(np.mean(values))
