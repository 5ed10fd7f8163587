"""`pv probe neurons` on the three example behaviours: the curves, the four claims, and the time that it takes.

Measured anew: on two cores that have nothing else to do the bar is five minutes a behaviour.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.kit import ROWS, Bars
from benchmarks.probe_lab import BEHAVIOURS, FOLDER, lab
from pv.cli.probing.neurons import lines
from pv.vecstore.probe.neurons_found import Neurons

MINUTES = 5
CLAIMS = 8  # four, in the late layers and in all


def main() -> bool:
    bars = Bars()
    with lab("main") as repo:
        for name in BEHAVIOURS:
            began = time.monotonic()
            rows = ROWS / f"{name}.heldout.jsonl"
            files = {"plot": _file(f"{name}-neurons.png"), "page": _file(f"{name}-neurons.html")}
            found = repo.probe.neurons(f"base..main:{name}", rows, again=True, threads=2, **files)
            seconds = time.monotonic() - began
            print("\n".join(lines(found)), flush=True)
            again = repo.probe.neurons(f"base..main:{name}", rows, threads=2)
            _say(bars, name, found, again, seconds)
    return bars.all_hold


def _say(bars: Bars, name: str, found: Neurons, again: Neurons, seconds: float) -> None:
    bars.say(f"{name}: time", f"{seconds:.0f} s", f"<= {MINUTES} min", seconds <= 60 * MINUTES)
    bars.say(
        f"{name}: the same command again",
        "the same" if again == found else "others",
        "the same",
        again == found,
    )
    verdicts = [one.verdict for one in found.claims]
    words = ", ".join(f"{verdicts.count(one)} {one}" for one in ("held", "did not hold", "inconclusive"))
    bars.say(f"{name}: claims marked", words, f"{CLAIMS}, each marked", len(verdicts) == CLAIMS)
    largest = max(one.k for one in found.scope("all").curve("delta*grad").points)
    bars.say(f"{name}: curves up to k", str(largest), ">= 1536", largest >= 1536)


def _file(name: str) -> Path:
    return FOLDER.parent / name
