"""No method of its own: what dare, della and breadcrumbs have in common, deltas thinned out and then summed or elected.

Switches, which mean what they mean in `ties`:

    elect     none: every element that was kept counts; weighted, unweighted: only those that agree with the sign
              that is elected for their place
    merge     over those that count: the weighted `sum`; that divided by their number (`mean`), or by the sum of
              their weights (`weighted_mean`), which refuses negative weights
    lambda    multiplies the result
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.vecstore.merge.methods import ties
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step, Thinned
from pv.vecstore.tensors.arithmetic import BLOCK, scaled_sum, single
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.philox import Stream

__all__ = ["check_signs", "drawn", "merged", "streams"]


def check_signs(method: str, options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a negative weight where it is divided by. Raises UsageError."""
    if options["merge"] == "weighted_mean" and weight < 0:
        raise UsageError(
            f"{what} is {weight:g}: {method} with merge=weighted_mean divides by the weights, "
            "so a negative one would act as a positive one",
            hint="use merge=mean or merge=sum, or combine with add",
        )


def merged(options: Mapping[str, Any], voices: Sequence[Voice], thinned: Thinned = Piece.tau) -> Step:
    """The step for one tensor, whose deltas are thinned out piece by piece."""
    if options["elect"] != "none":
        return ties.Election(options, voices, thinned)
    return partial(_summed, options, voices, thinned)


def _summed(options: Mapping[str, Any], voices: Sequence[Voice], thinned: Thinned, piece: Piece) -> F32:
    kept = [thinned(piece, voice) for voice in voices]
    total = scaled_sum([(voice.weight, delta) for voice, delta in zip(voices, kept, strict=True)])
    by_weight = options["merge"] == "weighted_mean"
    with np.errstate(all="ignore"):
        if options["merge"] != "sum":
            divisor = np.zeros(piece.size, np.float32)
            for voice, delta in zip(voices, kept, strict=True):
                counts = np.float32(voice.weight if by_weight else 1)
                np.add(divisor, np.where(delta != 0, counts, np.float32(0)), out=divisor)
            np.divide(total, np.where(divisor == 0, np.float32(1), divisor), out=total)
        scale = single(options["lambda"], "lambda")
        return total if scale == 1 else np.multiply(total, scale, out=total)


def streams(
    method: str, options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor
) -> dict[int, Stream]:
    """Random bits for each voice: those of the stream `METHOD KEY TENSOR` under the seed (tensors/philox).

    They belong to its key, the tensor's name and the element's index, and to nothing else.
    """
    seed = int(options["seed"])
    return {voice.at: Stream(seed, f"{method} {voice.key} {tensor.name}") for voice in voices}


def drawn(stream: Stream, piece: Piece) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
    """32 of them for each element, block by block: a view that the next step overwrites."""
    for low in range(0, piece.size, BLOCK):
        high = min(low + BLOCK, piece.size)
        yield slice(low, high), stream.bits32(piece.start + low, high - low)
