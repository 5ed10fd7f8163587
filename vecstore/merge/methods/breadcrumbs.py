"""`breadcrumbs`: drop a delta's largest elements as outliers, and its small ones as noise.

Davari and Belilovsky, "Model Breadcrumbs", ECCV 2024. In each tensor of n elements, in order of magnitude and of equal
ones by index, the ⌊γn⌋ largest are dropped and the k = ⌊ρn⌋ after them are kept; where there are fewer than k after
them, only the n - k largest are dropped. So at density 1 nothing is.

Then as `elect`, `merge` and `lambda` say (`sparse`): elect=none with merge=sum is mergekit's `breadcrumbs`,
elect=weighted with merge=sum its `breadcrumbs_ties`, both with its default of no rescaling
(the preset: its default switches).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pv.vecstore.merge.methods import sparse
from pv.vecstore.merge.selection import taken, trimmed
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "check_weight", "ready"]

NAME = "breadcrumbs"
LINEAR = False


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    sparse.check_signs(NAME, options, weight, what)


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor, which is looked at until the thresholds are known."""
    size = tensor.size
    wanted = int(float(options["density"]) * size)
    outliers = min(int(float(options["gamma"]) * size), size - wanted)
    cuts = trimmed(tensor, [(k, taken(voice)) for voice in voices for k in (outliers, outliers + wanted)])
    dropped, within = (
        {voice.at: cut for voice, cut in zip(voices, cuts[at::2], strict=True)} for at in (0, 1)
    )

    def thinned(piece: Piece, voice: Voice) -> F32:
        tau = piece.tau(voice)
        keep = within[voice.at].keeps(tau, piece.start) & ~dropped[voice.at].keeps(tau, piece.start)
        return np.where(keep, tau, np.float32(0))

    return sparse.merged(options, voices, thinned)
