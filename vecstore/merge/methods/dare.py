"""`dare`: drop elements of each delta by lot, and divide what is kept by the share that is kept.

Yu et al., "Language Models are Super Mario" (DARE), ICML 2024: with density ρ an element is kept with probability ρ and
becomes δ/ρ, so that its mean is δ. Kept is an element whose 32 random bits, as a number, are below ⌊ρ·2³²⌋. They belong
to (`seed`, the vector, the tensor's name, the element's index), see `sparse`: no order, thread or name of a
behaviour has a part in them. A vector that is negated is thinned at the same places.

Then as `elect`, `merge` and `lambda` say (`sparse`): elect=none with merge=sum is mergekit's `dare_linear`,
elect=weighted with merge=sum its `dare_ties`, but for two things: mergekit draws from a global generator, and does not
divide by ρ, but scales a tensor until its L1 norm is what it was. PEFT divides by ρ too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pv.vecstore.merge.methods import sparse
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step
from pv.vecstore.tensors.arithmetic import single
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "check_weight", "ready"]

NAME = "dare"
LINEAR = False


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    sparse.check_signs(NAME, options, weight, what)


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor."""
    density = float(options["density"])
    if density == 1:
        return sparse.merged(options, voices)
    below, kept = np.uint32(int(density * 2.0**32)), single(density, "density")
    streams = sparse.streams(NAME, options, voices, tensor)

    def thinned(piece: Piece, voice: Voice) -> F32:
        out, tau = np.zeros(piece.size, np.float32), piece.tau(voice)
        with np.errstate(all="ignore"):
            for part, bits in sparse.drawn(streams[voice.at], piece):
                np.divide(tau[part], kept, out=out[part], where=bits < below)
        return out

    return sparse.merged(options, voices, thinned)
