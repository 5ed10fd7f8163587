"""`pv diff` with eight behaviours: of recipes, and of weights beside one pass over the packs."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.kit import BASE, Bars, median_s, pv
from pv.registry.persona import Behaviour, Term
from pv.registry.provenance import Unknown
from pv.registry.registry import Registry
from pv.vecstore.merge.compare import compare
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.repo import Repo
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.encode import encode_vector

BEHAVIOURS = 8
RUNS = 5
LIGHT_S = 0.25
PASSES = 1.5


def main() -> bool:
    bars = Bars()
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp)
        pv("init", "--base", str(BASE), "--reference", cwd=folder)
        with Registry.find(folder) as registry:
            for number in range(BEHAVIOURS):
                _add(registry, number)
        light = median_s([sys.executable, "-m", "pv", "diff", "HEAD~1"], folder)
        bars.say(f"pv diff, {BEHAVIOURS} behaviours", f"{light:.3f} s", f"<= {LIGHT_S} s", light <= LIGHT_S)
        with Repo.open(folder) as repo:
            passes, compared = [], []
            for _ in range(RUNS):
                passes.append(_one_pass(repo))
                compared.append(_compared(repo))
        ratio = statistics.median(b / a for a, b in zip(passes, compared, strict=True))
        value = f"{statistics.median(compared):.1f} s, {ratio:.2f} of a pass"
        bars.say("comparing the weights", value, f"<= {PASSES} passes over base and packs", ratio <= PASSES)
    return bars.all_hold


def _add(registry: Registry, number: int) -> None:
    """A behaviour as training makes them: int8, every matrix of every layer."""
    draw = np.random.default_rng(number)
    base = registry.base()
    deltas: dict[str, F32] = {
        name: draw.standard_normal(row.numel, np.float32) * np.float32(1e-4)
        for name, row in base.tensors.items()
        if len(row.shape) == 2 and "embed" not in name
    }
    made = encode_vector(deltas, base, registry.packs, encoding="int8")
    behaviour = Behaviour(1.0, (Term(1.0, made.id),))
    registry.change(
        "benchmark", f"b{number}", lambda persona: persona.with_behaviour(f"b{number}", behaviour),
        vectors={made.id: (made, Unknown())},
    )  # fmt: skip


def _one_pass(repo: Repo) -> float:
    """Read, check and decode each tensor of the base and of every vector once."""
    at = repo.at()
    started = time.perf_counter()
    with opened(at.registry, at.commit, [at.persona]) as one:
        names = sorted({name for vector in one.vectors.values() for name in vector.manifest.tensors})

        def read(name: str) -> None:
            own = one.base.tensor(name)
            for vector in one.vectors.values():
                vector.tau(name, own)

        for _ in ordered_map(read, names, threads=2):
            pass
    return time.perf_counter() - started


def _compared(repo: Repo) -> float:
    a, b = repo.at("HEAD~1"), repo.at("HEAD")
    started = time.perf_counter()
    with opened(b.registry, b.commit, [a.persona, b.persona]) as one:
        compare(a.persona, b.persona, b.persona.behaviours, one.base, one.vectors, threads=2)
    return time.perf_counter() - started
