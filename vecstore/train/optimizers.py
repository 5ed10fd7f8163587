"""The optimizer of a run, and its state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pv.vecstore.train.options import TrainOptions

if TYPE_CHECKING:
    import torch

__all__ = ["advance", "make_optimizer", "put_state", "state_tensors"]


def make_optimizer(names: Mapping[str, torch.nn.Parameter], options: TrainOptions) -> torch.optim.Optimizer:
    import torch

    from pv.vecstore.train.apollo import Apollo

    params = list(_named(names))
    if options.optimizer == "adamw":
        return torch.optim.AdamW([p for _, p in params], lr=options.lr, weight_decay=options.weight_decay)
    return Apollo(
        params,
        lr=options.lr,
        rank=options.rank,
        weight_decay=options.weight_decay,
        seed=options.seed,
        max_norm=options.clip,
    )


def advance(optimizer: torch.optim.Optimizer, limit: float) -> float:
    """One step with gradients of a total norm of `limit` at most (0: as they are); returns the norm they had.

    If that is not finite, not all weights are what they should be, and the run is lost.
    """
    from pv.vecstore.train.apollo import Apollo

    if isinstance(optimizer, Apollo):  # its max_norm: no pass over the gradients of its own
        optimizer.step()
        return optimizer.grad_norm
    norm = _clip(optimizer, limit)
    if math.isfinite(norm):
        optimizer.step()
    return norm


def _clip(optimizer: torch.optim.Optimizer, limit: float) -> float:
    import torch

    from pv.vecstore.train.sharded import whole

    params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    total = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    norm = float(whole(total))
    if limit and math.isfinite(norm):
        torch.nn.utils.clip_grads_with_norm_(params, limit, total)
    return norm


def state_tensors(
    names: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """`<parameter>/<key>`: all that an optimizer remembers is tensors, or this raises TypeError."""
    import torch

    found: dict[str, torch.Tensor] = {}
    for name, p in _named(names):
        for key, value in optimizer.state.get(p, {}).items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"the optimizer keeps a {type(value).__name__} under {key!r}, not a tensor")
            found[f"{name}/{key}"] = value
    return found


def put_state(
    names: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """The inverse of `state_tensors`."""
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        by_name.setdefault(name, {})[key] = tensor
    order = [name for name, _ in _named(names)]
    state = {number: by_name[name] for number, name in enumerate(order) if name in by_name}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _named(names: Mapping[str, torch.nn.Parameter]) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Each parameter once, in order of name; of tied names, the first."""
    unique = {id(p): (name, p) for name, p in reversed(list(names.items()))}
    yield from (pair for _, pair in sorted(unique.items(), key=lambda item: item[1][0]))
