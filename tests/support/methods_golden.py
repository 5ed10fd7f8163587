"""Run the merge methods on fixed inputs and print the SHA-256 of every result, as one JSON object.

    python methods_golden.py THREADS

The inputs come from the engine's own generator by integer operations, so they are the same everywhere. THREADS work at
a time, each on other methods. Run by test_method_golden.py in processes with different environments.
"""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from pv.registry.combine import Combine
from pv.vecstore.merge.methods import combine
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.tensors.philox import bits32

SHAPE = (211, 331)  # several blocks and an odd end
N = SHAPE[0] * SHAPE[1]
SEED = 21
ONE, TWO, THREE = (1.0,), (0.7, 1.2), (0.7, 1.2, 0.4)

CASES: dict[str, tuple[Combine, tuple[float, ...]]] = {
    "linear": (Combine.of("linear"), THREE),
    "slerp": (Combine.of("slerp", t=0.3), ONE),
    "nuslerp": (Combine.of("nuslerp"), TWO),
    "nuslerp-models": (Combine.of("nuslerp", of="models"), TWO),
    "multislerp": (Combine.of("multislerp"), THREE),
    "multislerp-mergekit": (Combine.of("multislerp", preset="mergekit"), THREE),
    "karcher": (Combine.of("karcher"), THREE),
    "dare": (Combine.of("dare", density=0.3, seed=5), (0.7, -1.2, 0.4)),
    "dare-elected": (Combine.of("dare", elect="weighted", merge="mean"), THREE),
    "della": (Combine.of("della", density=0.4, epsilon=0.3), (0.7, -1.2, 0.4)),
    "breadcrumbs": (Combine.of("breadcrumbs", gamma=0.05), (0.7, -1.2, 0.4)),
    "breadcrumbs-mean": (Combine.of("breadcrumbs", merge="weighted_mean"), THREE),
    "sce": (Combine.of("sce"), (0.7, -1.2, 0.4)),
    "sce-selected": (Combine.of("sce", select_topk=0.2), THREE),
    "model_stock": (Combine.of("model_stock"), THREE),
    "consensus": (Combine.of("consensus"), (0.7, -1.2, 0.4)),
    "nearswap": (Combine.of("nearswap", limit=0.001), (-1.0,)),
    "arcee_fusion": (Combine.of("arcee_fusion"), ONE),
}


def _floats(name: str, least: int, spread: int) -> np.ndarray:
    """fp32 of either sign with exponents least ... least + spread - 1 (biased), from random integers."""
    bits = bits32(SEED, name, 0, N)
    exponent = np.uint32(least) + (bits32(SEED, f"{name} exponent", 0, N) % np.uint32(spread))
    return ((bits & np.uint32(0x807FFFFF)) | exponent << np.uint32(23)).view(np.float32)


def _delta(i: int) -> np.ndarray:
    """Beside its own, what all have in common; equal magnitudes for the trims, and zeros."""
    delta = _floats(f"delta {i}", 105, 15)
    common = bits32(SEED, "common", 0, N) % np.uint32(3) == 0
    delta[common] = _floats("common", 112, 8)[common]
    delta[::7] = delta[3]
    delta[5::31] = 0
    return delta


def _sum(name: str) -> str:
    rule, weights = CASES[name]
    shares = [Share(weight, _delta(i), f"{i:064x}") for i, weight in enumerate(weights)]
    found = combine(rule, shares, Place("model.a.weight", SHAPE, lambda: _floats("base", 110, 14)))
    return hashlib.sha256(found.tobytes()).hexdigest()


def main() -> None:
    with ThreadPoolExecutor(int(sys.argv[1])) as pool:
        sums = dict(zip(CASES, pool.map(_sum, CASES), strict=True))
    vector = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    print(json.dumps({"sums": sums, "vector": vector, "torch": "torch" in sys.modules}))


if __name__ == "__main__":
    main()
