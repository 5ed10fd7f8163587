"""Did activations move along a direction, and further than along directions that mean nothing?

A shift always has some cosine with any direction, and in a space whose activations mostly vary in a few ways it is no
small one. So it is held against random directions: mixtures of the base's own activations, which share their
covariance, and plain ones, for which no way is likelier than another. Outside the 95 % band of both is moved.

Of many layers some are outside by chance. All together are held against the same draws: how far each draw goes, in
half widths of the band, at the layer where it goes furthest (Westfall and Young's max-T, with sizes of cosines).

Random directions are not all that a trait's direction could have been by chance, and p is only as good as they are:
with noise in the weights of SmolLM2-135M, p was at most 0.05 in 4 of 48 cases, and at most 0.01 in 1. So 0.01 it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.vecstore.activations.along import coefficients, cosines, isotropic
from pv.vecstore.activations.shift import Means, Shift
from pv.vecstore.evaluate.statistics import Interval, bootstrap

__all__ = ["DRAWS", "LEVEL", "NO_MORE", "SURE", "Moved", "Movement", "Verdict", "check_fit", "moved"]

F64 = NDArray[np.float64]
Verdict = Literal["moved towards", "moved against", "no more than chance"]
NO_MORE: Verdict = "no more than chance"
DRAWS = 200
LEVEL = 0.95  # of intervals and bands
SURE = 0.01  # the p of all sites together from which on it moved
SEED = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """At one site. `by`: in units of the direction. `chance`: 95 % of the random directions have a smaller |cosine|."""

    site: str
    by: Interval
    cosine: float
    chance: float
    norm: float
    """Of the mean shift."""
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {
            "site": self.site,
            "by": self.by.to_json(),
            "cosine": self.cosine,
            "chance": self.chance,
            "norm": self.norm,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class Movement:
    """At all sites: `p` is the share of random directions that stand out as much somewhere, `furthest` where it does.

    It moved if p <= 0.01, and the interval there leaves 0 out.
    """

    sites: tuple[Moved, ...]
    furthest: Moved
    p: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "p": self.p,
            "furthest": self.furthest.site,
            "sites": [one.to_json() for one in self.sites],
        }


def moved(
    shift: Shift, directions: Mapping[str, NDArray[Any]], drawn: Mapping[str, F64], *, seed: int = SEED
) -> Movement:
    """Of a shift along directions by site, in their order. `drawn`: the random mixtures of activations (`means`).

    Directions of length 0 are left out. Raises UsageError for another shape, and if none is left.
    """
    sites = [site for site, direction in directions.items() if direction.any()]
    if not sites:
        raise UsageError("no direction points anywhere", hint="the vector is 0 at every site")
    plain = {
        shape: isotropic(shape, len(drawn[sites[0]]), seed)
        for shape in {directions[site].shape for site in sites}
    }
    found: list[Moved] = []
    sizes: list[list[F64]] = [[], []]
    for site in sites:
        mean = shift.mean(site)
        by = bootstrap(coefficients(shift.rows[site], directions[site]), seed=seed, level=LEVEL)
        cosine = float(cosines(mean, directions[site][None])[0])
        nulls = [np.abs(cosines(mean, many)) for many in (drawn[site], plain[directions[site].shape])]
        bands = [float(np.quantile(null, LEVEL)) for null in nulls]
        for size, null, band in zip(sizes, nulls, bands, strict=True):
            size.append(null / max(band, 1e-300))
        chance = max(bands)
        norm = float(np.linalg.norm(mean))
        found.append(Moved(site, by, cosine, chance, norm, _verdict(by, abs(cosine) > chance)))
    furthest = max(found, key=lambda one: abs(one.cosine) / max(one.chance, 1e-300))
    stands_out = abs(furthest.cosine) / max(furthest.chance, 1e-300)
    p = max(_p(stands_out, np.max(size, axis=0)) for size in sizes)
    return Movement(tuple(found), furthest, p, _verdict(furthest.by, p <= SURE))


def check_fit(before: Means, directions: Mapping[str, NDArray[Any]]) -> None:
    """Raises UsageError for a direction that has not the shape of the activations at its site."""
    for site, direction in directions.items():
        if before.rows[site].shape[1:] != direction.shape:
            raise UsageError(
                f"a direction of shape {direction.shape} does not fit {site}, whose activations are of shape "
                f"{before.rows[site].shape[1:]}",
                hint="the vector is of another model, or of another site",
            )


def _p(stands_out: float, furthest: F64) -> float:
    """The share of draws that stand out as much, this one counted: never 0."""
    return (1 + int((furthest >= stands_out).sum())) / (1 + len(furthest))


def _verdict(by: Interval, beyond: bool) -> Verdict:
    if not beyond or by.verdict == "inconclusive":
        return NO_MORE
    return "moved towards" if by.verdict == "up" else "moved against"
