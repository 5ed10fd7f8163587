"""The deltas of several behaviours to one, and that one onto the base.

Invariant: every output element is a fixed expression of its operands' elements, evaluated in the order given
(callers give the order of vector ids), in single precision, one rounding for each operation written here.
A behaviour of weight 0 takes no part at all. `ties` alone looks at whole tensors, through integers only.

TIES (Yadav et al., "TIES-Merging", NeurIPS 2023) trims each delta to its largest elements, elects a sign for
each element, and merges the deltas that agree with it. Tools differ in the details, so they are switches:

    density   kept per tensor and behaviour: the k = max(1, int(density * n)) largest by magnitude; of equal
              ones the first
    elect     the sign of the sum of the weighted deltas, or of the unweighted ones; a sum of 0 elects +
    merge     over the agreeing nonzero elements: the weighted `sum`; that divided by their number (`mean`);
              or by the sum of their weights (`weighted_mean`)
    lambda    multiplies the result

Negating a behaviour is negating its delta: weight -w with delta d gives, bit for bit, what w with -d gives.
So a negative weight also turns the behaviour's vote round in the unweighted election, where its size has no
say. Under `weighted_mean` there is no such reading (in the usual formula the sign cancels and -w acts as w),
and it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import PvError, UsageError
from pv.registry.persona import Combine
from pv.vecstore.tensors import float_environment

__all__ = ["Operand", "apply", "check_weights", "combine", "preset", "scaled_sum"]

F32 = NDArray[np.float32]

_BLOCK = 1 << 15
_ABS = np.uint32(0x7FFFFFFF)
_INF = np.uint32(0x7F800000)
_ANY_NAN = np.uint32(0x7F800001)
_NAN = np.uint32(0x7FC00000)
_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "mergekit": {"density": 1.0, "elect": "weighted", "merge": "weighted_mean", "lambda": 1.0},
    "peft": {"elect": "unweighted", "merge": "mean", "lambda": 1.0},
}


@dataclass(frozen=True, slots=True)
class Operand:
    """One behaviour in one tensor: its weight and its summed terms, flat fp32 (n,)."""

    weight: float
    delta: F32


@dataclass(frozen=True, slots=True)
class _Voice:
    """An operand of `ties`: a positive weight, whether its delta is negated, and what its trim keeps."""

    weight: np.float32
    negated: bool
    delta: F32
    threshold: int  # kept if the magnitude's bits are above this,
    ties_until: int  # or equal to it and the index is below this


def preset(name: str) -> dict[str, Any]:
    """Options for `Combine.of("ties", **preset(name))` that reproduce another tool. Raises UsageError.

    `mergekit`: its `ties` with its defaults (density 1, so nothing is trimmed; normalised). `peft`:
    `peft.utils.merge_utils.ties` with its "total" election, which leaves density to the caller. Both for
    weights above 0: mergekit loses the sign of a negative one, PEFT does not let it turn the vote.

    The paper's own rule is not offered: it trims over the whole model at once, not per tensor, which in a
    persona keeps next to nothing of the attention layers, and it gives an undecided element the sign of the
    model's majority.
    """
    if name == "paper":
        raise UsageError(
            "there is no TIES preset 'paper': the paper trims over the whole model, pv per tensor",
            hint="method ties with elect=unweighted and merge=mean is the same but for the trim",
        )
    if name not in _PRESETS:
        raise UsageError(f"no TIES preset {name!r}", hint=f"there are: {', '.join(sorted(_PRESETS))}")
    return dict(_PRESETS[name])


def check_weights(rule: Combine, weights: Mapping[str, float]) -> None:
    """Refuse, naming the behaviour, a weight that `rule` gives no meaning. Raises UsageError."""
    for name, weight in weights.items():
        _check_weight(rule, float(_f32(weight, f"the weight of {name!r}")), f"the weight of {name!r}")


def scaled_sum(terms: Sequence[tuple[float, F32]]) -> F32:
    """0 + c₁·τ₁ + c₂·τ₂ + ... in the order given: (coefficient, (n,) fp32) pairs → (n,) fp32.

    A coefficient is rounded to fp32 once; one that is then 0 is skipped, and 1 multiplies nothing. Raises
    UsageError for a coefficient beyond fp32.
    """
    size = _common_size([tau for _, tau in terms])
    float_environment.check()
    scaled = [(c, tau) for c, tau in ((_f32(c, "a coefficient"), tau) for c, tau in terms) if c != 0]
    out = np.empty(size, np.float32)
    product = np.empty(min(_BLOCK, size), np.float32)
    with np.errstate(all="ignore"):
        for low in range(0, size, _BLOCK):
            total = out[low : low + _BLOCK]
            total[:] = 0
            for c, tau in scaled:
                part = tau[low : low + _BLOCK]
                np.add(total, part if c == 1 else np.multiply(part, c, out=product[: part.size]), out=total)
    return out


def combine(rule: Combine, operands: Sequence[Operand]) -> F32:
    """The delta to add to the base: operands over one tensor, in order of vector id → (n,) fp32.

    `add` is Σ wᵢ·δᵢ; `ties` is described above. Raises UsageError for a weight that the rule refuses.
    """
    if rule.method == "add":
        return scaled_sum([(operand.weight, operand.delta) for operand in operands])
    if rule.method != "ties":
        raise UsageError(f"engine 1 has no combine method {rule.method!r}", hint="there are: add, ties")
    size = _common_size([operand.delta for operand in operands])
    float_environment.check()
    voices = []
    for operand in operands:
        weight = _f32(operand.weight, "a weight")
        _check_weight(rule, float(weight), "a behaviour's weight")
        if weight != 0:
            threshold, ties_until = _trim(operand.delta, float(rule.options["density"]))
            voices.append(_Voice(abs(weight), bool(weight < 0), operand.delta, threshold, ties_until))
    out = np.zeros(size, np.float32)
    if voices:
        with np.errstate(all="ignore"):
            for low in range(0, size, _BLOCK):
                _ties_block(rule, voices, low, out[low : low + _BLOCK])
    return out


def apply(base: F32, delta: F32) -> F32:
    """base + delta, (n,) fp32 each → (n,) fp32: one addition.

    Where delta is zero the base's bits come back as they are (a plain addition would turn -0 into +0 and
    may touch a NaN). A NaN that arises is the one quiet NaN 7fc00000: processors differ in which they make.
    """
    size = _common_size([base, delta])
    float_environment.check()
    out = np.empty(size, np.float32)
    scratch = np.empty(min(_BLOCK, size), np.uint32)
    with np.errstate(all="ignore"):
        for low in range(0, size, _BLOCK):
            block = out[low : low + _BLOCK]
            np.add(base[low : low + _BLOCK], delta[low : low + _BLOCK], out=block)
            # magnitude - 1 wraps for zero, so zeros and NaNs are the elements at or above infinity's bits.
            odd = scratch[: block.size]
            np.bitwise_and(block.view(np.uint32), _ABS, out=odd)
            np.subtract(odd, np.uint32(1), out=odd)
            if int(odd.max()) >= _INF:
                _settle(
                    block, base[low : low + _BLOCK], delta[low : low + _BLOCK], np.flatnonzero(odd >= _INF)
                )
    return out


def _settle(out: F32, base: F32, delta: F32, at: NDArray[np.intp]) -> None:
    """Write the elements `at`, whose sum is zero or NaN, as `apply` promises."""
    bits = out.view(np.uint32)
    found = bits[at]
    found = np.where((found & _ABS) > _INF, _NAN, found)
    bits[at] = np.where(delta[at] == 0, base.view(np.uint32)[at], found)


def _ties_block(rule: Combine, voices: Sequence[_Voice], low: int, out: F32) -> None:
    weighted = rule.options["elect"] == "weighted"
    merge = rule.options["merge"]
    contributions: list[F32] = []  # w·d, trimmed, (n,) each
    votes: list[F32] = []
    ballot = np.zeros(out.size, np.float32)
    for voice in voices:
        kept = _kept(voice, low, out.size)
        contribution = kept if voice.weight == 1 else np.multiply(kept, voice.weight)
        vote = contribution if weighted else kept
        np.add(ballot, vote, out=ballot)
        contributions.append(contribution)
        votes.append(vote)
    positive = ballot >= 0
    divisor = np.zeros(out.size, np.float32)
    for voice, contribution, vote in zip(voices, contributions, votes, strict=True):
        agrees = np.where(positive, vote > 0, vote < 0)
        np.add(out, np.where(agrees, contribution, np.float32(0)), out=out)
        share = voice.weight if merge == "weighted_mean" else np.float32(1)
        np.add(divisor, np.where(agrees, share, np.float32(0)), out=divisor)
    if merge != "sum":
        np.divide(out, np.where(divisor == 0, np.float32(1), divisor), out=out)
    scale = _f32(rule.options["lambda"], "lambda")
    if scale != 1:
        np.multiply(out, scale, out=out)


def _kept(voice: _Voice, low: int, size: int) -> F32:
    """The trimmed block of a voice's delta, negated if its weight was negative: (size,) fp32."""
    delta = voice.delta[low : low + size]
    magnitude = _magnitude(delta)
    keep = magnitude > voice.threshold
    last = min(max(voice.ties_until - low, 0), size)
    if last:
        keep[:last] |= magnitude[:last] == voice.threshold
    kept = np.where(keep, delta, np.float32(0))
    return np.negative(kept, out=kept) if voice.negated else kept


def _trim(delta: F32, density: float) -> tuple[int, int]:
    """The largest k = max(1, int(density * n)) magnitudes, as a threshold and an index bound for its ties.

    Ordered by magnitude, then by index, on the integer bits, so equal magnitudes are cut alike everywhere.
    """
    size = delta.size
    k = max(1, int(density * size))
    if k >= size:
        return -1, 0  # every magnitude is above this
    magnitude = _magnitude(delta)
    magnitude.partition(size - k)
    threshold = int(magnitude[size - k])
    # All k - 1 places behind the threshold are at least as large, so only those can be above it.
    above = int(np.count_nonzero(magnitude[size - k :] > threshold))
    wanted = k - above  # at least 1
    for low in range(0, size, _BLOCK):
        ties = np.flatnonzero(_magnitude(delta[low : low + _BLOCK]) == threshold)
        if ties.size >= wanted:
            return threshold, low + int(ties[wanted - 1]) + 1
        wanted -= ties.size
    raise PvError("a trim lost count of its ties")


def _magnitude(delta: F32) -> NDArray[np.uint32]:
    """Bits of |delta|, whose integer order is the order of the values; every NaN counts as the largest."""
    magnitude: NDArray[np.uint32] = delta.view(np.uint32) & _ABS
    np.minimum(magnitude, _ANY_NAN, out=magnitude)
    return magnitude


def _check_weight(rule: Combine, weight: float, what: str) -> None:
    if rule.method == "ties" and rule.options["merge"] == "weighted_mean" and weight < 0:
        raise UsageError(
            f"{what} is {weight:g}: ties with merge=weighted_mean divides by the weights, "
            "so a negative one would act as a positive one",
            hint="use merge=mean or merge=sum, or combine with add",
        )


def _f32(value: float, what: str) -> np.float32:
    with np.errstate(all="ignore"):
        rounded = np.float32(value)
    if not np.isfinite(rounded):
        raise UsageError(f"{what} must be a finite single-precision number, not {value!r}")
    return rounded


def _common_size(arrays: Sequence[F32]) -> int:
    """The size shared by flat fp32 arrays."""
    if not arrays:
        raise PvError("nothing to combine: a tensor that no vector touches is copied, not computed")
    for array in arrays:
        if array.dtype != np.float32 or array.ndim != 1 or array.size != arrays[0].size:
            raise PvError(
                f"the engine combines flat fp32 arrays of one size, not {array.dtype} {array.shape}"
            )
    return arrays[0].size
