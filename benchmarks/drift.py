"""A behaviour added and taken out a thousand times: by recipe, and by adding to and subtracting from bf16 weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.kit import BASE, Bars, base_tensors, pv, write_checkpoint
from pv.vecstore.repo.repo import Repo
from pv.vecstore.tensors.array import F32, Raw
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.rounding import round_to

TIMES = 1000
COMMITS = 20  # of those, through the history as well
TENSORS = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 15, 29)]


def main() -> bool:
    bars = Bars()
    own = base_tensors()
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp)
        pv("init", "--base", str(BASE), "--reference", cwd=folder)
        tuned = {name: _moved(name, raw) for name, raw in own.items()}
        write_checkpoint(folder / "tuned", tuned)
        pv("commit", "tuned", "--as", "house", "--weight", "0.7", cwd=folder)
        with Repo.open(folder) as repo:
            before, house = repo.persona, repo.persona.behaviour("house")
            first = repo.at().build(folder / "first").built.weights
            persona = before
            for _ in range(TIMES):
                persona = persona.without("house").with_behaviour("house", house)
            for _ in range(COMMITS):
                repo.drop("house")
                repo.add("house", "HEAD~1")
            last = repo.at().build(folder / "last").built.weights
            same = persona == before == repo.persona and first == last
    bars.say(
        f"by recipe, {TIMES} times, {COMMITS} of them as commits",
        f"{'0' if same else 'some'} bits changed",
        "0",
        same,
    )
    for times in (1, 10, TIMES):
        changed = [_changed(own[name], tuned[name], times) for name in TENSORS]
        print(f"        bf16 weights + tau - tau, {times} times: {np.mean(changed):.1%} of elements changed")
    return bars.all_hold


def _moved(name: str, raw: Raw) -> Raw:
    noise = np.random.default_rng(len(name)).standard_normal(raw.size, np.float32) * np.float32(1e-3)
    return _bf16(to_f32(raw.reshape(-1), "BF16") + noise).reshape(raw.shape)


def _changed(base: Raw, tuned: Raw, times: int) -> float:
    """The share of elements that are not the base's after merging and unmerging, as trainers do it."""
    start = to_f32(base.reshape(-1), "BF16")
    tau = (to_f32(tuned.reshape(-1), "BF16") - start) * np.float32(0.7)
    weights = start
    for _ in range(times):
        weights = to_f32(_bf16(to_f32(_bf16(weights + tau), "BF16") - tau), "BF16")
    return float(np.mean(weights != start))


def _bf16(x: F32) -> Raw:
    return round_to(x, "BF16", "nearest", seed=0, name="", start=0)
