"""Where the heads of three trained behaviours are: the verdict on each with its graft curve, exactness, and the time.

The behaviours are those of probe_lab.py. PV_BENCH_PAGES names a folder for pictures and pages. The time is that of one
probe of 48 prompts from nothing; on a machine that does something else, processor time says more, and is said too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.kit import ROWS, Bars
from benchmarks.probe_lab import BEHAVIOURS, lab
from pv.vecstore.data.rows import Rows, read_rows
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.error_rate import error_rate_words
from pv.vecstore.probe.graft import grafted
from pv.vecstore.probe.heads import Heads
from pv.vecstore.probe.parts import parts_of
from pv.vecstore.repo.probe.pair import pair
from pv.vecstore.repo.probe.sides import sides
from pv.vecstore.repo.repo import Repo

MOST_SECONDS = 240
PROMPTS = 48
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def main() -> bool:
    bars = Bars()
    folder = os.environ.get("PV_BENCH_PAGES")
    with lab("main") as repo:
        _time(repo, bars)
        _exact(repo, bars)
        for name in BEHAVIOURS:
            pictures = {} if folder is None else {
                "plot": Path(folder) / f"heads-{name}.png", "page": Path(folder) / f"heads-{name}.html"
            }  # fmt: skip
            found = repo.probe.heads(name, threads=THREADS, **pictures)
            bars.say(f"{name}: verdict", found.verdict.kind, "one is given", bool(found.verdict.kind))
            _tell(found)
        print(f"\n{error_rate_words()}")
    return bars.all_hold


def _time(repo: Repo, bars: Bars) -> None:
    """From nothing, on held-out rows filled up with others to 48: for the time alone."""
    held = read_rows(ROWS / "listening.heldout.jsonl")
    more = read_rows(ROWS / "listening.jsonl")[: PROMPTS - len(held)]
    rows = Rows((*held, *more), "listening, 48 rows")
    began, worked = time.monotonic(), time.process_time()
    repo.probe.heads("listening", rows, threads=THREADS, again=True)
    took, worked = time.monotonic() - began, time.process_time() - worked
    value = f"{took:.0f} s ({worked:.0f} s of processor time)"
    bars.say(
        f"pv probe heads, {PROMPTS} prompts, {THREADS} threads", value, "<= 4 minutes", took <= MOST_SECONDS
    )


def _exact(repo: Repo, bars: Bars) -> None:
    """The graft of all heads and all else is the fine-tune, of none the base: every element of every parameter."""
    import torch

    with pair(repo, sides(repo, "listening"), threads=THREADS) as both:
        own = dict(both.model.named_parameters())
        before = {name: parameter.clone() for name, parameter in own.items()}
        every = parts_of(both.model).parts
        for label, chosen, wanted in (("all parts", every, both.other), ("no part", (), before)):
            with grafted(both.model, both.other, chosen):
                wrong = sum(int((own[name] != wanted[name]).sum()) for name in own)
            bars.say(f"graft of {label}: elements that differ", str(wrong), "0", wrong == 0)
        wrong = sum(not torch.equal(own[name], before[name]) for name in own)
        bars.say("afterwards: parameters that differ", str(wrong), "0", wrong == 0)


def _tell(found: Heads) -> None:
    curve = "  ".join(f"{point.k}: {_share(point.recovered)}" for point in found.curve)
    print(f"        shift {found.shift.mean:+.2f} ({found.shift.low:+.2f} to {found.shift.high:+.2f}) nats")
    print(f"        recovered by the top k heads, %   {curve}")
    for label, one in (
        ("MLPs", found.mlp),
        ("all but heads", found.rest),
        ("lost without the core", found.lost),
    ):
        if one is not None:
            print(f"        {label}: {_share(one)} %")
    if found.random:
        print(
            f"        {len(found.random)} random sets: {100 * min(found.random):.0f} to {100 * max(found.random):.0f} %"
        )
    print(
        f"        {found.beyond} of {len(found.heads)} heads beyond noise; {'; '.join(found.verdict.reasons)}"
    )


def _share(one: Interval) -> str:
    return f"{100 * one.mean:.0f} ({100 * one.low:.0f} to {100 * one.high:.0f})"


if __name__ == "__main__":
    main()
