"""Stored sizes on real pairs, against XOR + byte planes + zstd-3 on the same pair."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import zstandard

from benchmarks.kit import BASE, Bars, base_tensors, fine_tune, registry
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.vectors.base import Base, open_base
from pv.vecstore.vectors.capture import capture

PAIRS = [
    ("concise", "apollo", 1e-4),
    ("pirate", "apollo", 3e-5),
    ("pirate", "adamw", 1e-4),
    ("concise", "adamw", 2e-5),
]
TEN = [("listening", "apollo", 1e-4, 6, seed) for seed in range(3)]
TEN += [("concise", "adamw", 5e-5, 6, seed) for seed in range(3)]
DEFAULT_BAR, MAX_BAR = 0.58, 0.45


def main() -> bool:
    bars = Bars()
    own = base_tensors()
    with registry() as (reg, commit), open_base(reg.base(commit), reg.packs) as base:
        together = 0
        for name, optimizer, lr in PAIRS:
            folder = fine_tune(name, optimizer=optimizer, lr=lr)
            changed, peer = xor_planes(own, folder)
            sizes, seconds = {}, {}
            for level in ("max", "default"):
                started = time.monotonic()
                sizes[level] = _stored(folder, base, reg.packs, level == "max")
                seconds[level] = time.monotonic() - started
            together += sizes["default"]
            label = f"{name}, {optimizer}, lr {lr:g}"
            print(
                f"{label}: XOR + planes + zstd-3 is {100 * peer / changed:.2f} % of {changed / 1e6:.0f} MB changed"
            )
            for level, bar in (("default", DEFAULT_BAR), ("max", MAX_BAR)):
                ratio = sizes[level] / peer
                value = f"{100 * sizes[level] / changed:.2f} %, {ratio:.3f} of it"
                bars.say(f"  {level}", value, f"<= {bar}", ratio <= bar)
            print(f"        max takes {seconds['max'] / seconds['default']:.0f} times as long to capture")
        for name, optimizer, lr, steps, seed in TEN:
            folder = fine_tune(name, optimizer=optimizer, lr=lr, steps=steps, seed=seed)
            together += _stored(folder, base, reg.packs, False)
        whole = (BASE / "model.safetensors").stat().st_size
        value = f"{together / 1e6:.0f} MB, {together / whole:.2f} checkpoints"
        bars.say("ten captured fine-tunes of one base", value, "< 1 checkpoint", together < whole)
    return bars.all_hold


def _stored(folder: Path, base: Base, packs: PackStore, smallest: bool) -> int:
    with Checkpoint(folder) as checkpoint:
        manifest = capture(checkpoint, base, packs, smallest=smallest)
    size = packs.size(manifest.id)
    packs.path(manifest.id).unlink()  # so that the next level is packed anew
    return size


def xor_planes(own: dict[str, np.ndarray], folder: Path) -> tuple[int, int]:
    """(bytes of the changed tensors, their size as XOR, byte planes and zstd-3 in 1 MiB chunks)."""
    changed = size = 0
    with Checkpoint(folder) as checkpoint:
        for name, raw in own.items():
            ft = np.frombuffer(checkpoint.read(name), "<u2")
            if (ft == raw).all():
                continue
            changed += raw.nbytes
            planes = (ft ^ raw).view(np.uint8).reshape(-1, 2)  # (elements, bytes)
            for i in range(2):
                plane = np.ascontiguousarray(planes[:, i])
                for start in range(0, len(plane), 1 << 20):
                    size += len(
                        zstandard.ZstdCompressor(level=3).compress(plane[start : start + (1 << 20)].data)
                    )
    return changed, size
