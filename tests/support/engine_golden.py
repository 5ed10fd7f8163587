"""Run the engine on fixed inputs and print the SHA-256 of every output, as one JSON object.

    python engine_golden.py THREADS CHUNK

The inputs come from the engine's own generator by integer operations, so they are the same everywhere.
Elementwise steps run on pieces of CHUNK elements, THREADS at a time. Run by test_engine_golden.py in
processes with different environments.
"""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from pv.registry.combine import Combine
from pv.vecstore.merge.methods import combine
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.tensors.arithmetic import apply
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.philox import bits16, bits32
from pv.vecstore.tensors.rounding import round_to

N = 200_003  # several blocks and an odd end
SEED = 20

CASES: dict[str, tuple[Combine, tuple[float, ...], str, str, str]] = {
    # name: rule, weights, base dtype, output dtype, rounding
    "add-bf16": (Combine.of("add"), (1.0, 0.7), "BF16", "BF16", "stochastic"),
    "add-bf16-nearest": (Combine.of("add"), (1.0, -0.5, 0.3), "BF16", "BF16", "nearest"),
    "add-fp16": (Combine.of("add"), (0.1, 1.0), "BF16", "F16", "stochastic"),
    "add-fp16-own": (Combine.of("add"), (-1.0,), "F16", "F16", "stochastic"),
    "add-fp32": (Combine.of("add"), (0.3, 0.7, -0.2), "BF16", "F32", "stochastic"),
    "add-e4m3": (Combine.of("add"), (1.0, 1.0), "BF16", "F8_E4M3", "stochastic"),
    "ties-bf16": (Combine.of("ties"), (1.0, 0.7), "BF16", "BF16", "stochastic"),
    "ties-fp16-sum": (
        Combine.of("ties", density=0.4, elect="weighted", merge="sum"),
        (1.0, -0.6, 0.2),
        "BF16",
        "F16",
        "stochastic",
    ),
    "ties-fp32-mergekit": (
        Combine.of("ties", preset="mergekit", density=0.3, **{"lambda": 0.9}),
        (1.0, 0.5, 2.0),
        "F32",
        "F32",
        "nearest",
    ),
}


def _floats(name: str, least: int, spread: int) -> np.ndarray:
    """fp32 of either sign with exponents least ... least + spread - 1 (biased), from random integers."""
    bits = bits32(SEED, name, 0, N)
    exponent = np.uint32(least) + (bits32(SEED, f"{name} exponent", 0, N) % np.uint32(spread))
    return ((bits & np.uint32(0x807FFFFF)) | exponent << np.uint32(23)).view(np.float32)


def _base(dtype: str) -> np.ndarray:
    """Raw storage: ordinary weights, and every special pattern of the small formats."""
    raw = round_to(_floats("base", 100, 24), dtype, "nearest", seed=0, name="", start=0)
    if dtype != "F32":
        raw[:65536] = np.arange(65536)
    raw[65536:65540] = [0, raw.dtype.type(1) << (8 * raw.itemsize - 1), 1, 2]
    return raw


def _delta(i: int) -> np.ndarray:
    delta = _floats(f"delta {i}", 85, 30)
    delta[bits16(SEED, f"zero {i}", 0, N) % 4 == 0] = 0
    delta[::7] = delta[3]  # equal magnitudes for the trim
    return delta


PLACE = Place("golden.weight", (N,), lambda: np.zeros(N, np.float32))  # neither rule looks at the base


def _build(case: str, threads: int, chunk: int) -> str:
    rule, weights, own, dtype, rounding = CASES[case]
    raw = _base(own)
    deltas = [_delta(i) for i in range(len(weights))]
    whole: Any = None
    if rule.method == "ties":
        whole = combine(rule, [Share(w, d) for w, d in zip(weights, deltas, strict=True)], PLACE)

    def piece(start: int) -> bytes:
        at = slice(start, start + chunk)
        operands = [Share(w, d[at]) for w, d in zip(weights, deltas, strict=True)]
        delta = combine(rule, operands, PLACE) if whole is None else whole[at]
        built = apply(to_f32(raw[at], own), delta)
        return round_to(built, dtype, rounding, seed=SEED, name="golden.weight", start=start).tobytes()

    digest = hashlib.sha256()
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(piece, range(0, N, chunk)):
            digest.update(part)
    return digest.hexdigest()


def main() -> None:
    threads, chunk = int(sys.argv[1]), int(sys.argv[2])
    report = {
        "sums": {case: _build(case, threads, chunk) for case in CASES},
        "vector": [name for name in __cpu_dispatch__ if __cpu_features__[name]],
        "torch": "torch" in sys.modules,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
