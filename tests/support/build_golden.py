"""Build fixed personas on a fixed base and print the id and file sums of each, as one JSON object.

    python build_golden.py FOLDER THREADS SHARD_BYTES ENGINE

Base, fine-tune and deltas come from the engine's own generator by integer operations, so they are the same
everywhere. FOLDER is empty or does not exist. Run by test_build_invariance.py in processes with different
environments.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

sys.path.insert(0, str(Path(__file__).parent.parent))

from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Term
from pv.vecstore.merge.build import build
from pv.vecstore.packs.write import Part
from pv.vecstore.tensors.array import Array
from pv.vecstore.tensors.philox import bits32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.vector import open_vector
from support.vectors import (
    Tensors,
    array,
    base_at,
    behaviour,
    captured,
    kept,
    nudged,
    part_of,
    persona,
    put,
    random_f32,
    save,
    small_base,
    store,
)

PLAIN = Combine.of("add")
LAMBDA: dict[str, Any] = {"lambda": 0.9}
TIES = Combine.of("ties", density=0.3)
TIES_SUM = Combine.of("ties", density=0.5, elect="weighted", merge="sum", **LAMBDA)

# name: weights of the behaviours, rule, output dtype, rounding
CASES: dict[str, tuple[tuple[float, ...], Combine, str, str]] = {
    "empty": ((), PLAIN, "base", "stochastic"),
    "empty-bf16": ((), PLAIN, "bf16", "stochastic"),
    "add": ((1.0, 0.7, -0.4, 0.25), PLAIN, "base", "stochastic"),
    "add-bf16-nearest": ((1.0, 0.7, -0.4, 0.25), PLAIN, "bf16", "nearest"),
    "add-fp16": ((1.0, 0.7, -0.4, 0.25), PLAIN, "fp16", "stochastic"),
    "add-fp32": ((1.0, 0.7, -0.4, 0.25), PLAIN, "fp32", "stochastic"),
    "ties": ((1.0, 0.7, -0.4, 0.25), TIES, "base", "stochastic"),
    "ties-fp16-sum": ((0.3, -1.0, 1.0, 0.5), TIES_SUM, "fp16", "stochastic"),
    "ties-fp32-sum": ((0.3, -1.0, 1.0, 0.5), TIES_SUM, "fp32", "nearest"),
    "far": ((0, 0, 0, 0, 1.0), PLAIN, "base", "stochastic"),
    "far-bf16": ((0, 0, 0, 0, 1.0), PLAIN, "bf16", "stochastic"),
    "far-fp16-nearest": ((0, 0, 0, 0, 1.0), PLAIN, "fp16", "nearest"),
    "far-half": ((0, 0, 0, 0, 0.5), PLAIN, "base", "stochastic"),
}


def _int8(tensors: Tensors) -> list[Part]:
    """Steps and scales out of thin air: how an encoder would choose them is none of a build's business."""
    made = []
    for name in (n for n, t in tensors.items() if t.dtype != "I64"):
        shape = tensors[name].shape
        q = bits32(3, f"q {name}", 0, tensors[name].raw.size).astype(np.uint8)
        rows = shape[0] if len(shape) > 1 else 1
        scale = np.abs(random_f32(f"scale {name}", rows, least=104, spread=5)).view("<u4")
        made += [
            part_of(name, "q", Array("I8", shape, q)),
            part_of(name, "scale", Array("F32", (rows,), scale)),
        ]
    return made


def _far(tensors: Tensors) -> Tensors:
    """A checkpoint so far from the base that an fp32 difference does not hold it."""
    far = dict(tensors)
    for name in (n for n, t in tensors.items() if t.dtype != "I64"):
        wide = random_f32(f"far {name}", tensors[name].raw.size, least=90, spread=34, seed=2)
        raw = round_to(wide, tensors[name].dtype, "nearest", seed=0, name="", start=0)
        far[name] = Array(tensors[name].dtype, tensors[name].shape, raw)
    return far


def main() -> None:
    folder, threads, shard_bytes, engine = Path(sys.argv[1]), *map(int, sys.argv[2:])
    tensors = {**small_base(), "model.layers.2.mlp.down_proj.weight": array("down", "BF16", 1049, 1000)}
    floats = {n: t.raw.size for n, t in tensors.items() if t.dtype != "I64"}
    deltas = [
        {n: random_f32(f"delta {n}", k, least=112, seed=i) for n, k in floats.items()} for i in range(2)
    ]
    builds: dict[str, Any] = {}
    with base_at(save(folder / "base", tensors)) as base:
        packs = store(folder)
        ids = [
            captured(folder / "ft", nudged(tensors, 7), base, packs).id,
            kept(base, packs, deltas[0]),
            kept(base, packs, deltas[1], dtype="BF16"),
            put(packs, base.manifest.id, "int8", _int8(tensors)),
            captured(folder / "far-ft", _far(tensors), base, packs).id,
        ]
        vectors = {v: open_vector(v, base, packs) for v in ids}
        for case, (weights, rule, dtype, rounding) in CASES.items():
            behaviours = {
                f"b{i}": behaviour(w, v, modules={"model.layers.1.*": 0.3} if i == 1 else None)
                for i, (w, v) in enumerate(zip(weights, ids, strict=False))
            }
            if len(weights) == 4:
                behaviours["c"] = Behaviour(0.9, (Term(1.0, ids[1]), Term(-0.6, ids[2])))
            made = build(
                persona(base, behaviours, rule, dtype=dtype, rounding=rounding, seed=11, engine=engine),
                base,
                vectors,
                folder / case,
                side_files={},
                shard_bytes=shard_bytes,
                threads=threads,
            )
            builds[case] = {"weights": made.weights, "files": dict(made.files)}
        for vector in vectors.values():
            vector.close()
    report = {
        "base": base.manifest.id,
        "vectors": ids,
        "builds": builds,
        "vector": [name for name in __cpu_dispatch__ if __cpu_features__[name]],
        "foreign": sorted({"torch", "transformers", "huggingface_hub"} & sys.modules.keys()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
