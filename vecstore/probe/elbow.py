"""How many directions differences of activations are: their spectrum, not centred, against what chance gives.

Of n differences d_i of length d, with singular values s_k:

    share_k = s_k^2 / sum_j s_j^2            of their second moment; not centred, so that the common direction counts
    N95     = fewest components with 95 % of it
    left_k  = s_k^2 / sum_{j >= k} s_j^2     the share of component k of what is left without those before it

N95 says little by itself: of noise it is nearly the number of pairs, and grows with it. So components are counted while
left_k is above the 95th percentile of left_1 in a null:

    Horn's       the residual without the components before k, each coordinate permuted by itself and with random signs:
                 as large everywhere, nothing in common (Horn, "A rationale and test for the number of factors", 1965;
                 signs, since permuting alone would keep the mean, which a spectrum that is not centred has in it)

A residual has n - k directions, a null n: the null's share is taken times n / (n - k). And the
differences must have something in common at all: the norm of their mean is compared with that of differences with
random signs. (For the spectrum itself signs of whole rows are no null: they leave it as it is.) Of chosen and rejected
answers in one model a sign is a label, and the null one of labels. Of two models on the same texts it is none: any
change of the weights shifts all rows alike, and what chance says is how many components there are beyond that shift.

Where the differences are of texts with two labels, they are compared with differences of texts with the same label too:
components of one random half of the rows, and on the other half the second moment along each, of true differences over
differences within a label. A component is above that null if the ratio is above 1 in 95 % of 100 halves. An aspect that
texts of one label have more or less of is in the null too, so it is said beside the count, and no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError
from pv.vecstore.probe.values import read, unlike

__all__ = ["Elbow", "Growth", "SameClass", "components", "elbow", "enough", "projected"]

F64 = NDArray[np.float64]
SHARE, LEVEL = 0.95, 0.95
DRAWS = 100
SUBSETS = 20
RISES = 1.25  # N95 of all pairs over that of half of them: above, there is no elbow
FEWEST = 4
MOST_KEPT = 64
MOST_RATIOS = 16


@dataclass(frozen=True, slots=True)
class Growth:
    """N95 of so many pairs: mean, least and most over random subsets; and of as many pairs of noise."""

    pairs: int
    mean: float
    low: float
    high: float
    noise: float


@dataclass(frozen=True, slots=True)
class SameClass:
    """How many components are above differences within a label, and by component the 5th percentile of the ratio."""

    kept: int
    ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Elbow:
    """Of the differences at one site, by component, the largest first. `horn` is what a share must be above: of those
    that are, and of the first that is not."""

    site: str
    pairs: int
    width: int
    shares: tuple[float, ...]
    horn: tuple[float, ...]
    n95: int
    above_horn: int
    same: SameClass | None
    norm: float
    p: float
    """Of the mean difference's norm, against random signs."""
    growth: tuple[Growth, ...]

    @property
    def labels_matter(self) -> bool:
        """Whether the mean is longer than that of random signs: of two models' differences, whether it is a shift."""
        return self.p <= 1 - LEVEL

    @property
    def kept(self) -> int:
        """Components above Horn's null; 0 where the mean is no longer than by chance."""
        return self.above_horn if self.labels_matter else 0

    @property
    def rises(self) -> bool:
        """Whether N95 still grows with the number of pairs."""
        return len(self.growth) > 1 and self.growth[-1].mean > RISES * self.growth[-2].mean

    @property
    def verdict(self) -> Literal["elbow", "directions, no elbow", "none"]:
        if self.kept == 0:
            return "none"
        return "directions, no elbow" if self.rises else "elbow"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.kept, "rises": self.rises, "verdict": self.verdict}

    @staticmethod
    def from_json(document: object) -> Elbow:
        """Raises FormatError, also without components, or a number of pairs."""
        made = read(Elbow, document)
        if not any(one > 0 for one in made.shares) or not made.growth:
            raise unlike("elbow")
        return made


def elbow(
    site: str,
    differences: NDArray[Any],
    classes: tuple[NDArray[Any], NDArray[Any]] | None = None,
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Elbow:
    """Of (n, *shape) differences; `classes` are what they are differences of, as texts of two labels.

    Raises DataError for fewer than 4, for what is not finite, and where nothing differs.
    """
    rows = _flat(differences)
    if len(rows) < FEWEST:
        raise DataError(
            f"{len(rows)} differences are too few for a spectrum",
            hint=f"at least {FEWEST}, better 24 or more",
        )
    if not np.isfinite(rows).all():
        raise DataError(f"an activation at {site} is not finite", hint="look at how the model was trained")
    moments = _moments(rows)
    if not moments.sum() > 0:
        raise DataError(f"nothing differs at {site}", hint="look at a later layer: --layers")
    random = np.random.Generator(np.random.Philox(key=[seed, 1]))
    null = np.array([_moments(_noise(rows, random)) for _ in range(draws)])  # (draws, n)
    shares = moments / moments.sum()
    above, horn = _above_horn(rows, null, random, draws)
    norm = float(np.linalg.norm(rows.mean(0)))
    return Elbow(
        site, len(rows), rows.shape[1], _listed(shares), horn, enough(moments),
        above,
        None if classes is None else _same_class(rows, _flat(classes[0]), _flat(classes[1]), seed, draws),
        norm, _p(rows, norm, random), _growth(rows, seed),
    )  # fmt: skip


def enough(moments: F64, share: float = SHARE) -> int:
    """The fewest of (n,) moments, descending, that are this share of their sum."""
    sums = np.cumsum(moments)
    return int(np.searchsorted(sums, share * sums[-1] * (1 - 1e-12))) + 1


def components(differences: NDArray[Any]) -> F64:
    """(k, width): the right singular vectors of (n, *shape) differences, not centred, largest first."""
    found: F64 = _svd(_flat(differences))[1]
    return found


def projected(mean: NDArray[Any], axes: F64, count: int) -> NDArray[np.float32]:
    """A mean's part in the first `count` axes, in its own shape."""
    flat = mean.astype(np.float64).ravel()
    part = axes[:count].T @ (axes[:count] @ flat)
    return part.reshape(mean.shape).astype(np.float32)


def _flat(values: NDArray[Any]) -> F64:
    return values.reshape(len(values), -1).astype(np.float64)


def _svd(rows: F64) -> tuple[F64, F64]:
    _, values, axes = np.linalg.svd(rows, full_matrices=False)
    there = values > 1e-9 * max(float(values[0]), 1e-300)
    return values[there], axes[there]


def _moments(rows: F64) -> F64:
    """(n,) squares of singular values, descending: by the Gram matrix of the rows, which are few."""
    return _eigenvalues(rows @ rows.T)


def _eigenvalues(gram: F64) -> F64:
    found: F64 = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    return found


def _noise(rows: F64, random: np.random.Generator) -> F64:
    """Each coordinate permuted by itself, with random signs."""
    found = random.permuted(rows, axis=0)
    found *= random.integers(0, 2, size=found.shape) * 2.0 - 1.0
    return found


def _above_horn(
    rows: F64, null: F64, random: np.random.Generator, draws: int
) -> tuple[int, tuple[float, ...]]:
    """How many components are above, and the limits as shares of the whole."""
    values, axes = _svd(rows)
    moments = np.square(values)
    left, whole = rows, float(moments.sum())
    most = min(len(values), len(rows) // 2, MOST_KEPT)
    limits: list[float] = []
    for k in range(most):
        if k:
            left = left - np.outer(left @ axes[k - 1], axes[k - 1])
            null = np.array([_moments(_noise(left, random)) for _ in range(draws)])
        first = float(np.quantile(null[:, 0] / null.sum(1), LEVEL)) * len(rows) / (len(rows) - k)
        limits.append(first * float(moments[k:].sum()) / whole)
        if not float(moments[k]) / whole > limits[k]:
            return k, tuple(limits)
    return most, tuple(limits)


def _same_class(rows: F64, positive: F64, negative: F64, seed: int, draws: int) -> SameClass | None:
    """None for fewer than 12 rows: each half is of two labels, and makes pairs of each."""
    half = len(rows) // 2
    if half < 6:
        return None
    random = np.random.Generator(np.random.Philox(key=[seed, 2]))
    most = min(half, MOST_RATIOS)
    ratios = np.zeros((draws, most))
    for at in range(draws):
        order = random.permutation(len(rows))
        axes = _svd(rows[order[:half]])[1][:most]  # (k, d)
        first, second, third, fourth = order[half:][: (len(rows) - half) // 4 * 4].reshape(4, -1)
        within = np.concatenate([positive[first] - positive[second], negative[third] - negative[fourth]])
        true = np.square(rows[order[half:]] @ axes.T).mean(0)
        ratios[at, : len(axes)] = true / np.maximum(np.square(within @ axes.T).mean(0), 1e-300)
    low = np.quantile(ratios, 1 - LEVEL, axis=0)
    below = np.flatnonzero(~(low > 1))
    return SameClass(int(below[0]) if len(below) else most, _listed(low))


def _p(rows: F64, norm: float, random: np.random.Generator, draws: int = 1000) -> float:
    """The share of random signs whose mean is as long, with the one that there is among them."""
    signs = random.integers(0, 2, size=(draws, len(rows))) * 2.0 - 1.0
    gram = rows @ rows.T
    norms = np.sqrt(np.maximum(np.einsum("di,ij,dj->d", signs, gram, signs, optimize=True), 0)) / len(rows)
    return float(1 + np.count_nonzero(norms >= norm * (1 - 1e-9))) / (draws + 1)


def _growth(rows: F64, seed: int) -> tuple[Growth, ...]:
    gram = rows @ rows.T
    found = []
    for size in _sizes(len(rows)):
        random = np.random.Generator(np.random.Philox(key=[seed, 3 + size]))
        count = 1 if size == len(rows) else SUBSETS
        own, noise = [], []
        for _ in range(count):
            some = random.permutation(len(rows))[:size]
            own.append(enough(_eigenvalues(gram[np.ix_(some, some)])))
            noise.append(enough(_moments(_noise(rows[some], random))))
        found.append(
            Growth(size, float(np.mean(own)), float(min(own)), float(max(own)), float(np.mean(noise)))
        )
    return tuple(found)


def _sizes(n: int) -> Sequence[int]:
    """n and its halves, down to 4."""
    found = [n]
    while found[-1] // 2 >= FEWEST and len(found) < 5:
        found.append(found[-1] // 2)
    return found[::-1]


def _listed(values: F64) -> tuple[float, ...]:
    return tuple(float(x) for x in values)
