"""What several behaviours keep of their effects when they are added up, and what that costs elsewhere.

Eight behaviours that can hold at once (examples/behaviours/eight), trained one by one with the defaults,
merged by `add` in pairs, fours and all eight. Kept = effect merged / effect alone, both against the base, on held-out
rows. Margins and replies are computed in bf16, damage in fp32; replies of the first seed, to 12 held-out prompts each.
PV_BENCH_SEEDS (default 3), PV_BENCH_REPLIES=0 to leave out replies. What was trained is kept in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.kit import BASE, CACHE, ROWS, Bars
from benchmarks.lab import QUICK, SEEDS, learn, learnt_from, options
from examples.experiments.deltas import Deltas
from examples.experiments.lab import Lab
from pv.vecstore.data.rows import read_rows
from pv.vecstore.evaluate.damage import Damage
from pv.vecstore.evaluate.replies import score_replies
from pv.vecstore.evaluate.statistics import bootstrap, effect, share

NAMES = ("pirate", "signoff", "doubt", "shouting", "topic", "asks", "sir", "emphasis")
REPLIES = os.environ.get("PV_BENCH_REPLIES", "1") != "0"
KEPT = {2: (0.97, 0.85), 4: (0.95, 0.85), 8: (0.90, 0.85)}  # on average, and each
COST = {1: 0.005, 2: 0.01, 4: 0.02, 8: 0.04}  # nats a token
TOKENS = {"signoff": 160, "asks": 160}  # of a reply: these two show at its end
ASKED = 12  # prompts of a behaviour to which replies are written
HELD = {name: read_rows(ROWS / "eight" / f"{name}.heldout.jsonl") for name in NAMES}


def main() -> bool:
    bars, lab = Bars(), Lab(BASE, **QUICK)
    wins: dict[int, list[bool]] = {1: [], 2: [], 4: [], 8: []}
    kept: dict[int, list[float]] = {2: [], 4: [], 8: []}
    cost: dict[int, list[Damage]] = {1: [], 2: [], 4: [], 8: []}
    for seed in SEEDS:
        vectors = {name: _vector(name, seed) for name in NAMES}
        alone: dict[str, float] = {}
        for name in NAMES:
            lab.put([vectors[name]])
            found = lab.margins(HELD[name])
            gained, cost_here = effect(found, lab.before(HELD[name])), lab.damage()
            alone[name] = gained.mean
            wins[1] += list(found.margin > 0)
            cost[1].append(cost_here)
            norm = np.sqrt(sum(float(np.sum(d.astype(np.float64) ** 2)) for d in vectors[name].values()))
            print(
                f"seed {seed} {name:9} effect {gained.mean:+6.1f} [{gained.low:+.1f}, {gained.high:+.1f}]  wins "
                f"{np.mean(found.margin > 0):.2f}  damage {_nats(cost_here)}  norm {norm:.2f}",
                flush=True,
            )
        for size in (2, 4, 8):
            for group in _groups(size):
                lab.put([vectors[name] for name in group])
                cost[size].append(lab.damage())
                said = []
                for name in group:
                    found = lab.margins(HELD[name])
                    part = effect(found, lab.before(HELD[name])).mean / alone[name]
                    kept[size].append(part)
                    wins[size] += list(found.margin > 0)
                    said.append(f"{name} {100 * part:.0f} %, wins {np.mean(found.margin > 0):.2f}")
                print(
                    f"seed {seed} {size} behaviours: {'; '.join(said)}; damage {_nats(cost[size][-1])}",
                    flush=True,
                )
        if REPLIES and seed == 0:
            _replies(bars, lab, vectors)
    for size, (mean, least) in KEPT.items():
        found_mean, found_least = float(np.mean(kept[size])), min(kept[size])
        value = f"{100 * found_mean:.0f} % on average, least {100 * found_least:.0f} %"
        bars.say(f"{size} behaviours: kept", value, f"{100 * mean:.0f} %, {100 * least:.0f} %",
                 found_mean >= mean and found_least >= least)  # fmt: skip
    for size, most in COST.items():
        for what in ("answers", "text"):
            values = [getattr(one, what) for one in cost[size]]
            lost = bootstrap([v.mean for v in values]) if len(values) > 1 else values[0]
            value = f"{lost.mean:+.4f} [{lost.low:+.4f}, {lost.high:+.4f}] nats a token"
            bars.say(f"{size}: damage to {what}", value, f"{most}", lost.mean <= most)
    for size, won in wins.items():
        interval = share(sum(won), len(won))
        value = (
            f"{100 * interval.mean:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}] of {len(won)}"
        )
        bars.say(f"{size}: held-out rows with a margin above 0", value, "95 %", interval.mean >= 0.95)
    return bars.all_hold


def _replies(bars: Bars, lab: Lab, vectors: Mapping[str, Deltas]) -> None:
    """Greedy replies to held-out prompts: alone, and merged with one and with three others."""
    groups = {1: _groups(1), 2: _groups(2), 4: _groups(4)}
    lab.put([])
    asked_of = {name: rows[:ASKED] for name, rows in HELD.items()}
    base = {name: lab.replies(rows, TOKENS.get(name, 64)) for name, rows in asked_of.items()}
    for size, members in groups.items():
        showed, asked, looped, base_looped = 0, 0, 0, 0
        for group in members:
            lab.put([vectors[name] for name in group])
            for name in group:
                rows, most = asked_of[name], TOKENS.get(name, 64)
                said = lab.replies(rows, most)
                found = score_replies(
                    [row.prompt for row in rows], said, base[name], max_tokens=most, rule=rows.reply
                )
                assert found.shown is not None and found.base_shown is not None and found.length is not None
                showed += round(found.shown.mean * len(rows))
                asked += len(rows)
                looped += round(found.loops.mean * len(rows))
                base_looped += round(found.base_loops.mean * len(rows))
                print(
                    f"replies, {' + '.join(group)}: {name} shows in {found.shown.mean:.2f} "
                    f"(base {found.base_shown.mean:.2f}), loops {found.loops.mean:.2f} "
                    f"(base {found.base_loops.mean:.2f}), cut at {most} tokens {found.cut} (base {found.base_cut}), "
                    f"short {found.short}, length {found.length.mean:.2f} of the base's",
                    flush=True,
                )
                print(f"    {said[0].text[:100]!r} ... {said[0].text[-60:]!r}", flush=True)
        interval, bar = share(showed, asked), 0.90 if size == 1 else 0.85
        value = (
            f"{100 * interval.mean:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}] of {asked}"
        )
        bars.say(
            f"{size}: replies that show the behaviour", value, f"{100 * bar:.0f} %", interval.mean >= bar
        )
        bars.say(f"{size}: replies that loop", f"{looped} of {asked}, base {base_looped}", "no more than the base's",
                 looped <= base_looped)  # fmt: skip


def _groups(size: int) -> list[tuple[str, ...]]:
    return [NAMES[i : i + size] for i in range(0, len(NAMES), size)]


def _vector(name: str, seed: int) -> Deltas:
    """Trained once for the options, the rows and the general set."""
    rows, how = read_rows(ROWS / "eight" / f"{name}.jsonl"), options(seed)
    file = CACHE / "composition" / f"{name}-{seed}-{learnt_from(rows, how)}.safetensors"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        trained = learn(name, rows, how)
        save_file({key: d.astype(np.float16) for key, d in trained.deltas.items()}, file)
    return load_file(file)


def _nats(found: Damage) -> str:
    assert found.answers is not None and found.text is not None
    return f"{found.answers.mean:+.4f} answers, {found.text.mean:+.4f} text"
