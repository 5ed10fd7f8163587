"""What a direction may be already: one neuron, or a mixture of directions that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.activations.directions import cosine
from pv.vecstore.activations.sites import Site

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NEURON", "REDUNDANT", "Neuron", "nearest", "neuron", "redundancy"]

F32 = NDArray[np.float32]
NEURON = 0.6  # cosine from which a direction is as good as one neuron's
REDUNDANT = 0.9  # share of a direction that known ones explain from which it says nothing new
WRITERS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "fc2")


@dataclass(frozen=True, slots=True)
class Neuron:
    """The neuron of the MLP at `module` whose output points most like a direction."""

    module: str
    index: int
    cosine: float

    def to_json(self) -> dict[str, Any]:
        return {"module": self.module, "index": self.index, "cosine": self.cosine}


def neuron(model: nn.Module, site: str, direction: F32) -> Neuron | None:
    """Of the MLP of the layer that a site is the output of; None where there is none of that width."""
    place = Site.parse(site)
    if place.input or place.count > 1:
        return None
    modules = dict(model.named_modules())
    for name in WRITERS:
        module = modules.get(f"{place.module}.{name}")
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2:
            continue
        columns = weight.detach().float().cpu().numpy()  # (d, neurons); of a Conv1D (neurons, d)
        columns = columns.T if type(module).__name__ == "Conv1D" else columns
        if columns.shape[0] != direction.size:
            continue
        norms = np.linalg.norm(columns, axis=0) * np.linalg.norm(direction)
        found = (direction.ravel() @ columns) / np.maximum(norms, 1e-30)
        at = int(np.abs(found).argmax())
        return Neuron(f"{place.module}.{name}", at, float(found[at]))
    return None


def nearest(direction: F32, known: Mapping[str, F32], most: int = 5) -> dict[str, float]:
    """Cosines with known directions of the same site, the largest first."""
    found = {name: cosine(direction, one) for name, one in known.items() if one.shape == direction.shape}
    return dict(sorted(found.items(), key=lambda item: -abs(item[1]))[:most])


def redundancy(direction: F32, known: Mapping[str, F32], ridge: float = 1e-3) -> float:
    """The share of a direction's squared length that a mixture of known ones explains (ridge regression)."""
    rows = [one.ravel() for one in known.values() if one.shape == direction.shape and one.any()]
    if not rows or not direction.any():
        return 0.0
    x = np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float64)  # (k, D)
    y = direction.ravel().astype(np.float64) / float(np.linalg.norm(direction))
    weights = np.linalg.solve(x @ x.T + ridge * np.eye(len(x)), x @ y)
    return float(max(0.0, 1 - np.square(y - weights @ x).sum()))
