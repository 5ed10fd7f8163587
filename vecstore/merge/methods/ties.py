"""`ties`: trim each delta to its largest elements, elect a sign for each element, merge what agrees.

Yadav et al., "TIES-Merging", NeurIPS 2023, section 3. Tools differ in the details, so they are switches:

    density   kept per tensor and behaviour: the k = max(1, int(density * n)) largest by magnitude; of equal
              ones the first
    trim      that, of a `tensor`; or of all the tensors that a behaviour says something of, `model`: then what is
              kept has been found before (`merge/model_trim`), and comes with each share
    elect     the sign of the sum of the weighted deltas, or of the unweighted ones
    undecided what a sum of 0 elects: `plus`, or `none`, so that nothing is merged there
    merge     over the agreeing nonzero elements: the weighted `sum`; that divided by their number (`mean`);
              or by the sum of their weights (`weighted_mean`)
    lambda    multiplies the result

A behaviour of weight 0 takes no part at all. Negating a behaviour is negating its delta: weight -w with delta d
gives, bit for bit, what w with -d gives. So a negative weight also turns the behaviour's vote round in the
unweighted election, where its size has no say. Under `weighted_mean` there is no such reading (in the usual
formula the sign cancels and -w acts as w), and it is refused.

Presets (`registry/merge_methods`), for weights above 0: `mergekit` is its `ties` with its defaults (density 1, so
nothing is trimmed; normalised); mergekit loses the sign of a negative weight. `peft` is
`peft.utils.merge_utils.ties` with its "total" election, which leaves density to the caller; PEFT does not let
a negative weight turn the vote. `paper` is algorithm 1 of the paper: trimmed over the whole model, where sgn(0) = 0
agrees with nothing. (The authors' code differs from that: it gives an undecided element the sign of the model's
majority, and keeps all that are as large as the k-th.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pv.registry.errors import PvError, UsageError
from pv.vecstore.merge.selection import Cut, largest
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import BLOCK, common_size, single
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "check_settled", "check_weight", "combine"]

NAME = "ties"
LINEAR = False


@dataclass(frozen=True, slots=True)
class _Voice:
    """An operand with a positive weight, and whether its delta is negated."""

    weight: np.float32
    negated: bool
    delta: F32
    cut: Cut  # what its trim keeps


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    if options["merge"] == "weighted_mean" and weight < 0:
        raise UsageError(
            f"{what} is {weight:g}: ties with merge=weighted_mean divides by the weights, "
            "so a negative one would act as a positive one",
            hint="use merge=mean or merge=sum, or combine with add",
        )


def check_settled(options: Mapping[str, Any], cuts: Sequence[Cut | None]) -> None:
    """A trim over the whole model has been made before a tensor is looked at."""
    if options.get("trim") == "model" and None in cuts:
        raise PvError("TIES over the whole model was asked of a tensor before its trim was found")


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Each behaviour's share of one tensor, in order of vector id: (n,) fp32 each → (n,) fp32."""
    size = common_size([share.delta for share in shares])
    float_environment.check()
    check_settled(options, [share.cut for share in shares])
    voices = []
    for share in shares:
        rounded = single(share.weight, "a weight")
        check_weight(options, float(rounded), "a behaviour's weight")
        if rounded != 0:
            k = max(1, int(float(options["density"]) * size))
            cut = largest(share.delta, k) if share.cut is None else share.cut
            voices.append(_Voice(abs(rounded), bool(rounded < 0), share.delta, cut))
    out = np.zeros(size, np.float32)
    if voices:
        with np.errstate(all="ignore"):
            for low in range(0, size, BLOCK):
                _block(options, voices, low, out[low : low + BLOCK])
    return out


def _block(options: Mapping[str, Any], voices: Sequence[_Voice], low: int, out: F32) -> None:
    weighted = options["elect"] == "weighted"
    merge = options["merge"]
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
    decided = ballot != 0 if options.get("undecided") == "none" else np.True_
    divisor = np.zeros(out.size, np.float32)
    for voice, contribution, vote in zip(voices, contributions, votes, strict=True):
        agrees = np.where(positive, vote > 0, vote < 0) & decided
        np.add(out, np.where(agrees, contribution, np.float32(0)), out=out)
        share = voice.weight if merge == "weighted_mean" else np.float32(1)
        np.add(divisor, np.where(agrees, share, np.float32(0)), out=divisor)
    if merge != "sum":
        np.divide(out, np.where(divisor == 0, np.float32(1), divisor), out=out)
    scale = single(options["lambda"], "lambda")
    if scale != 1:
        np.multiply(out, scale, out=out)


def _kept(voice: _Voice, low: int, size: int) -> F32:
    """The trimmed block of a voice's delta, negated if its weight was negative: (size,) fp32."""
    delta = voice.delta[low : low + size]
    kept = np.where(voice.cut.keeps(voice.delta, low, size), delta, np.float32(0))
    return np.negative(kept, out=kept) if voice.negated else kept
