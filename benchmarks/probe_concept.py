"""How many directions, which weights, how short: `pv probe concept` of the three example behaviours.

Each beside its null: the same training on shuffled labels (benchmarks/probe_lab.py), random directions, and
random elements; `ternary`, `lowrank` and `sparse` at equal effect. PV_BENCH_SETS names some of the behaviours.
"""

from __future__ import annotations

import os
import time

from benchmarks.kit import Bars
from benchmarks.probe_lab import BEHAVIOURS, lab
from pv.cli.probing.concept import lines
from pv.vecstore.publish.probe_concept import share_words
from pv.vecstore.repo.repo import Repo

MINUTES = 6
KINDS = ("ternary", "lowrank", "sparse")


def main() -> bool:
    names = [name for name in os.environ.get("PV_BENCH_SETS", "").split(",") if name] or list(BEHAVIOURS)
    bars = Bars()
    with lab() as repo:
        for name in names:
            _measure(repo, name, bars)
    return bars.all_hold


def _measure(repo: Repo, name: str, bars: Bars) -> None:
    began = time.monotonic()
    known = {one.id for one in repo.probe.known() if one.time}
    found = repo.probe.concept(f"main:{name}")
    minutes = (time.monotonic() - began) / 60
    print("\n".join(["", name, *lines(found)]), flush=True)
    assert found.gains is not None and found.length is not None
    share = found.gains.shares["activations"]
    said = f"{share.lines:.1%}, random {share.lines_null:.1%}, 95 % of them below {share.lines_high:.1%}"
    print(f"{name}: weights that deal with it: {said}")
    for kind in KINDS:
        best = found.length.smallest(kind)
        said = "none does the same" if best is None else f"{best.encoding}, {best.stored_bytes / 1e6:.2f} MB"
        print(f"{name}: {kind}: {said}, kept {share_words(best.kept if best else None)}", flush=True)
    null = repo.probe.concept(f"shuffled:{name}", length=False, gain=False)
    print("\n".join(["", f"{name}, shuffled labels", *lines(null), ""]), flush=True)
    trained, chance = (one.effects.steered if one.effects else None for one in (found, null))
    assert trained is not None and chance is not None
    bars.say(
        f"{name}: effect of its direction, nats", f"{trained.mean:+.2f}", f"above shuffled labels', {chance.mean:+.2f}",
        trained.low > chance.high,
    )  # fmt: skip
    layer = next(one.layer for one in found.layers if one.site == found.elbow.site)
    again = repo.probe.concept(
        f"main:{name}", layers=[layer], effects=False, length=False, gain=False, again=True
    )
    same = again.elbow == found.elbow
    bars.say(f"{name}: two runs", "the same" if same else "they differ", "the same", same)
    if found.probe not in known:
        bars.say(f"{name}: minutes", f"{minutes:.1f}", f"at most {MINUTES}", minutes <= MINUTES)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
