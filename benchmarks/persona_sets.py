"""Sets that others wrote: what 200 rows of each teach, on 200 that were not trained on, at weight 1 and at -1.

Anthropic's model-written evaluations (https://github.com/anthropics/evals, CC BY 4.0), Yes/No questions about a
persona, six sets in ../shared/data/persona, or in the folder of PV_BENCH_PERSONA. As many rows are matched by Yes as by
No, trained on and held out: a model that says Yes to all gains nothing. Every third held-out row is also asked with its
choices listed, (A) and (B), in both orders: a form that was not trained on. The held-out rows are the same for every
seed; the training rows are drawn from the rest with the seed, and trained on with pv's defaults, computed in bf16
(PV_BENCH_TRAIN says otherwise in JSON). Margins are computed in bf16, damage in fp32.

PV_BENCH_SEEDS (default 3), PV_BENCH_SETS for some of the sets. What was measured is kept in the cache, seed by seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.kit import BASE, CACHE, ROWS, Bars
from benchmarks.lab import QUICK, SEEDS, learn, learnt_from, options
from examples.experiments.deltas import Deltas
from examples.experiments.lab import Lab
from pv.vecstore.data.row import Message, Row, Rows
from pv.vecstore.data.rows import read_rows
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.evaluate.statistics import Interval, bootstrap, share

FOLDER = Path(os.environ.get("PV_BENCH_PERSONA") or ROWS.parent.parent.parent / "shared" / "data" / "persona")
SETS = (
    "agreeableness",
    "conscientiousness",
    "interest-in-science",
    "risk-averse",
    "stands-its-ground",
    "willingness-to-defer-to-experts",
)
ROWS_EACH = 200  # trained on, and held out
LISTED = 3  # one held-out row of so many is asked with its choices too
CHOICES = "\n\nChoices:\n (A) Yes\n (B) No"
MOST = 0.10  # nats a token of damage, at weight -1
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One seed: margins on the held-out rows, and with choices listed; damage to answers and to text."""

    margins: F64
    listed: F64
    damage: tuple[float, float]


def main() -> bool:
    names = [name for name in os.environ.get("PV_BENCH_SETS", "").split(",") if name] or list(SETS)
    missing = [name for name in names if not (FOLDER / f"{name}.jsonl").is_file()]
    if missing:
        print(
            f"not measured: {FOLDER} has no {', '.join(f'{name}.jsonl' for name in missing)}; "
            "PV_BENCH_PERSONA names a folder with files of https://github.com/anthropics/evals/tree/main/persona"
        )
        return False
    bars, lines = Bars(), []
    for name in names:
        began = time.monotonic()
        found = _set(name)
        lines.append(_line(name, *found))
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        base, _, minus = found
        effect = bootstrap(_rows(one.margins for one in minus) - base.margins)
        bars.say(f"{name} at weight -1: margin", _nats(effect), "below the base's", effect.high < 0)
        worst = max(float(np.mean([one.damage[i] for one in minus])) for i in (0, 1))
        bars.say(f"{name} at weight -1: damage", f"{worst:+.4f} nats a token", f"{MOST}", worst <= MOST)
    seeds = f"{len(SEEDS)} seed{'s' if len(SEEDS) > 1 else ''}"
    print(
        f"\n{seeds}, {ROWS_EACH} rows trained on, {ROWS_EACH} held out; accuracy in %, margins in nats, damage in nats"
    )
    print("a token (answers, text); 95 % intervals over rows\n")
    print("| set | weight | accuracy | margin | effect | choices listed: accuracy | effect | damage |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(line for some in lines for line in some))
    return bars.all_hold


def _set(name: str) -> tuple[Measured, list[Measured], list[Measured]]:
    """The base, and every seed at weight 1 and -1. What is known is not measured again."""
    every = read_rows(FOLDER / f"{name}.jsonl")
    held, rest = _split(every, random.Random(f"{name} held out"))
    rows = {"held": held, "listed": listed(held[::LISTED])}
    lab: Lab | None = None
    found: dict[str, list[Measured]] = {"plus": [], "minus": []}
    base = _known(name, "base", rows, "")
    for seed in SEEDS:
        taught, _ = _split(rest, random.Random(f"{name} {seed}"))
        how = options(seed, dtype="bf16")
        key = learnt_from(taught, how)
        both = {sign: _known(name, f"{sign}-{seed}", rows, key) for sign in found}
        if base is None or None in both.values():
            lab = lab or Lab(BASE, **QUICK)
            base = base or _kept(name, "base", rows, "", _measured(lab, rows, None))
            trained = learn(name, taught, how)
            minus = {key: -deltas for key, deltas in trained.deltas.items()}
            for sign, deltas in (("plus", trained.deltas), ("minus", minus)):
                both[sign] = _kept(name, f"{sign}-{seed}", rows, key, _measured(lab, rows, deltas))
        for sign, one in both.items():
            assert one is not None
            found[sign].append(one)
    assert base is not None
    return base, found["plus"], found["minus"]


def _split(rows: Rows, generator: random.Random) -> tuple[Rows, Rows]:
    """ROWS_EACH of them, half matched by Yes and half by No, and the rest; a row that is there twice is there once."""
    once = {row.prompt[-1].content.casefold(): i for i, row in reversed(list(enumerate(rows)))}
    drawn: list[int] = []
    for word in ("Yes", "No"):
        of = [i for i in sorted(once.values()) if rows[i].chosen == word]
        drawn += generator.sample(of, ROWS_EACH // 2)
    generator.shuffle(drawn)
    rest = sorted(set(once.values()) - set(drawn))
    return (
        replace(rows, rows=tuple(rows[i] for i in drawn), lines=()),
        replace(rows, rows=tuple(rows[i] for i in rest), lines=()),
    )


def listed(rows: Rows) -> Rows:
    """The same questions with their choices, which are then measured in both orders."""
    letters = {"Yes": "(A)", "No": "(B)"}
    found = []
    for row in rows:
        assert row.rejected is not None
        asked = Message("user", f"{row.prompt[-1].content}{CHOICES}")
        found.append(Row((*row.prompt[:-1], asked), letters[row.chosen], letters[row.rejected]))
    return replace(rows, rows=tuple(found))


def _measured(lab: Lab, rows: dict[str, Rows], deltas: Deltas | None) -> Measured:
    lab.put([] if deltas is None else [deltas])
    of = {name: lab.before(some) if deltas is None else lab.margins(some) for name, some in rows.items()}
    if deltas is None:
        return Measured(of["held"].margin, of["listed"].margin, (0.0, 0.0))
    lost = lab.damage()
    assert lost.answers is not None and lost.text is not None
    return Measured(of["held"].margin, of["listed"].margin, (lost.answers.mean, lost.text.mean))


def _file(name: str, what: str, rows: dict[str, Rows], key: str) -> Path:
    of = json.dumps([key, rows["held"].id, rows["listed"].id, neutral_set().id, str(BASE), QUICK])
    return CACHE / "persona_sets" / f"{name}-{what}-{hashlib.sha256(of.encode()).hexdigest()[:16]}.json"


def _known(name: str, what: str, rows: dict[str, Rows], key: str) -> Measured | None:
    try:
        found = json.loads(_file(name, what, rows, key).read_text())
    except FileNotFoundError:
        return None
    answers, text = found["damage"]
    return Measured(np.array(found["margins"]), np.array(found["listed"]), (answers, text))


def _kept(name: str, what: str, rows: dict[str, Rows], key: str, found: Measured) -> Measured:
    file = _file(name, what, rows, key)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    document = {"margins": found.margins.tolist(), "listed": found.listed.tolist(), "damage": found.damage}
    part.write_text(json.dumps(document))
    part.rename(file)
    return found


def _rows(seeds: Iterable[F64]) -> F64:
    """(rows,) means over seeds: rows are what is drawn again for an interval, as they are the same for all seeds."""
    means: F64 = np.mean(list(seeds), axis=0)
    return means


def _line(name: str, base: Measured, plus: Sequence[Measured], minus: Sequence[Measured]) -> list[str]:
    lines = []
    for weight, of in (("base", [base]), ("1", plus), ("-1", minus)):
        margin = _rows(one.margins for one in of)
        cells = [
            name if weight == "base" else "",
            weight,
            _accuracy([one.margins for one in of]),
            _nats(bootstrap(margin)),
        ]
        shown = _accuracy([one.listed for one in of])
        if weight == "base":
            cells += ["", shown, "", ""]
        else:
            lost = [float(np.mean([one.damage[i] for one in of])) for i in (0, 1)]
            cells += [
                _moved(bootstrap(margin - base.margins)), shown,
                _moved(bootstrap(_rows(one.listed for one in of) - base.listed)), f"{lost[0]:+.3f}, {lost[1]:+.3f}",
            ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _accuracy(seeds: Sequence[F64]) -> str:
    """Of one seed Wilson's interval; of more, over rows."""
    wins = [margins > 0 for margins in seeds]
    found = share(int(wins[0].sum()), len(wins[0])) if len(wins) == 1 else bootstrap(np.mean(wins, axis=0))
    return f"{100 * found.mean:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _nats(found: Interval) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _moved(found: Interval) -> str:
    return _nats(found) + (", not moved" if found.verdict == "inconclusive" else "")
