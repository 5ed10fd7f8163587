"""The policy: a small Impala-like convolutional net (arXiv:1802.01561) whose every part has a name to steer at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from examples.maze.world import SIDE

__all__ = ["MIDDLE", "Policy", "Shape", "net"]

MIDDLE = "block1.res2.resadd_out"  # after two of four residual additions; the notes steer after three of six


@dataclass(frozen=True, slots=True)
class Shape:
    """Channels of the blocks, the first at full resolution, each other one at half of that before it; width of fc."""

    channels: tuple[int, ...] = (16, 32)
    width: int = 256


class Add(nn.Module):
    """A residual addition, a module so that it has a name."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.resadd_out = Add()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.resadd_out(x, self.conv2(self.relu2(self.conv1(self.relu1(x))))))


class Block(nn.Module):
    def __init__(self, before: int, channels: int, *, halve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, channels, 3, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if halve else nn.Identity()
        self.res1, self.res2 = Residual(channels), Residual(channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.res2(self.res1(self.pool(self.conv(x)))))


class Policy(nn.Module):
    """(B, 3, 13, 13) -> (B, 4) logits of up, right, down, left."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        side, before, self.blocks = SIDE, 3, len(shape.channels)
        for at, channels in enumerate(shape.channels, start=1):
            self.add_module(f"block{at}", Block(before, channels, halve=at > 1))
            side, before = (side if at == 1 else (side + 1) // 2), channels
        self.relu1, self.relu2, self.flat = nn.ReLU(), nn.ReLU(), nn.Flatten()
        self.fc = nn.Linear(before * side * side, shape.width)
        self.policy = nn.Linear(shape.width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for at in range(1, self.blocks + 1):
            x = self.get_submodule(f"block{at}")(x)
        return cast(Tensor, self.policy(self.relu2(self.fc(self.flat(self.relu1(x))))))


def net(shape: Shape, seed: int) -> Policy:
    """Untrained, with the weights that the seed gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Policy(shape)
