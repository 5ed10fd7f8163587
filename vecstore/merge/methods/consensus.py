"""`consensus`: add the deltas, and drop the elements that too few of them have a use for.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression" (TALL masks), ICML 2024. With
dᵢ = wᵢ·δᵢ and their sum D, an element is of use to behaviour i where |dᵢ| ≥ ratio · |D - dᵢ|. D is kept where at least
`users` behaviours have a use for it (all, where there are fewer than that), and multiplied by `lambda`.

`ratio` is the paper's λ of the mask, which it chooses for each task among 0.2 ... 0.6 on data. No mergekit method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step
from pv.vecstore.tensors.arithmetic import scaled_sum, single
from pv.vecstore.tensors.array import F32

__all__ = ["COUNT", "GIVEN_ALL", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "consensus"
LINEAR = False
GIVEN_ALL = True
COUNT = (2, None)


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor."""
    ratio, scale = single(options["ratio"], "ratio"), single(options["lambda"], "lambda")
    least = min(int(options["users"]), len(voices))

    def step(piece: Piece) -> F32:
        taus = [piece.tau(voice) for voice in voices]
        total = scaled_sum([(voice.weight, tau) for voice, tau in zip(voices, taus, strict=True)])
        users = np.zeros(piece.size, np.int64)
        with np.errstate(all="ignore"):
            for voice, tau in zip(voices, taus, strict=True):
                own = np.multiply(tau, np.float32(voice.weight))
                rest = np.abs(np.subtract(total, own))
                users += np.abs(own) >= np.multiply(rest, ratio)
            np.copyto(total, np.float32(0), where=users < least)
            return total if scale == 1 else np.multiply(total, scale, out=total)

    return step
