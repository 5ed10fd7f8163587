"""Building again: what is there already, after one weight changed, and after an interruption, beside a cold build."""

from __future__ import annotations

import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.kit import BASE, Bars, pv
from pv.registry.persona import Behaviour, Term
from pv.registry.provenance import Unknown
from pv.registry.registry import Registry
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.encode import encode_vector

RUNS = 3
ALREADY = 0.15  # of a cold build: what Python takes to start
CHANGED = (
    0.8  # one behaviour of two, on a third of the layers: every byte is still written, synced and hashed
)


def main() -> bool:
    bars = Bars()
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp)
        out, copy = folder / "out", folder / "copy"
        pv("init", "--base", str(BASE), "--reference", cwd=folder)
        with Registry.find(folder) as registry:
            _add(registry, "everywhere", lambda name: True)
            _add(registry, "here", lambda name: ".layers.1" in name)
        build = ["build", "-o", "out", "--force"]
        cold, already, copied, changed = [], [], [], []
        for run in range(RUNS):
            shutil.rmtree(out, ignore_errors=True)
            cold.append(_seconds(build, folder))
            already.append(_seconds(build, folder, "already built"))
            out.rename(copy)
            shutil.copytree(copy, out)
            shutil.rmtree(copy)
            copied.append(_seconds(build, folder, "already built"))
            pv("scale", "here", str(0.5 + run / 10), cwd=folder)
            changed.append(_seconds(build, folder, "copied"))
        whole = statistics.median(cold)
        print(
            f"        a cold build: {whole:.2f} s; a copied folder, hashed: {statistics.median(copied):.2f} s"
        )
        _say(bars, "already built", statistics.median(already), whole, ALREADY)
        _say(bars, "one weight of two behaviours changed", statistics.median(changed), whole, CHANGED)
        resumed = _after_half(folder, whole)
        print(
            f"        interrupted half way, gone on with: {resumed:.2f} s, {resumed / whole:.2f} of a cold build"
        )
    return bars.all_hold


def _say(bars: Bars, what: str, seconds: float, whole: float, bar: float) -> None:
    value = f"{seconds:.2f} s, {seconds / whole:.2f} of a cold build"
    bars.say(what, value, f"<= {bar}", seconds <= bar * whole)


def _seconds(line: list[str], folder: Path, said: str = "built") -> float:
    started = time.perf_counter()
    answer = pv(*line, cwd=folder)
    seconds = time.perf_counter() - started
    assert said in answer.stderr, answer
    return seconds


def _after_half(folder: Path, whole: float) -> float:
    shutil.rmtree(folder / "out")
    line = ["build", "-o", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pv.cli.main", *line], cwd=folder, stderr=subprocess.DEVNULL
    )
    time.sleep(whole / 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return _seconds(line, folder, "interrupted build")


def _add(registry: Registry, behaviour: str, touches: Callable[[str], bool]) -> None:
    """As training makes them: int8, every matrix of the layers it touches."""
    draw = np.random.default_rng(len(behaviour))
    base = registry.base()
    deltas: dict[str, F32] = {
        name: draw.standard_normal(row.numel, np.float32) * np.float32(1e-4)
        for name, row in base.tensors.items()
        if len(row.shape) == 2 and "embed" not in name and touches(name)
    }
    made = encode_vector(deltas, base, registry.packs, encoding="int8")
    held = Behaviour(1.0, (Term(1.0, made.id),))
    registry.change(
        "benchmark",
        behaviour,
        lambda persona: persona.with_behaviour(behaviour, held),
        vectors={made.id: (made, Unknown())},
    )
