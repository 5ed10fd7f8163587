"""Vectors from pairs of mazes, and the policy with them added.

A vector is a difference of activations with the mouse at the start: one direction for each maze. Adding it at every
other square of a maze is what makes the result more than algebra. Reading and adding are `pv.vecstore.activations`,
the same code as for a language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.maze.world import SIDE, Ints, Mazes, observe, with_path
from pv.vecstore.activations.hooks import captured, steered

__all__ = [
    "Edits",
    "activations",
    "cheese",
    "downstream",
    "field",
    "gaussian",
    "logits",
    "other_maze",
    "path",
    "shuffled",
]

Edits = Mapping[str, Tensor]  # site -> (B, ...): what to add for each of B mazes

Floats = NDArray[np.float64]


@torch.no_grad()
def activations(model: nn.Module, mazes: Mazes, mouse: Ints, site: str) -> Tensor:
    """(B, ...)"""
    with captured(model, [site]) as seen:
        model(torch.from_numpy(observe(mazes, mouse)))
    return seen[site]


def cheese(model: nn.Module, mazes: Mazes, site: str) -> Tensor:
    """With the cheese minus without, mouse at the start: (B, ...)."""
    return _difference(model, mazes, mazes.without_cheese(), site)


def path(model: nn.Module, mazes: Mazes, site: str) -> Tensor:
    """The top-right vector: with a way to the square's own corner minus without, mouse at the start: (B, ...)."""
    return _difference(model, with_path(mazes), mazes, site)


def other_maze(model: nn.Module, mazes: Mazes, like: Tensor, site: str) -> Tensor:
    """A control: two mazes of a size, neither with cheese, one minus the other, with the norms of `like`."""
    bare, partner = mazes.without_cheese(), np.arange(len(mazes))
    for size in np.unique(mazes.sizes):
        same = np.flatnonzero(mazes.sizes == size)
        partner[same] = np.roll(same, 1)
    return _scaled(_difference(model, bare, bare[partner], site), like)


def gaussian(like: Tensor, seed: int) -> Tensor:
    """A control: Gaussian, with the norms of `like`."""
    return _scaled(torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)), like)


def shuffled(like: Tensor, seed: int) -> Tensor:
    """A control: the same columns of channels at other squares; of a vector without squares, entries elsewhere."""
    flat = like.flatten(2) if like.dim() == 4 else like
    order = torch.rand((len(like), flat.shape[-1]), generator=torch.Generator().manual_seed(seed)).argsort(-1)
    index = order[:, None].expand_as(flat) if flat.dim() == 3 else order
    return flat.gather(-1, index).reshape(like.shape)


@torch.no_grad()
def logits(model: nn.Module, mazes: Mazes, mouse: Ints, edits: Edits | None = None) -> Floats:
    """One state of each maze: (B, 4)."""
    seen = torch.from_numpy(observe(mazes, mouse))
    if not edits:
        plain: Floats = model(seen).double().numpy()
        return plain
    rows = []
    for at in range(len(mazes)):
        with steered(model, {site: vectors[at] for site, vectors in edits.items()}):
            rows.append(model(seen[at : at + 1]))
    return torch.cat(rows).double().numpy()


@torch.no_grad()
def field(model: nn.Module, mazes: Mazes, edits: Edits | None = None) -> Floats:
    """Log-probabilities at every free square, and NaN in walls: (B, 13, 13, 4)."""
    found = np.full((len(mazes), SIDE, SIDE, 4), np.nan)
    for at in range(len(mazes)):
        one = mazes.one(at)
        squares = np.argwhere(~one.walls[0])
        seen = torch.from_numpy(observe(one[np.zeros(len(squares), np.int64)], squares))
        with steered(model, {site: vectors[at] for site, vectors in (edits or {}).items()}):
            found[at, squares[:, 0], squares[:, 1]] = model(seen).log_softmax(-1).double().numpy()
    return found


@torch.no_grad()
def downstream(
    model: nn.Module, mazes: Mazes, mouse: Ints, edits: Edits, sites: Sequence[str]
) -> dict[str, Tensor]:
    """Activations (B, ...) at several sites, of a policy that is steered."""
    seen = torch.from_numpy(observe(mazes, mouse))
    rows: dict[str, list[Tensor]] = {site: [] for site in sites}
    for at in range(len(mazes)):
        with (
            steered(model, {site: vectors[at] for site, vectors in edits.items()}),
            captured(model, sites) as found,
        ):
            model(seen[at : at + 1])
        for site in sites:
            rows[site].append(found[site])
    return {site: torch.cat(all_of) for site, all_of in rows.items()}


def _difference(model: nn.Module, mazes: Mazes, less: Mazes, site: str) -> Tensor:
    return activations(model, mazes, mazes.start, site) - activations(model, less, less.start, site)


def _scaled(vectors: Tensor, like: Tensor) -> Tensor:
    """Each with the norm of its maze's vector."""
    norms = [one.flatten(1).norm(dim=1).clamp_min(1e-12) for one in (like, vectors)]
    ratio: Tensor = norms[0] / norms[1]
    return vectors * ratio.reshape(-1, *[1] * (like.dim() - 1))
