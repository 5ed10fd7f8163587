"""A rank-one edit beside each of the three example behaviours: effect, transfer to paraphrases, damage, sharpness.

PV_BENCH_SETS names some of the behaviours. What was measured is kept as records in the lab's registry; `again` there
measures anew. A claim that did not hold is a result: the bars are of what must be measured, not of how it comes out.
"""

from __future__ import annotations

import os
import time

from benchmarks.kit import ROWS, Bars
from benchmarks.probe_lab import BEHAVIOURS, lab
from pv.cli.probing.edit import lines
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.repo.probe.edit import Edits

FEWEST = 50


def main() -> bool:
    names = [name for name in os.environ.get("PV_BENCH_SETS", "").split(",") if name] or list(BEHAVIOURS)
    bars = Bars()
    with lab("main") as repo:
        for name in names:
            began = time.monotonic()
            found = repo.probe.edit(
                f"main:{name}",
                [ROWS / f"{name}.heldout.jsonl", ROWS / f"{name}.more.jsonl"],
                paraphrases=[ROWS / f"{name}.paraphrases.jsonl", ROWS / f"{name}.more.paraphrases.jsonl"],
                neighbours=[neutral_set(), ROWS / "neighbours.jsonl"],
            )
            print("\n".join(lines(found)))
            print(f"{name}: {time.monotonic() - began:.0f} s\n", flush=True)
            _say(bars, name, found)
    return bars.all_hold


def _say(bars: Bars, name: str, found: Edits) -> None:
    reworded, neighbours = found.data["paraphrases"], int(found.data["neighbours"]["n"])
    of = int(reworded["of"])
    bars.say(
        f"{name}: held-out rows that {reworded['n']} paraphrases re-word",
        str(of),
        f"at least {FEWEST}",
        of >= FEWEST,
    )
    bars.say(f"{name}: neighbours", str(neighbours), f"at least {FEWEST}", neighbours >= FEWEST)
    for words, claim in found.claims.items():
        bars.say(f"{name}: carries over further, {words}", claim.verdict, "judged", True)
    trained = found.arm("trained")
    assert trained is not None
    bars.say(
        f"{name}: effect of what was trained",
        f"{trained.effect.mean:+.2f}",
        "above 0",
        trained.effect.low > 0,
    )


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
