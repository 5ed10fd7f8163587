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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.vecstore.merge.methods import ties
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.tensors.arithmetic import BLOCK, common_size, scaled_sum, single
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.philox import Stream

__all__ = ["check_signs", "drawn", "merge"]


def check_signs(method: str, options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a negative weight where it is divided by. Raises UsageError."""
    if options["merge"] == "weighted_mean" and weight < 0:
        raise UsageError(
            f"{what} is {weight:g}: {method} with merge=weighted_mean divides by the weights, "
            "so a negative one would act as a positive one",
            hint="use merge=mean or merge=sum, or combine with add",
        )


def merge(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Thinned deltas, (n,) fp32 each, with weights that are not 0 → (n,) fp32."""
    if options["elect"] != "none":
        return ties.combine({**options, "density": 1.0}, shares, place)
    total = scaled_sum([(share.weight, share.delta) for share in shares])
    by_weight = options["merge"] == "weighted_mean"
    with np.errstate(all="ignore"):
        if options["merge"] != "sum":
            for low in range(0, total.size, BLOCK):
                part = total[low : low + BLOCK]
                divisor = np.zeros(part.size, np.float32)
                for share in shares:
                    counts = single(share.weight if by_weight else 1, "a weight")
                    there = share.delta[low : low + BLOCK] != 0
                    np.add(divisor, np.where(there, counts, np.float32(0)), out=divisor)
                np.divide(part, np.where(divisor == 0, np.float32(1), divisor), out=part)
        scale = single(options["lambda"], "lambda")
        return total if scale == 1 else np.multiply(total, scale, out=total)


def drawn(method: str, seed: int, share: Share, place: Place) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
    """32 random bits for each element, block by block: a view that the next step overwrites.

    They are those of the stream `METHOD KEY TENSOR` under `seed` (tensors/philox): of a share's key, the tensor's name
    and the element's index, and of nothing else.
    """
    size = common_size([share.delta])
    stream = Stream(seed, f"{method} {share.key} {place.name}")
    for low in range(0, size, BLOCK):
        high = min(low + BLOCK, size)
        yield slice(low, high), stream.bits32(low, high - low)
