"""What the benchmarks share: the base, a fresh registry, fine-tunes kept between runs, a table of bars."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.vectors.base import base_manifest

ROWS = Path(__file__).resolve().parent.parent / "examples" / "behaviours"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personavec"
ORIGIN = "dequantised to bf16 from a Q4_1 GGUF by examples/embedded_model.py: not the weights on the Hub"
BASE = Path(os.environ.get("PV_TEST_BASE") or CACHE / "SmolLM2-135M-Instruct")


@dataclass
class Bars:
    """Measured values against what was asked for; `all_hold` is the benchmark's verdict."""

    all_hold: bool = True

    def say(self, what: str, value: str, bar: str, holds: bool) -> None:
        self.all_hold &= holds
        print(f"{'ok    ' if holds else 'MISSED'}  {what:<56} {value:<34} {bar}", flush=True)


@contextmanager
def registry() -> Iterator[tuple[Registry, str]]:
    """A registry on the base, which it refers to, and its first commit; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp, Checkpoint(BASE) as checkpoint:
        files = side_files(BASE)
        manifest = base_manifest(
            checkpoint, {"kind": "path", "path": str(BASE)}, tuple(sorted(files)), pinned=False
        )
        with Registry.init(Path(tmp)) as made:
            commit = made.start(Persona(manifest.id), manifest, files, "Begin")
            yield made, commit


def fine_tune(name: str, *, optimizer: str, lr: float, steps: int | None = None, seed: int = 0) -> Path:
    """A bf16 fine-tune of the base on an example behaviour, rounded to nearest as a trainer saves it.

    Kept in the cache, so that it is trained once.
    """
    label = f"{name}-{optimizer}-{lr:g}-{steps or 'all'}-{seed}"
    folder = CACHE / "fine-tunes" / label
    if (folder / "model.safetensors").is_file():
        return folder
    from pv.vecstore.data.rows import read_rows
    from pv.vecstore.tensors.formats import to_f32
    from pv.vecstore.tensors.rounding import round_to
    from pv.vecstore.train.loop import train
    from pv.vecstore.train.options import TrainOptions

    print(f"training {label}", flush=True)
    rows = read_rows(ROWS / f"{name}.jsonl")
    options = TrainOptions(optimizer=optimizer, lr=lr, max_steps=steps, seed=seed)  # type: ignore[arg-type]
    trained = train(BASE, rows, options)
    write_checkpoint(folder, {
        key: round_to(to_f32(raw, "BF16") + trained.deltas[key].reshape(-1), "BF16", "nearest",
                      seed=0, name=key, start=0) if key in trained.deltas else raw
        for key, raw in base_tensors().items()
    })  # fmt: skip
    return folder


def base_tensors() -> dict[str, np.ndarray]:
    """The base's tensors as raw storage integers."""
    with Checkpoint(BASE) as checkpoint:
        return {name: np.frombuffer(checkpoint.read(name), "<u2") for name in checkpoint.specs}


def write_checkpoint(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    from pv.registry.disk.safetensors import header_bytes

    folder.mkdir(parents=True, exist_ok=True)
    with Checkpoint(BASE) as checkpoint:
        specs = {n: (s.dtype, s.shape, tensors[n].nbytes) for n, s in checkpoint.specs.items()}
    part = folder / "part"
    with part.open("wb") as file:
        file.write(header_bytes(specs, {"format": "pt"}))
        for name in specs:
            file.write(tensors[name].tobytes())
    for name, data in side_files(BASE).items():
        (folder / name).write_bytes(data)
    part.rename(folder / "model.safetensors")


def median_s(command: list[str], folder: Path, runs: int = 9) -> float:
    """Seconds that a whole process takes."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def pv(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command itself, as a process."""
    return subprocess.run(
        [sys.executable, "-m", "pv.cli.main", *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
