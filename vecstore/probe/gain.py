"""How strongly weight matrices read a direction of the residual stream, or write it: which weights deal with it.

Of a matrix W (out, in) and a unit direction v of width d:

    gain = d |W v|^2 / |W|_F^2          of one that reads the stream: q, k, v, gate, up
    gain = d |W^T v|^2 / |W|_F^2        of one that writes it: o, down
    line = d (W_i v)^2 / |W_i|^2        of one row (of one column, where the matrix writes): d weights

Directions drawn evenly have a mean gain of 1. A matrix or a line deals with v if its gain is above the 99th percentile
of 200 random directions; how many do so for other random directions is the null. Two kinds of them: drawn evenly, and
drawn with the covariance of the activations, which most weights have learnt to read. The norm's scale between stream
and matrix is left out, for v and for the random directions alike; and a gain says what reads and writes, not what for.
A Conv1D keeps its matrix as (in, out): `oriented` gives the one of the formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.vecstore.probe.values import read, unlike

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "CHECKS",
    "DRAWS",
    "Gains",
    "Matrix",
    "Share",
    "gains_of",
    "matrix_gain",
    "oriented",
    "role_of",
    "together",
]

F64 = NDArray[np.float64]
DRAWS = 200
CHECKS = 100
"""Further directions that are counted as the true one is, and have no say in the percentiles."""
PERCENTILE = 0.99
WRITES = ("o_proj", "out_proj", "down_proj", "dense", "c_proj", "wo", "w2", "fc2", "dense_4h_to_h")
Role = Literal["reads", "writes"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix: `gain` of the direction, and the 99th percentile of random ones by null; lines above it likewise."""

    name: str
    layer: int
    role: Role
    gain: float
    limits: Mapping[str, float]
    above: Mapping[str, int]
    lines: int
    width: int

    @property
    def kind(self) -> str:
        parts = self.name.removesuffix(".weight").split(".")
        return parts[-1]

    def deals(self, null: str) -> bool:
        return self.gain > self.limits[null]


@dataclass(frozen=True, slots=True)
class Share:
    """Of the matrices that were looked at and of their lines (`weights` in all, embeddings not among them): the
    direction's share, and random directions' mean and 95th percentile."""

    matrices: float
    matrices_null: float
    matrices_high: float
    lines: float
    lines_null: float
    lines_high: float
    weights: int

    @property
    def more(self) -> bool:
        """Whether more lines deal with the direction than with nearly all random ones."""
        return self.lines > self.lines_high


@dataclass(frozen=True, slots=True)
class Gains:
    """Every matrix that was looked at, and shares by null. `left_out`: parameters of layers that are no such matrix."""

    matrices: tuple[Matrix, ...]
    shares: Mapping[str, Share]
    left_out: tuple[str, ...] = ()

    def kinds(self) -> list[str]:
        return list(dict.fromkeys(one.kind for one in self.matrices))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(document: object) -> Gains:
        """Raises FormatError, also for a matrix without lines, or with other nulls than the shares."""
        made = read(Gains, document)
        for one in made.matrices:
            if not made.shares.keys() == one.limits.keys() == one.above.keys() or one.lines < 1:
                raise unlike(f"gains.matrices.{one.name[:80]!r}")
        return made


def oriented(module: nn.Module, weight: Tensor) -> Tensor:
    """A parameter of a module, and if it is a matrix, as (out, in)."""
    return weight.T if weight.dim() == 2 and type(module).__name__ == "Conv1D" else weight


def role_of(name: str, shape: Sequence[int], width: int) -> Role | None:
    """What a parameter of a layer, `oriented`, does with a stream of this width; None for what is no matrix of it."""
    if len(shape) != 2 or not name.endswith(".weight"):
        return None
    writes = name.removesuffix(".weight").rsplit(".", 1)[-1] in WRITES
    if writes and shape[0] == width:
        return "writes"
    if not writes and shape[1] == width and shape[0] > 1:
        return "reads"
    return None


def matrix_gain(
    name: str, layer: int, role: Role, weight: NDArray[Any], direction: NDArray[Any], drawn: Mapping[str, F64]
) -> tuple[Matrix, dict[str, Any]]:
    """Of one matrix; and for `gains_of` how often each of the checked random directions is above the percentiles.

    `drawn`: by null, (DRAWS + CHECKS, d) directions. Raises UsageError for a direction of length 0.
    """
    w = weight if role == "reads" else weight.T  # (lines, d)
    norms = np.square(w, dtype=np.float64).sum(1)
    norms = np.maximum(norms, 1e-300)
    own_gain, own_lines = _gain(w, norms, _unit(direction[None], name))
    limits, above, chance = {}, {}, {}
    for null, many in drawn.items():
        gains, lines = _gain(w, norms, _unit(many, name))
        checks = slice(len(many) - CHECKS, None)
        limit = float(np.quantile(gains[:-CHECKS], PERCENTILE, method="higher"))
        line_limit = np.quantile(lines[:, :-CHECKS], PERCENTILE, axis=1, method="higher")
        limits[null] = limit
        above[null] = int(np.count_nonzero(own_lines[:, 0] > line_limit))
        chance[null] = {
            "matrices": [int(one) for one in gains[checks] > limit],
            "lines": [int(one) for one in (lines[:, checks] > line_limit[:, None]).sum(0)],
        }
    return Matrix(name, layer, role, float(own_gain[0]), limits, above, len(w), w.shape[1]), chance


def together(chances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several matrices, how many of the matrices and lines each checked direction is above, by null."""
    return {
        null: {
            key: [int(one) for one in np.sum([chance[null][key] for chance in chances], 0)]
            for key in ("matrices", "lines")
        }
        for null in chances[0]
    }


def gains_of(
    matrices: Sequence[Matrix], chances: Iterable[Mapping[str, Any]], left_out: Sequence[str] = ()
) -> Gains:
    """All matrices together. Raises UsageError for none."""
    if not matrices:
        raise UsageError(
            "no weight matrix reads or writes the residual stream here, as far as is known",
            hint="--no-gain leaves this part out",
        )
    total = together(list(chances))
    lines, weights = sum(one.lines for one in matrices), sum(one.lines * one.width for one in matrices)
    shares = {}
    for null in matrices[0].limits:
        some = np.array(total[null]["matrices"]) / len(matrices)  # (CHECKS,)
        many = np.array(total[null]["lines"]) / lines
        shares[null] = Share(
            sum(one.deals(null) for one in matrices) / len(matrices), float(some.mean()),
            float(np.quantile(some, 0.95)), sum(one.above[null] for one in matrices) / lines,
            float(many.mean()), float(np.quantile(many, 0.95)), weights,
        )  # fmt: skip
    return Gains(tuple(matrices), shares, tuple(left_out))


def _unit(directions: NDArray[Any], name: str) -> F64:
    flat = directions.reshape(len(directions), -1).astype(np.float64)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise UsageError(f"a direction of length 0 goes into {name}", hint="--no-gain leaves this part out")
    units: F64 = flat / lengths
    return units


def _gain(w: NDArray[Any], norms: F64, units: F64) -> tuple[F64, F64]:
    """(k,) gains, and (lines, k) gains of each line, of (k, d) units."""
    out = np.square((w @ units.T.astype(w.dtype)).astype(np.float64))  # (lines, k)
    width = w.shape[1]
    return width * out.sum(0) / norms.sum(), width * out / norms[:, None]
