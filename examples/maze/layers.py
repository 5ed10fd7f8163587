"""Every named module of the net: where does a vector work, and where is it more than algebra?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from examples.maze import vectors
from examples.maze.bench import PADDED, Bench, Contest, contest
from examples.maze.measures import Floats, divergence, interval, probabilities
from examples.maze.planner import distances
from examples.maze.vectors import activations, logits
from examples.maze.world import observe

Array = NDArray[Any]

__all__ = ["layers", "nonlinearity", "probe"]


def layers(bench: Bench) -> dict[str, Any]:
    """On mazes kept apart for choosing, so that a site may be chosen by this table."""
    some, _ = contest(bench.plan.layer, 214, sizes=PADDED, part="choose", wants=bench.wants)
    return {"mazes": len(some), "sites": {site: _row(bench, some, site) for site in _sites(bench)}}


def _sites(bench: Bench) -> list[str]:
    return [name for name, _ in bench.net.named_modules() if name]


def _row(bench: Bench, some: Contest, site: str) -> dict[str, Any]:
    net, mazes, squares = bench.net, some.mazes, some.squares
    base, bare = logits(net, mazes, squares), logits(net, mazes.without_cheese(), squares)
    cheese, path = vectors.cheese(net, mazes, site), vectors.path(net, mazes, site)
    here = activations(net, mazes, squares, site) - activations(net, mazes.without_cheese(), squares, site)
    given = {
        "cheese": logits(net, mazes, squares, {site: -cheese}),
        "corner": logits(net, mazes, squares, {site: path}),
        "cheese_random": logits(net, mazes, squares, {site: vectors.gaussian(cheese, 15)}),
        "corner_random": logits(net, mazes, squares, {site: vectors.gaussian(path, 16)}),
    }
    shift = {
        name: interval(
            some.chances(one)[name.startswith("corner")] - some.chances(base)[name.startswith("corner")]
        )
        for name, one in given.items()
    }
    kl = [divergence(probabilities(bare), probabilities(one)) for one in (given["cheese"], base)]
    size = activations(net, mazes, mazes.start, site).flatten(1).norm(dim=1)
    return {
        **shift, "numbers": int(cheese[0].numel()),
        "norm": float((cheese.flatten(1).norm(dim=1) / size.clamp_min(1e-9)).mean()),
        "same_off_start": float(torch.cosine_similarity(cheese.flatten(1), here.flatten(1)).mean()),
        "off_identity": float(np.abs(given["cheese"] - bare).max(1).mean()),
        "kl_to_bare": interval(kl[0]), "kl_to_bare_base": interval(kl[1]),
    }  # fmt: skip


def nonlinearity(bench: Bench) -> dict[str, Any]:
    """f(x + t v) - f(x) of the modules after the site, over t: how much of it is not t times its first step."""
    some, _ = contest(bench.plan.layer, 217, sizes=PADDED)
    after = [name for name in _sites(bench)[_sites(bench).index(bench.site) + 1 :] if "." not in name or
             name.endswith("resadd_out")]  # fmt: skip
    steps = (-2.0, -1.0, -0.1, 0.1, 1.0, 2.0)
    found: dict[str, Any] = {"steps": steps, "mazes": len(some)}
    for goal, vector in (
        ("cheese", vectors.cheese(bench.net, some.mazes, bench.site)),
        ("corner", vectors.path(bench.net, some.mazes, bench.site)),
    ):
        moved = {t: vectors.downstream(bench.net, some.mazes, some.squares, {bench.site: t * vector}, after)
                 for t in (0.0, *steps)}  # fmt: skip
        found[goal] = {site: {f"{t:g}": _bent(moved, site, t) for t in steps} for site in after}
    return found


def _bent(moved: dict[float, dict[str, torch.Tensor]], site: str, t: float) -> dict[str, Any]:
    """|Δ(t) - t Δ(0.1) / 0.1| / |t Δ(0.1) / 0.1|, the first step taken on t's own side of 0."""
    small = 0.1 if t > 0 else -0.1
    real = (moved[t][site] - moved[0.0][site]).flatten(1)
    straight = (moved[small][site] - moved[0.0][site]).flatten(1) * (t / small)
    return interval(((real - straight).norm(dim=1) / straight.norm(dim=1).clamp_min(1e-9)).double().numpy())


def probe(bench: Bench) -> dict[str, Any]:
    """How well a linear map reads the steps left to the corner, and to the cheese, off each site: R² on other mazes."""
    parts = [contest(4 * bench.plan.layer, 218, part="choose")[0], contest(2 * bench.plan.layer, 219)[0]]
    known = [[distances(one.mazes.walls, end)[np.arange(len(one)), one.squares[:, 0], one.squares[:, 1]]
              for end in (one.mazes.corner, one.mazes.cheese)] for one in parts]  # fmt: skip
    sites = [name for name in _sites(bench) if name.endswith(("resadd_out", ".pool", "fc"))]
    found: dict[str, Any] = {"mazes": [len(one) for one in parts], "sites": {}}
    seen = [observe(one.mazes, one.squares).reshape(len(one), -1) for one in parts]
    for site in ("observation", *sites):
        if site != "observation":
            seen = [activations(bench.net, one.mazes, one.squares, site).flatten(1).numpy() for one in parts]
        found["sites"][site] = {
            goal: _read(seen[0], known[0][at], seen[1], known[1][at])
            for at, goal in enumerate(("corner", "cheese"))
        }
    return found


def _read(x: Array, y: Array, other: Array, truth: Array) -> float:
    """R² of ridge regression in its dual form; the strength is 1e-2 of the mean squared norm."""
    middle, level = x.mean(0), y.mean()
    a, b = (x - middle).astype(np.float64), (other - middle).astype(np.float64)
    gram = a @ a.T
    weights = np.linalg.solve(gram + 1e-2 * gram.trace() / len(a) * np.eye(len(a)), y - level)
    guess: Floats = b @ (a.T @ weights) + level
    return float(1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
