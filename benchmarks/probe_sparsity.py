"""Training that asks for few changed neurons against plain training, on the three example behaviours.

PV_BENCH_SETS names some of the behaviours, PV_BENCH_STRENGTHS the strengths of the penalty, PV_BENCH_PENALTY what is
penalized. What was measured is kept as records in the lab's registry. A claim that did not hold is a result.
"""

from __future__ import annotations

import os
import time

from benchmarks.kit import Bars
from benchmarks.probe_lab import BEHAVIOURS, lab
from pv.cli.probing.sparsity import lines


def main() -> bool:
    names = [name for name in os.environ.get("PV_BENCH_SETS", "").split(",") if name] or list(BEHAVIOURS)
    strengths = [float(one) for one in os.environ.get("PV_BENCH_STRENGTHS", "").split(",") if one]
    penalty, bars = os.environ.get("PV_BENCH_PENALTY", "neurons"), Bars()
    with lab("main") as repo:
        for name in names:
            began = time.monotonic()
            found = repo.probe.sparsity(name, strengths=strengths, penalty=penalty)
            print("\n".join(lines(found)))
            print(f"{name}: {time.monotonic() - began:.0f} s\n", flush=True)
            plain = found.runs[0]
            bars.say(
                f"{name}: plain training's effect",
                f"{plain.effect.mean:+.2f}",
                "above 0",
                plain.effect.low > 0,
            )
            bars.say(f"{name}: fewer neurons with a penalty", found.claim, "judged", True)
    return bars.all_hold


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
