"""Whether directions fit a model, before one of its weights is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import BaseMismatch, UsageError
from pv.vecstore.activations.hooks import steered
from pv.vecstore.activations.sites import Site, module_at

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_fits"]

F32 = NDArray[np.float32]
TOKENS = 2


def check_fits(model: nn.Module, directions: Mapping[str, F32]) -> bool:
    """Run a language model on the meta device, steered: shapes are computed and no number is.

    False if it cannot run there, as where shapes depend on numbers: then the names of sites were checked alone.
    Raises BaseMismatch for a module that is not there, or a direction of another shape.
    """
    import torch

    try:
        for site in directions:
            module_at(model, Site.parse(site))
        edits = {site: torch.empty(one.shape, device="meta") for site, one in directions.items()}
        with torch.no_grad(), steered(model, edits):
            model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long, device="meta"))
    except UsageError as error:
        raise BaseMismatch(str(error), hint=error.hint) from error
    except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError, AttributeError):
        return False
    return True
