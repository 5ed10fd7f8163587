"""`ties`: trim each delta to its largest elements, elect a sign for each element, merge what agrees.

Yadav et al., "TIES-Merging", NeurIPS 2023, section 3. Tools differ in the details, so they are switches:

    density   kept per tensor and behaviour: the k = max(1, int(density * n)) largest by magnitude; of equal
              ones the first
    trim      that, of a `tensor`; or of all the tensors that a behaviour says something of, `model`: then what is
              kept has been found before (`merge/model_trim`), and comes with each voice
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
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pv.registry.errors import PvError, UsageError
from pv.vecstore.merge import loops
from pv.vecstore.merge.loops import Rounding
from pv.vecstore.merge.selection import EVERYTHING, Trim, known_trim, taken, trimmed
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Thinned
from pv.vecstore.native.kernels import Delta, Result
from pv.vecstore.tensors.arithmetic import single
from pv.vecstore.tensors.array import F32, Raw

__all__ = ["LINEAR", "NAME", "Election", "check_weight", "ready"]

NAME = "ties"
LINEAR = False


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    if options["merge"] == "weighted_mean" and weight < 0:
        raise UsageError(
            f"{what} is {weight:g}: ties with merge=weighted_mean divides by the weights, "
            "so a negative one would act as a positive one",
            hint="use merge=mean or merge=sum, or combine with add",
        )


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Election:
    """The step for one tensor, which is looked at until every trim is known: those over the model are."""
    known = {voice.at: known_trim(voice.cut) for voice in voices if voice.cut is not None}
    looking = [voice for voice in voices if voice.at not in known]
    if looking and options.get("trim") == "model":
        raise PvError("TIES over the whole model was asked of a tensor before its trim was found")
    k = max(1, int(float(options["density"]) * tensor.size))
    found = trimmed(tensor, [(k, taken(voice)) for voice in looking])
    trims = known | {voice.at: trim for voice, trim in zip(looking, found, strict=True)}
    return Election(options, voices, trims=trims)


@dataclass(frozen=True, slots=True)
class Election:
    """Elect and merge what `thinned` or the trims leave of each delta."""

    options: Mapping[str, Any]
    voices: Sequence[Voice]
    thinned: Thinned = Piece.tau
    trims: Mapping[int, Trim] = field(default_factory=dict)

    @property
    def undecided(self) -> str:
        return str(self.options.get("undecided", "plus"))

    def __call__(self, piece: Piece) -> F32:
        weighted, merge = self.options["elect"] == "weighted", self.options["merge"]
        out, ballot, divisor = np.zeros((3, piece.size), np.float32)
        contributions: list[F32] = []  # w·d, trimmed, (size,) each
        votes: list[F32] = []
        with np.errstate(all="ignore"):
            for voice in self.voices:
                kept = self._kept(piece, voice)
                weight = np.float32(abs(voice.weight))
                contribution = kept if weight == 1 else np.multiply(kept, weight)
                vote = contribution if weighted else kept
                np.add(ballot, vote, out=ballot)
                contributions.append(contribution)
                votes.append(vote)
            positive = ballot >= 0
            decided = ballot != 0 if self.undecided == "none" else np.True_
            for voice, contribution, vote in zip(self.voices, contributions, votes, strict=True):
                agrees = np.where(positive, vote > 0, vote < 0) & decided
                np.add(out, np.where(agrees, contribution, np.float32(0)), out=out)
                share = np.float32(abs(voice.weight) if merge == "weighted_mean" else 1)
                np.add(divisor, np.where(agrees, share, np.float32(0)), out=divisor)
            if merge != "sum":
                np.divide(out, np.where(divisor == 0, np.float32(1), divisor), out=out)
            scale = single(self.options["lambda"], "lambda")
            return out if scale == 1 else np.multiply(out, scale, out=out)

    def rounded(self, piece: Piece, rounding: Rounding) -> tuple[Raw, Result]:
        """The base with that, rounded: compiled, where `loops.fits` what is written."""
        return loops.ties(
            piece.own,
            [self._source(piece, voice) for voice in self.voices],
            rounding,
            piece.start,
            elect=str(self.options["elect"]),
            merge=str(self.options["merge"]),
            scale=float(self.options["lambda"]),
            undecided=self.undecided,
        )

    def _kept(self, piece: Piece, voice: Voice) -> F32:
        """What is left of a voice's delta, negated if its weight is negative: (size,) fp32."""
        kept = self.thinned(piece, voice)
        if (trim := self.trims.get(voice.at)) is not None:
            kept = np.where(trim.keeps(kept, piece.start), kept, np.float32(0))
        return np.negative(kept) if voice.weight < 0 else kept

    def _source(self, piece: Piece, voice: Voice) -> Delta:
        trim = self.trims.get(voice.at) or EVERYTHING
        if self.thinned is Piece.tau:
            return trim.on(replace(piece.deltas[voice.at], weight=voice.weight))
        return trim.on(loops.delta(self.thinned(piece, voice), "F32", whole=False, weight=voice.weight))
