"""`pv compress --to lowrank:8` of one trained vector: by a sketch, and as pv 0.1 decomposed it."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.kit import Bars, base_tensors, fine_tune, registry
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.checkpoint import Checkpoint, read_raw
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.vectors.base import open_base
from pv.vecstore.vectors.derive import Derived, EncodingSpec, derive
from pv.vecstore.vectors.encode import encode_vector
from pv.vecstore.vectors.vector import Vector, open_vector

RUNS = 5
SPEC = EncodingSpec.parse("lowrank:8")
SHARE, CLOSE = 1 / 8, 1.01


def main() -> bool:
    bars = Bars()
    with registry() as (made, _), open_base(made.base(), made.packs) as base:
        trained = encode_vector(_deltas(), base.manifest, made.packs)
        with open_vector(trained.id, base, made.packs) as vector:
            times, errors = [], []
            for _ in range(RUNS):
                before, old = _timed(vector, SPEC.as_before())
                after, new = _timed(vector, SPEC)
                times.append((before, after))
                errors.append(new.error.relative_l2 / old.error.relative_l2)
    ratio = statistics.median(after / before for before, after in times)
    seconds = statistics.median(after for _, after in times)
    bars.say(
        "lowrank:8 of a trained vector", f"{seconds:.2f} s, {ratio:.3f} of before", "<= 1/8", ratio <= SHARE
    )
    worst = max(errors)
    bars.say("its error, of the error before", f"{worst:.5f}", f"<= {CLOSE}", worst <= CLOSE)
    return bars.all_hold


def _deltas() -> dict[str, object]:
    folder = fine_tune("concise", optimizer="apollo", lr=1e-4)
    with Checkpoint(folder) as tuned:
        return {
            name: to_f32(read_raw(tuned, name), "BF16") - to_f32(raw, "BF16")
            for name, raw in base_tensors().items()
            if read_raw(tuned, name).tobytes() != raw.tobytes()
        }


def _timed(vector: Vector, spec: EncodingSpec) -> tuple[float, Derived]:
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        for folder in ("packs", "tmp", "quarantine"):
            (Path(tmp) / folder).mkdir()
        started = time.perf_counter()
        found = derive(vector, spec, PackStore(Path(tmp)), threads=2)
        return time.perf_counter() - started, found
