"""Vectors that experiments train, kept on disk while they are of use: many cells ask for the same one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.experiments.code import own, rooms
from examples.experiments.deltas import Deltas, norm
from pv.vecstore.data.rows import Row, Rows
from pv.vecstore.train.general_set import general_set
from pv.vecstore.train.options import TrainOptions

if TYPE_CHECKING:
    import torch

__all__ = ["Recipe", "Vectors", "swapped"]

MOST = 6 << 30
"""Bytes of vectors that are kept: the ones used last."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what is learnt on a base.

    `l1` pulls τ toward 0: after every step, by that share of the step's learning rate, element by element.
    """

    rows: Rows
    options: TrainOptions
    l1: float = 0.0

    def to_json(self) -> dict[str, Any]:
        general = general_set().id if self.options.general else None
        said = {"rows": self.rows.id, "options": asdict(self.options), "general": general}
        return {**said, "l1": self.l1} if self.l1 else said


class Vectors:
    def __init__(self, base: Path, base_id: str, folder: Path, most: int = MOST) -> None:
        self._base, self._base_id, self._folder, self._most = base, base_id, folder, most
        self._norms: dict[str, float] = {}

    def get(self, recipe: Recipe) -> Deltas:
        """Trained now, or before: the same numbers, those of the file, in fp16."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        file = self._folder / f"{self._key(recipe)}.safetensors"
        try:
            found: Deltas = load_file(file)
            os.utime(file)
        except (FileNotFoundError, SafetensorError):
            self._train(recipe, file)
            found = load_file(file)
        return found

    def norm(self, recipe: Recipe) -> float:
        """Read once: many cells scale to the same one."""
        key = self._key(recipe)
        if key not in self._norms:
            self._norms[key] = norm(self.get(recipe))
        return self._norms[key]

    def _train(self, recipe: Recipe, file: Path) -> None:
        import numpy as np
        from safetensors.numpy import save_file

        from pv.vecstore.train.loop import train

        with _shrunk(recipe.l1):
            trained = train(self._base, recipe.rows, recipe.options)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        save_file({name: d.astype(np.float16) for name, d in trained.deltas.items()}, part)
        part.replace(file)
        self._forget()

    def _forget(self) -> None:
        """The files that were used longest ago, until what is left is not too much. The newest one stays."""
        there = sorted(self._folder.glob("*.safetensors"), key=lambda f: f.stat().st_mtime, reverse=True)
        total = 0
        for at, file in enumerate(there):
            total += file.stat().st_size
            if at and total > self._most:
                file.unlink(missing_ok=True)

    def _key(self, recipe: Recipe) -> str:
        said = [self._base_id, recipe.to_json(), rooms("train"), own("vectors")]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]


@contextmanager
def _shrunk(l1: float) -> Iterator[None]:
    """Inside, every optimizer's step ends with the proximal step of lr · l1 · |W - W_base|₁: soft thresholding.

    An element that does not keep moving the same way is exactly the base's again.
    """
    if not l1:
        yield
        return
    import torch
    from torch.optim import optimizer

    base: dict[int, torch.Tensor] = {}

    def remember(what: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        for group in what.param_groups:
            for p in group["params"]:
                if id(p) not in base:
                    base[id(p)] = p.detach().clone()

    def shrink(what: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        with torch.no_grad():
            for group in what.param_groups:
                for p in group["params"]:
                    moved = torch.nn.functional.softshrink(p - base[id(p)], group["lr"] * l1)
                    p.copy_(base[id(p)] + moved)

    hooks = [
        optimizer.register_optimizer_step_pre_hook(remember),
        optimizer.register_optimizer_step_post_hook(shrink),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def swapped(rows: Rows) -> Rows:
    """The rejected answers alone, as what is to be learnt."""
    return Rows(
        tuple(Row(row.prompt, row.rejected or "") for row in rows), source=f"{rows.source} (rejected)"
    )
