"""Apollo: AdamW's step sizes from a low-rank sketch of the gradient, written from arXiv:2412.05270.

For a matrix G with c = max(m, n) channels of k = min(m, n) entries (Algorithm 1, transposed where m < n):

    R  = G Pᵀ                        (c, r)   P ~ N(0, 1/r), (r, k), drawn anew every `refresh` steps
    R̃  = AdamW moments of R          (c, r)   M̂ / (√V̂ + eps), both bias-corrected, kept in float32
    s  = ‖R̃ⱼ‖ / ‖Rⱼ‖                 (c,)     one factor per channel
    U  = α · s ⊙ G                   (c, k)   the gradient itself at full rank; no momentum in its direction
    U  = U · γ‖U'‖ / ‖U‖  if ‖U‖ > γ‖U'‖      norm-growth limiter; U' is the update before
    W  = (1 − lr·λ) W − lr · U

What is decided here where the paper leaves it open:

- α = √(k / r) per tensor ("auto"): projecting a channel of k entries onto r shrinks s by √(r / k) (Theorem
  A.4), so with it `lr` means what it means for AdamW, for every shape and rank. A number overrides it.
- P comes from (seed, name of the parameter, number of the refresh) by a counter-based generator on the CPU:
  the same on every device and in every process, and never part of the state.
- Rank is clamped to k. Tensors that are not matrices (1-D, or with a side of 1) get plain AdamW; a 3-D
  tensor is a batch of matrices that share one P.
- A gradient with NaN or infinity changes nothing for that tensor: no weight, no moment, no count.
- The limiter has a floor: an update may always reach FLOOR root-mean-square (in units of lr). A zero
  gradient leaves it alone. Without a floor one vanishing gradient would hold a tensor still for ages.
- State is tensors only, and loads with `weights_only=True`. Moments stay float32 for half-precision weights.
- eps is 1e-8 as in AdamW (gradients of large models are small); betas are (0.9, 0.999).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

__all__ = ["Apollo"]

FLOOR = 0.05
SMALLEST = 1e-15  # a channel whose sketch is below this has no direction to speak of


class Apollo(torch.optim.Optimizer):
    """Give it `model.named_parameters()`: names make the projections reproducible. `rank` has no default.

    Raises ValueError for settings out of range, TypeError for a missing rank, RuntimeError for a sparse
    gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        *,
        rank: int,
        scale: float | Literal["auto"] = "auto",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        refresh: int = 200,
        growth: float = 1.01,
        seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr, "rank": rank, "scale": scale, "betas": betas, "eps": eps,
            "weight_decay": weight_decay, "refresh": refresh, "growth": growth, "seed": seed,
        }  # fmt: skip
        self._projections: dict[Tensor, tuple[int, Tensor]] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _check(group)
        if any(not p.is_floating_point() for p in group["params"]):
            raise ValueError("Apollo trains real floating-point parameters only")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._projections = {}

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            names = group.get("param_names")
            for index, p in enumerate(group["params"]):
                if p.grad is None or not p.numel():
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("Apollo does not take sparse gradients")
                grad = p.grad.float()
                name = names[index] if names else f"{number}.{index}"
                if _is_matrix(p):
                    self._step_matrix(p, grad, group, name)
                else:
                    self._step_adamw(p, grad, group)
        return loss

    def _step_matrix(self, p: Tensor, grad: Tensor, group: dict[str, Any], name: str) -> None:
        wide = grad.shape[-2] < grad.shape[-1]
        g = grad.mT if wide else grad  # (..., c, k), channels first
        lengths = torch.linalg.vector_norm(g, dim=-1, keepdim=True)  # (..., c, 1)
        if not math.isfinite(float(lengths.sum())):
            return
        rank = min(group["rank"], g.shape[-1])
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["exp_avg"] = g.new_zeros((*g.shape[:-1], rank))
            state["exp_avg_sq"] = g.new_zeros((*g.shape[:-1], rank))
            state["norm"] = torch.zeros((), dtype=torch.float64)
        refresh = int(state["step"]) // group["refresh"]
        sketch = g @ self._projection(p, refresh, rank, group["seed"], name).mT  # (..., c, r)
        adapted = _moments(state, sketch, group)  # (..., c, r)
        below = torch.linalg.vector_norm(sketch, dim=-1, keepdim=True)  # (..., c, 1)
        factors = torch.linalg.vector_norm(adapted, dim=-1, keepdim=True) / below
        factors = torch.where(below > SMALLEST, factors, torch.zeros_like(factors))

        alpha = math.sqrt(g.shape[-1] / rank) if group["scale"] == "auto" else float(group["scale"])
        norm = alpha * float(torch.linalg.vector_norm(factors * lengths))  # of U, before the limiter
        if norm == 0.0:
            _decay(p, group)
            return
        previous = float(state["norm"])
        limit = group["growth"] * max(previous, FLOOR * math.sqrt(g.numel())) if previous else math.inf
        kept = min(norm, limit)
        state["norm"].fill_(kept)
        _decay(p, group)
        factors *= -group["lr"] * alpha * (kept / norm)
        update = factors.mT if wide else factors
        if p.dtype == torch.float32:
            p.addcmul_(grad, update)
        else:
            p.add_((grad * update).to(p.dtype))

    def _step_adamw(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if not bool(torch.isfinite(grad).all()):
            return
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["exp_avg"] = torch.zeros_like(grad)
            state["exp_avg_sq"] = torch.zeros_like(grad)
        update = _moments(state, grad, group)
        _decay(p, group)
        p.add_((update * -group["lr"]).to(p.dtype))

    def _projection(self, p: Tensor, refresh: int, rank: int, seed: int, name: str) -> Tensor:
        """P: (r, k) float32. Kept until the next refresh; made again from its key where it is missing."""
        kept = self._projections.get(p)
        if kept is None or kept[0] != refresh:
            key = hashlib.sha256(f"pv:apollo:1\n{seed}\n{refresh}\n{name}".encode()).digest()
            generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
            drawn = generator.standard_normal((rank, min(p.shape[-2:])), dtype=np.float32)
            kept = (refresh, torch.from_numpy(drawn / np.float32(math.sqrt(rank))).to(p.device))
            self._projections[p] = kept
        return kept[1]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(
            state_dict
        )  # casts moments to the parameter's dtype: put them back as they were
        self._projections = {}
        saved = state_dict["state"]
        packed = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(packed, params, strict=True):
            for key, value in saved.get(index, {}).items():
                device = p.device if key.startswith("exp_avg") else value.device
                self.state[p][key] = value.detach().clone().to(device)
        for group in self.param_groups:
            _check(group)


def _moments(state: dict[str, Any], value: Tensor, group: dict[str, Any]) -> Tensor:
    """Advance Adam's two moments by `value`; returns M̂ / (√V̂ + eps), of the same shape."""
    beta1, beta2 = group["betas"]
    state["step"] += 1
    step = int(state["step"])
    first: Tensor = state["exp_avg"].lerp_(value, 1 - beta1)
    second: Tensor = state["exp_avg_sq"].mul_(beta2).addcmul_(value, value, value=1 - beta2)
    denominator = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
    adapted: Tensor = (first / (1 - beta1**step)).div_(denominator)
    return adapted


def _decay(p: Tensor, group: dict[str, Any]) -> None:
    if group["weight_decay"]:
        p.mul_(1 - group["lr"] * group["weight_decay"])


def _is_matrix(p: Tensor) -> bool:
    return p.ndim in (2, 3) and min(p.shape[-2:]) > 1


def _check(group: dict[str, Any]) -> None:
    rank, scale, (beta1, beta2) = group["rank"], group["scale"], group["betas"]
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"rank must be a whole number from 1, not {rank!r}")
    if scale != "auto" and not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
        raise ValueError(f"scale must be 'auto' or a positive number, not {scale!r}")
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas must be in [0, 1), not {group['betas']!r}")
    if not (math.isfinite(group["lr"]) and group["lr"] >= 0):
        raise ValueError(f"lr must be finite and not negative, not {group['lr']!r}")
    if not group["eps"] > 0 or not 0 <= group["weight_decay"] < math.inf:
        raise ValueError("eps must be positive and weight_decay not negative")
    if group["refresh"] < 1 or group["growth"] < 1:
        raise ValueError("refresh and growth must be at least 1")
