"""Which neurons come first, row by row: by delta x gradient, by what it is held against, and at random.

delta   what a neuron does in B minus what it does in A, on the same text
grad    the gradient of the margin by the neuron, in A
ig      delta times the mean gradient over steps from A's activations to B's: integrated gradients, as EAP-IG takes them
random  each neuron of the first ranking has its place taken by one drawn from those whose |delta| is nearest in order
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from pv.vecstore.probe.neurons_pass import Patch
from pv.vecstore.probe.neurons_sites import Scope

if TYPE_CHECKING:
    import torch

__all__ = ["BASELINES", "METHODS", "first_of", "masked", "matched", "ranking"]

METHODS = ("delta*grad", "delta", "grad", "ig", "random")
BASELINES = METHODS[1:]
NEAREST = 64  # neurons of about one |delta|, among which one is drawn


def ranking(scores: torch.Tensor, scope: Scope, most: int, *, positive: bool) -> torch.Tensor:
    """(n, most) neurons with the largest of (n, D) scores first; of those that are alike the first. -1: none is left,
    where only scores above 0 count."""
    import torch

    inside = scores[:, scope.slice]
    found, order = torch.sort(inside, dim=1, descending=True, stable=True)
    order = order[:, :most] + scope.start
    return torch.where(found[:, :most] > 0, order, -1) if positive else order


def first_of(order: torch.Tensor, k: int, total: int) -> torch.Tensor:
    """(n, D) mask of the first k of a ranking."""
    import torch

    mask = torch.zeros(len(order), total + 1, dtype=torch.bool)
    some = order[:, :k]
    mask.scatter_(1, torch.where(some < 0, total, some), True)
    return mask[:, :total]


def masked(order: torch.Tensor, k: int, values: torch.Tensor) -> Patch:
    return Patch(values, first_of(order, k, values.shape[1]))


def matched(order: torch.Tensor, sizes: torch.Tensor, scope: Scope, key: str) -> torch.Tensor:
    """A random ranking (n, K) whose sizes, of (n, D), are about those of `order`'s neurons, place by place.

    The same key gives the same. No neuron stands twice in it.
    """
    import torch

    inside = sizes[:, scope.slice].numpy()
    by_size = np.argsort(-inside, axis=1, kind="stable")  # (n, W)
    place = np.argsort(by_size, axis=1, kind="stable")
    drawn = _generator(key).random(inside.shape)
    shuffled = np.argsort(np.arange(scope.size) // NEAREST + drawn, axis=1, kind="stable")
    known = order.numpy()
    own = np.take_along_axis(place, np.maximum(known - scope.start, 0), 1)
    found = np.take_along_axis(by_size, np.take_along_axis(shuffled, own, 1), 1) + scope.start
    return torch.from_numpy(np.where(known < 0, -1, found))


def _generator(key: str) -> np.random.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
