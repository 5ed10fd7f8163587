"""From activations of contrasted inputs to a direction: pure arithmetic, for tensors of any shape.

With p_i and n_i the activations of pair i, and d_i = p_i - n_i:

    mean          the mean of d_i (difference of means)
    pca           the first right singular vector of the d_i, not centred: that of greatest second moment
    pca-centred   the same of d_i - mean(d): what sklearn's PCA gives of differences. It may lose the mean direction
                  altogether, and is here to be compared with
    logistic      the normal of the plane that parts p from n best (logistic regression, ridge 1 on unit variance)

All but the mean are known up to length only: each is given the length of the mean difference along it, and so its sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError, UsageError

__all__ = ["METHODS", "Quality", "cosine", "direction", "quality"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
STEPS = 50  # of Newton's method; it stops by itself after few
AGREE = 0.5


def direction(positive: F32, negative: F32, method: str = "mean") -> F32:
    """(n, *shape) activations of n pairs to a direction of that shape. Raises UsageError, DataError."""
    if method not in METHODS:
        raise UsageError(f"no method {method!r}", hint=f"there are: {', '.join(METHODS)}")
    p, n = _flat(positive), _flat(negative)
    if p.shape != n.shape:
        raise DataError(f"{len(p)} positive and {len(n)} negative activations make no pairs")
    if not (np.isfinite(p).all() and np.isfinite(n).all()):
        raise DataError(
            "an activation is not finite: this model gives NaN", hint="look at how it was trained"
        )
    mean = (p - n).mean(0)
    if not np.linalg.norm(mean) > 0:
        raise DataError("the pairs do not differ here: their mean difference is 0", hint="read elsewhere")
    if method == "mean":
        found = mean
    else:
        unit = METHODS[method](p, n)
        found = unit * float(unit @ mean)
    shaped: F32 = found.reshape(positive.shape[1:]).astype(np.float32)
    return shaped


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Of two arrays of one shape; 0 if either is 0."""
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """How well pairs agree on a direction at one site.

    `agreement`: mean cosine between two pairs' differences. `first_component`: the share of the differences' second
    moment along their first singular vector; `pca_cosine`: its cosine with the mean. `halves`: cosine between the means
    of every other pair and of the rest. `against`: the share of pairs whose difference points the other way.
    `relative_norm`: the mean difference over the mean norm of an activation. `outliers`: the two that agree least.
    """

    n: int
    agreement: float
    first_component: float
    pca_cosine: float
    halves: float
    against: float
    norm: float
    relative_norm: float
    outliers: tuple[int, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody who steers with it should know."""
        said = []
        if self.pca_cosine < AGREE:
            said.append(
                f"mean and first component disagree (cosine {self.pca_cosine:.2f}): the pairs differ most in "
                "something else than what they differ in on average"
            )
        if self.agreement < 0.15:
            said.append(
                f"the pairs hardly agree (mean cosine {self.agreement:.2f}): they differ in much else too, so test it"
            )
        return tuple(said)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "outliers": list(self.outliers)}


def quality(positive: F32, negative: F32) -> Quality:
    """Of (n, *shape) activations of n pairs, n >= 2. Raises DataError."""
    p, n = _flat(positive), _flat(negative)
    if len(p) < 2:
        raise DataError(
            "a single pair says nothing of what pairs have in common",
            hint="give two or more; 20 are a good start",
        )
    differences = p - n
    mean = differences.mean(0)
    lengths = np.linalg.norm(differences, axis=1)
    units = differences / np.maximum(lengths, 1e-30)[:, None]
    count = len(units)
    agreement = (float(np.square(units.sum(0)).sum()) - float((lengths > 0).sum())) / (count * (count - 1))
    singular, first = _first(differences)
    along = np.array([cosine(one, mean) for one in differences])
    scale = float(np.mean(np.linalg.norm(np.concatenate([p, n]), axis=1)))
    return Quality(
        n=count,
        agreement=agreement,
        first_component=float(singular[0] ** 2 / max(float(np.square(singular).sum()), 1e-300)),
        pca_cosine=abs(cosine(first, mean)),
        halves=cosine(differences[::2].mean(0), differences[1::2].mean(0)),
        against=float((along < 0).mean()),
        norm=float(np.linalg.norm(mean)),
        relative_norm=float(np.linalg.norm(mean)) / max(scale, 1e-30),
        outliers=tuple(int(i) for i in np.argsort(along, kind="stable")[:2]),
    )


def _flat(values: F32) -> F64:
    return values.reshape(len(values), -1).astype(np.float64)


def _first(rows: F64) -> tuple[F64, F64]:
    """All singular values of (n, d) rows, and the first right singular vector: by the smaller Gram matrix."""
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    values, vectors = np.linalg.eigh(gram)
    top = vectors[:, -1]
    unit = rows.T @ top if len(rows) <= rows.shape[1] else top
    return np.sqrt(np.maximum(values[::-1], 0)), unit / max(float(np.linalg.norm(unit)), 1e-300)


def _pca(p: F64, n: F64) -> F64:
    return _first(p - n)[1]


def _pca_centred(p: F64, n: F64) -> F64:
    differences = p - n
    return _first(differences - differences.mean(0))[1]


def _logistic(p: F64, n: F64) -> F64:
    """Newton's method in the space that the rows span: as many unknowns as rows, however many dimensions there are."""
    rows = np.concatenate([p, n])
    rows = rows - rows.mean(0)
    spread = float(np.sqrt(np.square(rows).sum(1).mean()))
    rows /= max(spread, 1e-300)
    signs = np.concatenate([np.ones(len(p)), -np.ones(len(n))])
    u, s, vt = np.linalg.svd(rows, full_matrices=False)
    x = u * s  # (2n, r): the same rows in their own axes
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        fit = 1 / (1 + np.exp(np.clip(signs * (x @ weights), -40, 40)))  # what is left to explain of each row
        gradient = weights - x.T @ (signs * fit)
        curvature = np.eye(len(weights)) + (x * (fit * (1 - fit))[:, None]).T @ x
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if float(np.abs(step).max()) < 1e-8:
            break
    found = vt.T @ weights
    return found / max(float(np.linalg.norm(found)), 1e-300)


METHODS: dict[str, Callable[[F64, F64], F64]] = {
    "mean": lambda p, n: (p - n).mean(0),
    "pca": _pca,
    "pca-centred": _pca_centred,
    "logistic": _logistic,
}
