"""Apollo: AdamW's step sizes from a low-rank sketch of the gradient, written from arXiv:2412.05270.

For a matrix G with c = max(m, n) channels of k = min(m, n) entries (Algorithm 1, transposed where m < n):

    R  = G Pᵀ                        (c, r)   a random projection (r, k), drawn anew every `refresh` steps
    R̃  = AdamW moments of R          (c, r)   M̂ / (√V̂ + eps), both bias-corrected, kept in float32
    s  = ‖R̃ⱼ‖ / ‖Rⱼ‖                 (c,)     one factor per channel; Mini: ‖R̃‖ / ‖R‖, one for the tensor
    U  = α · s ⊙ G                   (c, k)   the gradient itself at full rank; no momentum in its direction
    U  = U · γ‖U'‖ / ‖U‖  if ‖U‖ > γ‖U'‖      norm-growth limiter; U' is the update before
    W  = (1 − lr·λ) W − lr · U

What is decided here where the paper leaves it open:

- α = √(k / r) per tensor ("auto"): projecting a channel of k entries onto r shrinks s by √(r / k) (Theorem
  A.4), so with it `lr` means what it means for AdamW, for every shape and rank. A number overrides it.
- P has one random sign a column (sketch.py): one pass over G gives R and the channels' lengths. With
  `projection="gaussian"` it is the paper's N(0, 1/r).
- P comes from (seed, name of the parameter, number of the refresh) by a counter-based generator on the CPU:
  the same on every device and in every process, and never part of the state.
- Rank is clamped to k. Tensors that are not matrices (1-D, or with a side of 1) get plain AdamW; a 3-D
  tensor is a batch of matrices that share one P.
- A gradient with NaN or infinity changes nothing for that tensor: no weight, no moment, no count.
- The limiter has a floor: an update may always reach FLOOR root-mean-square (in units of lr). A zero
  gradient leaves it alone. Without a floor one vanishing gradient would hold a tensor still for ages.
- State is tensors only, and loads with `weights_only=True`. Moments stay float32 for half-precision weights.
- bfloat16 weights are rounded stochastically, or have float32 masters: rounded to nearest, most of a
  movement at a usual learning rate is lost.
- `max_norm` clips the gradient of all parameters as clip_grad_norm_ does, without a pass over it.
- A step waits for the device twice, not once for every tensor; and where parameters are DTensors, these are
  its two small all-reduces.
- eps is 1e-8 as in AdamW (gradients of large models are small); betas are (0.9, 0.999).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, overload

import torch
from torch import Tensor

from pv.vecstore.train.round_weights import ROUNDINGS
from pv.vecstore.train.sharded import add_up, agree
from pv.vecstore.train.tensor_step import FLOOR, Projections, TensorStep

__all__ = ["FLOOR", "Apollo", "ApolloMini"]

CHOICES = {"factors": ("channel", "tensor"), "projection": ("signs", "gaussian"), "half": ROUNDINGS}


class Apollo(torch.optim.Optimizer):
    """Give it `model.named_parameters()`: names make the projections reproducible. `rank` has no default.

    Raises ValueError for settings out of range, TypeError for a missing rank, RuntimeError for a sparse
    gradient, and for processes of one run that do not do the same.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-4,
        *,
        rank: int,
        scale: float | Literal["auto"] = "auto",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        refresh: int = 200,
        growth: float = 1.01,
        seed: int = 0,
        max_norm: float = 0.0,
        factors: Literal["channel", "tensor"] = "channel",
        projection: Literal["signs", "gaussian"] = "signs",
        half: Literal["stochastic", "master", "nearest"] = "stochastic",
    ) -> None:
        defaults = {
            "lr": lr, "rank": rank, "scale": scale, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "refresh": refresh, "growth": growth, "seed": seed, "max_norm": max_norm, "factors": factors,
            "projection": projection, "half": half,
        }  # fmt: skip
        self._fresh()
        super().__init__(params, defaults)

    def _fresh(self) -> None:
        self._projections: Projections = {}
        self._agreed = False
        self.grad_norm = 0.0
        """The norm of the whole gradient of the last step, before it was clipped; NaN if it was not finite."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _check(group)
        if any(not p.is_floating_point() for p in group["params"]):
            raise ValueError("Apollo trains real floating-point parameters only")
        self._agreed = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._fresh()

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
        every = [
            TensorStep(p, group, group["param_names"][i] if "param_names" in group else f"{number}.{i}")
            for number, group in enumerate(self.param_groups)
            for i, p in enumerate(group["params"])
        ]
        if every and not self._agreed:
            said = "\n".join(one.identity() for one in every)
            agree(said, [one.shard for one in every], every[0].weights.device)
            self._agreed = True
        steps = [one for one in every if one.given]
        self._sketch(steps)
        squares = _summed([one.square for one in steps], [one.apart for one in steps], "the gradients")
        finite = [(one, square) for one, square in zip(steps, squares, strict=True) if math.isfinite(square)]
        self.grad_norm = math.sqrt(sum(squares)) if len(finite) == len(steps) else math.nan
        total = math.sqrt(sum(square for _, square in finite))
        for one, _ in finite:
            limit = one.group["max_norm"]
            one.clip = min(1.0, limit / (total + 1e-6)) if limit else 1.0
            one.advance(self.state[one.p])
        sums = _summed(
            [value for one, _ in finite for value in one.sums],
            [one.apart for one, _ in finite for _ in one.sums],
            "the updates",
        )
        at = 0
        for one, square in finite:
            one.update(self.state[one.p], math.sqrt(square), sums[at : at + len(one.sums)])
            at += len(one.sums)
        return loss

    def _sketch(self, steps: Sequence[TensorStep]) -> None:
        for one in steps:
            one.project(self.state[one.p], self._projections)
        threads = torch.get_num_threads()
        if threads > 1 and all(one.grad.is_cpu for one in steps):
            with ThreadPoolExecutor(threads) as pool:  # the compiled loop is one thread, and holds no lock
                list(pool.map(TensorStep.sketched, steps))
        else:
            for one in steps:
                one.sketched()
        cut = [one for one in steps if one.cut]
        if cut:
            pieces = [x for one in cut for x in (one.sketch, one.lengths)]
            flat = torch.cat([x.reshape(-1) for x in pieces])
            for group in dict.fromkeys(group for one in cut for group in one.cut):
                flat = add_up(flat, [[group]] * len(flat), "sketches")
            for x, whole in zip(pieces, flat.split([x.numel() for x in pieces]), strict=True):
                x.copy_(whole.view_as(x))
        for one in steps:
            one.square = one.lengths.sum()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)  # casts to the parameter's dtype: put back what was saved
        self._fresh()
        saved = state_dict["state"]
        packed = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(packed, params, strict=True):
            for key, value in saved.get(index, {}).items():
                device = "cpu" if key in ("step", "norm") else p.device
                self.state[p][key] = value.detach().clone().to(device)
        for group in self.param_groups:
            _check(group)


class ApolloMini(Apollo):
    """Apollo of rank 1 with one factor for a whole tensor: AdamW with next to no state for matrices."""

    def __init__(
        self, params: Iterable[Any], lr: float | Tensor = 1e-4, *, rank: int = 1, **settings: Any
    ) -> None:
        super().__init__(params, lr, rank=rank, **{"factors": "tensor", **settings})


def _summed(values: Sequence[Tensor], groups: Sequence[Sequence[Any]], what: str) -> list[float]:
    """0-d tensors as numbers, over all processes: the device is waited for once."""
    if not values:
        return []
    stacked = torch.stack([value.to(values[0].device) for value in values])
    found: list[float] = (add_up(stacked, groups, what) if any(groups) else stacked).tolist()
    return found


def _check(group: dict[str, Any]) -> None:
    rank, scale, (beta1, beta2) = group["rank"], group["scale"], group["betas"]
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"rank must be a whole number from 1, not {rank!r}")
    if scale != "auto" and not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
        raise ValueError(f"scale must be 'auto' or a positive number, not {scale!r}")
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas must be in [0, 1), not {group['betas']!r}")
    lr = float(group["lr"])
    if not (math.isfinite(lr) and lr >= 0):
        raise ValueError(f"lr must be finite and not negative, not {lr!r}")
    if not group["eps"] > 0 or not 0 <= group["weight_decay"] < math.inf:
        raise ValueError("eps must be positive and weight_decay must be finite and not negative")
    if group["refresh"] < 1 or group["growth"] < 1:
        raise ValueError("refresh and growth must be at least 1")
    if not 0 <= group["max_norm"] < math.inf:
        raise ValueError(f"max_norm must be finite and not negative, not {group['max_norm']!r}")
    for key, allowed in CHOICES.items():
        if group[key] not in allowed:
            raise ValueError(f"{key} must be one of {', '.join(allowed)}, not {group[key]!r}")
