"""Training: the planner's moves are copied by cross-entropy. A net that was trained is kept, and not trained again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.maze.net import Policy, Shape, net
from examples.maze.planner import distances, moves
from examples.maze.world import SIDE, Bools, Ints, Mazes, draw, observe

__all__ = ["Recipe", "states", "trained", "trained_in"]

VERSION = 1  # of what is below: another number, other nets


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a net: the cheese is in the inner top-right region x region (13: anywhere)."""

    region: int = 5
    seed: int = 0
    shape: Shape = field(default_factory=Shape)
    sizes: tuple[int, ...] = (5, 7, 9, 11, 13)
    steps: int = 3000
    batch: int = 128
    rate: float = 3e-3
    on_path: float = 0.8  # of the states; the others are of any free square
    hidden: float = 0.1  # of the states: the planner sees the cheese, the net does not
    mice: int = 8  # states of a maze
    mazes: int = 2048  # drawn at a time

    @property
    def name(self) -> str:
        said = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return f"region-{self.region}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def trained(recipe: Recipe, folder: Path, said: Callable[[int, float], None] | None = None) -> Policy:
    """The net, from `folder` if it is there; else trained, kept there whole, and `said` (step, loss) now and then."""
    model, file = net(recipe.shape, recipe.seed), folder / f"{recipe.name}.safetensors"
    if file.is_file():
        model.load_state_dict(load_file(file))
        return model.eval()
    began = time.process_time()
    _train(model, recipe, said)
    spent = {"cpu_s": f"{time.process_time() - began:.3f}"}
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file({name: one.contiguous() for name, one in model.state_dict().items()}, part, spent)
    part.replace(file)
    return model.eval()


def trained_in(recipe: Recipe, folder: Path) -> float:
    """Seconds of one core that a kept net took."""
    with safe_open(folder / f"{recipe.name}.safetensors", "pt") as file:
        return float((file.metadata() or {}).get("cpu_s", "nan"))


def states(mazes: Mazes, mice: int, on_path: float, rng: np.random.Generator) -> tuple[Mazes, Ints, Ints]:
    """`mice` states of each maze: mazes, squares of the mouse, and the planner's move there."""
    right = moves(mazes.walls, mazes.cheese)
    to_start, to_cheese = (distances(mazes.walls, end) for end in (mazes.start, mazes.cheese))
    begin, every = mazes.start, np.arange(len(mazes))
    way = to_start + to_cheese == to_cheese[every, begin[:, 0], begin[:, 1]][:, None, None]
    kinds = rng.random((len(mazes), mice)) < on_path
    squares = np.stack(
        [_any(np.where(kind[:, None, None], way, True) & (right >= 0), rng) for kind in kinds.T], 1
    )
    each = np.repeat(every, mice)
    mouse = squares.reshape(-1, 2)
    return mazes[each], mouse, right[each, mouse[:, 0], mouse[:, 1]]


def _any(which: Bools, rng: np.random.Generator) -> Ints:
    """One square of each maze, of those that are True."""
    chance = np.where(which, rng.random(which.shape, np.float32), -1).reshape(len(which), -1)
    return np.stack(np.unravel_index(chance.argmax(1), (SIDE, SIDE)), -1).astype(np.int64)


def _train(model: Policy, recipe: Recipe, said: Callable[[int, float], None] | None) -> None:
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    smooth = math.log(4)
    for step, (seen, right) in zip(range(recipe.steps), _batches(recipe), strict=False):
        with torch.autocast("cpu", torch.bfloat16):  # fp32 weights; what is measured later is all fp32
            logits = model(seen.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), right)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        smooth += 0.02 * (loss.item() - smooth)
        if said and (step + 1) % 50 == 0:
            said(step + 1, smooth)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _rate(step: int, steps: int) -> float:
    """Up over the first twentieth, then down as a cosine."""
    up = max(1, steps // 20)
    return min((step + 1) / up, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def _batches(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """For ever."""
    rng = np.random.Generator(np.random.Philox(key=recipe.seed + 1000))
    while True:
        mazes = draw(recipe.mazes, rng, region=recipe.region, sizes=recipe.sizes, part="train")
        many, mouse, right = states(mazes, recipe.mice, recipe.on_path, rng)
        order: NDArray[np.int64] = rng.permutation(len(many))
        for at in range(0, len(order) - recipe.batch + 1, recipe.batch):
            now = order[at : at + recipe.batch]
            seen = observe(many[now], mouse[now])
            seen[rng.random(len(now)) < recipe.hidden, 2] = 0
            yield torch.from_numpy(seen), torch.from_numpy(right[now])
