"""How much a direction is, beside the activation that it is added to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.activations.hooks import captured
from pv.vecstore.activations.reading import Text

if TYPE_CHECKING:
    from torch import nn

__all__ = ["relative_doses"]

F32 = NDArray[np.float32]


def relative_doses(
    model: nn.Module,
    texts: Sequence[Text],
    directions: Mapping[str, F32],
    *,
    prompt: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """||v|| / ||h|| at each site, averaged over the tokens of all answers; with `prompt`, over those of the prompts.

    The mean is of the quotient, so that the few tokens with a huge activation (the first one, mostly) count for little.
    """
    import torch

    sums = dict.fromkeys(directions, 0.0)
    tokens = 0
    for done, text in enumerate(texts, start=1):
        part = slice(0, len(text.prompt) - 1) if prompt else slice(len(text.prompt), None)
        ids = torch.tensor([text.tokens], device=getattr(model, "device", None))
        with torch.no_grad(), captured(model, directions) as seen:
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
        for site, direction in directions.items():
            found = seen[site][0, part].float().flatten(-direction.ndim)  # (tokens, D)
            sums[site] += float((1 / found.norm(dim=-1).clamp_min(1e-12)).sum())
        tokens += len(range(*part.indices(len(text.tokens))))
        if progress is not None:
            progress(done, len(texts))
    return {
        site: float(np.linalg.norm(directions[site])) * sums[site] / max(tokens, 1) for site in directions
    }
