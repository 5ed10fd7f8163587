"""One tensor within a step of Apollo: its gradient, the sketch of that, and the factors that come of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pv.vecstore.train.round_weights import rounded, wants_master
from pv.vecstore.train.sharded import local, shard_of
from pv.vecstore.train.sketch import draw_gaussian, draw_signs, key_of, sketch

__all__ = ["FLOOR", "Projections", "TensorStep"]

FLOOR = 0.05
SMALLEST = 1e-15  # a channel whose sketch is below this has no direction to speak of
Projections = dict[Tensor, tuple[tuple[Any, ...], Tensor]]


class TensorStep:
    """A parameter (or this process's share of it) and what one step computes for it, in the order of the methods."""

    square: Tensor
    """The squared norm of the gradient (here)."""

    def __init__(self, p: Tensor, group: dict[str, Any], name: str) -> None:
        self.p, self.group, self.name = p, group, name
        self.weights = local(p)
        self.shard = shard_of(p)
        self.given = p.grad is not None and (self.shard is not None or p.numel() > 0)
        self.matrix = p.ndim in (2, 3) and min(p.shape[-2:]) > 1
        self.wide = self.matrix and p.shape[-2] < p.shape[-1]
        self.along = p.ndim - 2 if self.wide else p.ndim - 1  # the dimension of a channel's entries
        self.rank = min(group["rank"], p.shape[self.along]) if self.matrix else 0
        self.clip = 1.0
        self.cut = self.shard.groups([self.along]) if self.shard and self.matrix else []
        others = [dim for dim in range(p.ndim) if not (self.matrix and dim == self.along)]
        self.apart = self.shard.groups(others) if self.shard else []

    def identity(self) -> str:
        skipped = ("params", "param_names", "lr")
        settings = sorted((key, str(value)) for key, value in self.group.items() if key not in skipped)
        return f"{self.name} {tuple(self.p.shape)} {self.shard and self.shard.placements} {settings}"

    # 1. The sketch

    def project(self, state: dict[str, Any], kept: Projections) -> None:
        """Have the projection of this step: kept until the next refresh, drawn again where it is missing."""
        assert self.p.grad is not None
        if self.p.grad.is_sparse:
            raise RuntimeError("Apollo does not take sparse gradients")
        self.grad = local(self.p.grad).float()
        if not self.matrix:
            return
        refresh = int(state["step"]) // self.group["refresh"] if state else 0
        kind, seed, whole = self.group["projection"], self.group["seed"], self.p.shape[self.along]
        key = (kind, seed, refresh, self.name, self.rank, whole)
        found = kept.get(self.p)
        if found is None or found[0] != key:
            if kind == "signs":
                drawn = draw_signs(key_of("pv:apollo:2", seed, refresh, self.name), whole)
            else:
                drawn = draw_gaussian(key_of("pv:apollo:1", seed, refresh, self.name), self.rank, whole)
            found = kept[self.p] = (key, drawn.to(self.grad.device))
        self.start = self.shard.offset[self.along] if self.shard else 0
        self.projection = found[1].narrow(-1, self.start, self.grad.shape[self.along])

    def sketched(self) -> None:
        """R and the squared lengths of channels: of what is here."""
        g = self.grad
        if not self.matrix:
            self.sketch, self.lengths = g, torch.linalg.vector_norm(g).square()
        elif self.group["projection"] == "signs":
            self.sketch, self.lengths = sketch(
                g, self.projection, self.rank, wide=self.wide, start=self.start
            )
        else:
            self.sketch = self.projection @ g if self.wide else g @ self.projection.mT
            self.lengths = torch.linalg.vector_norm(g, dim=self.along, keepdim=True).square_()

    # 2. The moments, once it is known that the gradient is finite and by how much it is clipped

    def advance(self, state: dict[str, Any]) -> None:
        """Adam's moments of the sketch; of these the factors, and the sums that their norm is made of."""
        group, moving = self.group, self.sketch
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["exp_avg"], state["exp_avg_sq"] = self._zeros(), self._zeros()
            if self.matrix:
                state["norm"] = torch.zeros((), dtype=torch.float64)
            if wants_master(self.p, group["half"]):
                state["master"] = self._kept(self.weights.float())
        state["step"] += 1
        step = self.step = int(state["step"])
        if self.clip != 1:
            moving = moving.mul_(self.clip) if self.matrix else moving * self.clip
        beta1, beta2 = group["betas"]
        first = local(state["exp_avg"]).lerp_(moving, 1 - beta1)
        second = local(state["exp_avg_sq"]).mul_(beta2).addcmul_(moving, moving, value=1 - beta2)
        correct = math.sqrt(
            1 - beta2**step
        )  # of M̂ / (√V̂ + eps), what is the same for all entries is left for last
        below = second.sqrt().add_(group["eps"] * correct)
        adapted = torch.div(first, below, out=below)
        self.constant = correct / (1 - beta1**step)
        if not self.matrix:
            self.factors, self.sums = adapted, []
            return
        below = moving.square_().sum(self.along, keepdim=True)  # squared lengths of channels
        above = adapted.square_().sum(self.along, keepdim=True)
        if group["factors"] == "tensor":
            self.sums = [above.sum(), below.sum()]
            return
        ratios = torch.where(below > SMALLEST**2, above / below, torch.zeros_like(above))
        self.sums = [(ratios * self.lengths).sum(), torch.zeros_like(self.square)]
        self.factors = ratios.sqrt_()

    def _zeros(self) -> Tensor:
        return self._kept(torch.zeros_like(self.sketch, memory_format=torch.contiguous_format), self.rank)

    def _kept(self, share: Tensor, size: int = 0) -> Tensor:
        """As state: with the placement of the parameter, so that checkpoints of several processes have all of it."""
        return self.shard.whole(self.along if size else None, size, share) if self.shard else share

    # 3. The weights, once the norm of the update is known

    def update(self, state: dict[str, Any], norm: float, sums: list[float]) -> None:
        """Limit the update's growth, and make it. `norm` is that of the whole gradient of this tensor."""
        group = self.group
        lr = float(group["lr"])
        weights = local(state["master"]) if "master" in state else self.weights
        exact = weights if weights.dtype == torch.float32 else weights.float()
        if group["weight_decay"]:
            exact.mul_(1 - lr * group["weight_decay"])
        if not self.matrix:
            exact.add_(self.factors, alpha=-lr * self.constant)
        else:
            entries = self.p.shape[self.along]
            factor = self.clip * self.constant
            factor *= math.sqrt(entries / self.rank) if group["scale"] == "auto" else float(group["scale"])
            if group["factors"] == "tensor":
                factor *= math.sqrt(sums[0] / sums[1]) if math.sqrt(sums[1]) > SMALLEST else 0.0
                size = factor * norm
            else:
                size = factor * math.sqrt(sums[0])
            if size > 0:
                previous = float(state["norm"])
                floor = FLOOR * math.sqrt(self.p.numel())
                kept = min(size, group["growth"] * max(previous, floor)) if previous else size
                state["norm"].fill_(kept)
                factor *= -lr * kept / size
                if group["factors"] == "tensor":
                    exact.add_(self.grad, alpha=factor)
                else:
                    exact.addcmul_(self.grad, self.factors.mul_(factor))
        if exact is not self.weights:
            at = (group["seed"], self.name, self.step, self.shard.offset if self.shard else ())
            self.weights.copy_(rounded(exact, self.weights.dtype, group["half"], *at))
