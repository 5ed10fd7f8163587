"""The inner loops, compiled and in numpy, on one piece: nanoseconds an element, and that the bytes are the same."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kit import Bars
from pv.registry.combine import Combine
from pv.registry.persona import Output
from pv.vecstore.merge import loops, observe
from pv.vecstore.merge.loops import Rounding
from pv.vecstore.merge.methods import combine
from pv.vecstore.merge.selection import Trim
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.native import kernels
from pv.vecstore.native.library import numpy_only
from pv.vecstore.tensors.rounding import round_to

SIZE = 1 << 20
MODELS = 3
RUNS = 5


def main() -> bool:
    bars = Bars()
    if not kernels.available():
        print("the loops are not compiled here: python vecstore/native/compile.py")
        return False
    draw = np.random.default_rng(0)
    base, *tuned = (
        round_to(
            draw.standard_normal(SIZE, np.float32) * np.float32(0.02),
            "BF16",
            "nearest",
            seed=0,
            name="",
            start=0,
        )
        for _ in range(1 + MODELS)
    )
    own = loops.values(base, "BF16")
    deltas = [loops.delta(one, "BF16", whole=True, weight=0.5) for one in tuned]
    taus = [loops.tau(one, loops.f32(own)) for one in deltas]
    shares = [Share(0.5, tau, str(n)) for n, tau in enumerate(taus)]

    def trim() -> Any:
        found = Trim(SIZE, SIZE // 5)
        while not found.done:
            found.look(own, deltas[0])
            found.turn()
        return found.cut

    work: dict[str, Callable[[], Any]] = {
        f"add, {rounding}": lambda rounding=rounding: loops.add(
            own, deltas, Rounding("t", "BF16", Output(rounding=rounding)), 0
        )[0].tobytes()
        for rounding in ("nearest", "stochastic")
    }
    work["trim"] = trim
    work["ties, in fp32"] = lambda: combine(
        Combine.of("ties"), shares, Place("t", (SIZE,), lambda: loops.f32(own))
    ).tobytes()
    work["step"] = lambda: observe.step(own, (), deltas).changed
    work["pairs"] = lambda: observe.pairs(own, deltas)[1].tolist()
    for name, run in work.items():
        fast, found = _timed(run)
        with numpy_only():
            slow, wanted = _timed(run)
        value = f"{1e9 * fast / SIZE:.2f} and {1e9 * slow / SIZE:.2f} ns, 1/{slow / fast:.1f}"
        bars.say(f"{name}, compiled and numpy", value, "the same", found == wanted)
    return bars.all_hold


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    found, taken = run(), []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), found
