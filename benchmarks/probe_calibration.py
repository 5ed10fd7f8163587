"""How often the verdict of `pv probe heads` is wrong: fine-tunes whose place was planted, and what it says of them.

Five kinds (benchmarks/planted.py), each with several seeds, measured by the probe's own code on the model in memory.
The lines were fixed with the first seed in sight; all others give the error rate. What was measured is kept in the
cache, a file a run, so a stopped run goes on; verdicts are drawn anew from what was measured.

PV_BENCH_SEEDS says how many seeds (8: 40 runs, about an hour on one core that is free). With --table,
`python -m benchmarks.probe_calibration` prints what is known, and measures nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.kit import BASE, CACHE, Bars
from benchmarks.planted import KINDS, Core, Planted, Recipe, plant
from pv.vecstore.evaluate.statistics import Interval, share
from pv.vecstore.probe.heads import VERSION, Heads, HeadsSettings, measure_heads
from pv.vecstore.probe.verdict import KINDS as VERDICTS
from pv.vecstore.probe.verdict import Evidence, Kind, Point, Thresholds, verdict

FOLDER = CACHE / "probes-calibration"
SEEDS = int(os.environ.get("PV_BENCH_SEEDS", "8"))
RECIPE = Recipe()
PROMPTS = 32  # fewer than the verb takes: intervals are wider here, and an hour is enough
RIGHT: Mapping[str, Kind] = {
    "localized": "localized",
    "hierarchical": "hierarchically distributed",
    "distributed": "distributed",
    "mlp": "mostly MLP",
    "none": "inconclusive",
}
FLOORS = (0.0, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
MOST_WRONG = 0.2


@dataclass(frozen=True, slots=True)
class Run:
    """One planting, and what the probe measured of it: `top` are the heads that rank highest, as many as a core has."""

    kind: str
    seed: int
    core: Core
    core_share: float | None
    rise: float
    steps: int
    answers: tuple[str, str]
    seconds: tuple[float, float]  # to plant, to probe
    evidence: Evidence
    top: Core

    @staticmethod
    def of(planted: Planted, found: Heads, seconds: tuple[float, float]) -> Run:
        return Run(
            planted.kind, planted.seed, planted.core, planted.core_share, planted.rise, planted.steps, planted.answers,
            seconds,
            Evidence(
                len(found.heads), found.beyond, found.shift, found.mlp, found.curve, found.lost, found.random,
                found.beside, found.rest, found.overlap,
            ),
            tuple((one.layer, one.head) for one in found.top),
        )  # fmt: skip

    @property
    def chooses(self) -> bool:
        """Whether the lines were fixed with it in sight; else it is of the error rate."""
        return self.seed == 0

    @property
    def hits(self) -> int:
        """How many planted heads are among those that rank highest."""
        return len(set(self.top) & set(self.core))

    def said(self, lines: Thresholds | None = None) -> Kind:
        return verdict(self.evidence, lines).kind

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Run:
        found = value["evidence"]
        names = ("mlp", "lost", "beside", "rest")
        mlp, lost, beside, rest = (
            None if found.get(name) is None else Interval(**found[name]) for name in names
        )
        curve = tuple(Point(one["k"], Interval(**one["recovered"])) for one in found["curve"])
        random = tuple(found["random"])
        shift = Interval(**found["shift"])
        return Run(
            value["kind"], value["seed"], _core(value["core"]), value["core_share"], value["rise"], value["steps"],
            (value["answers"][0], value["answers"][1]), (value["seconds"][0], value["seconds"][1]),
            Evidence(
                found["heads"], found["beyond"], shift, mlp, curve, lost, random, beside, rest,
                found.get("overlap", 0.0),
            ),
            _core(value["top"]),
        )  # fmt: skip


def _core(value: Iterable[Sequence[int]]) -> Core:
    return tuple((layer, head) for layer, head in value)


def main() -> bool:
    if "--table" not in sys.argv:
        _measure([(kind, seed) for seed in range(SEEDS) for kind in KINDS])
    runs = [Run.from_json(json.loads(file.read_text())) for file in sorted(_folder().glob("*.json"))]
    if not runs:
        print("nothing is measured yet")
        return False
    print("\n".join(_row(run) for run in runs))
    choosing, counted = ([run for run in runs if run.chooses is some] for some in (True, False))
    print("\nverdicts on the first seed, which was in sight:", *matrix(choosing), sep="\n")
    print("\nverdicts on the others, which give the error rate:", *matrix(counted), sep="\n")
    print("\nthe same with another least that a core carries:", *floors(counted), sep="\n")
    print(f"\nfor error_rate.py: {json.dumps(counts(counted))}\n")
    bars = Bars()
    wrong = error_rate(counted)
    if wrong is not None:
        bars.say(
            "wrong verdicts, of those that were settled",
            _interval(wrong),
            f"at most {MOST_WRONG:.0%}",
            wrong.mean <= MOST_WRONG,
        )
    found = [run.hits / len(run.core) for run in runs if run.kind == "localized"]
    if found:
        mean = sum(found) / len(found)
        bars.say(
            "localized: planted heads among those that rank highest",
            f"{mean:.0%}, n {len(found)}",
            "at least 80%",
            mean >= 0.8,
        )
    bars.say("runs of the error rate", str(len(counted)), "at least 30", len(counted) >= 30)
    return bars.all_hold


def _measure(wanted: list[tuple[str, int]]) -> None:
    missing = [one for one in wanted if not _file(*one).is_file()]
    if not missing:
        return
    from pv.vecstore.models.load import load

    model, tokenizer = load(BASE)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.set_attn_implementation("eager")
    for at, (kind, seed) in enumerate(missing):
        began = time.monotonic()
        planted = plant(model, tokenizer, kind, seed, recipe=RECIPE)
        between = time.monotonic()
        found = measure_heads(
            model, tokenizer, planted.other, planted.rows, settings=HeadsSettings(seed=seed, prompts=PROMPTS)
        )
        run = Run.of(planted, found, (between - began, time.monotonic() - between))
        print(f"{at + 1} of {len(missing)}: {_row(run)}", flush=True)
        _write(_file(kind, seed), {**run.to_json(), "found": found.to_json()})


def _folder() -> Path:
    """Of this recipe, and this version of the measurement."""
    named = json.dumps([asdict(RECIPE), VERSION, asdict(HeadsSettings(prompts=PROMPTS)), BASE.name])
    return FOLDER / hashlib.sha256(named.encode()).hexdigest()[:12]


def _file(kind: str, seed: int) -> Path:
    return _folder() / f"{seed:02}-{kind}.json"


def _write(file: Path, value: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.rename(file)


def counts(runs: Iterable[Run]) -> dict[str, dict[str, int]]:
    """Of each kind that was planted, by the verdict that is right: how many runs got which verdict."""
    table: dict[str, Counter[str]] = {}
    for run in runs:
        table.setdefault(RIGHT[run.kind], Counter())[run.said()] += 1
    return {planted: dict(sorted(said.items())) for planted, said in sorted(table.items())}


def error_rate(runs: Iterable[Run]) -> Interval | None:
    """Wrong verdicts among those that say something; with nothing planted, to say something is wrong."""
    settled = [run for run in runs if run.said() != "inconclusive"]
    wrong = sum(run.said() != RIGHT[run.kind] for run in settled)
    return share(wrong, len(settled)) if settled else None


def matrix(runs: Iterable[Run]) -> Iterator[str]:
    """Planted kinds by verdicts, with the share of right ones and its interval."""
    every = list(runs)
    yield f"| planted | {' | '.join(VERDICTS)} | right |"
    yield "|---|" + "---:|" * len(VERDICTS) + "---|"
    for kind in KINDS:
        said = [run.said() for run in every if run.kind == kind]
        if said:
            right = share(said.count(RIGHT[kind]), len(said))
            yield f"| {kind} | {' | '.join(str(said.count(one)) for one in VERDICTS)} | {_interval(right)} |"


def floors(runs: Sequence[Run]) -> Iterator[str]:
    """How many verdicts are right, wrong and inconclusive with each floor under what a core carries."""
    yield "| floor | right | wrong | inconclusive |"
    yield "|---:|---:|---:|---:|"
    for floor in FLOORS:
        said = [(run.said(replace(Thresholds(), hierarchical=floor)), RIGHT[run.kind]) for run in runs]
        right = sum(one == planted for one, planted in said)
        wrong = sum(one not in (planted, "inconclusive") for one, planted in said)
        yield f"| {floor:.2f} | {right} | {wrong} | {len(said) - right - wrong} |"


def _row(run: Run) -> str:
    found = run.evidence
    core = found.core(len(run.top))
    parts = [
        f"{run.kind} {run.seed} ({run.answers[0]} / {run.answers[1]}): {run.said()}",
        f"shift {found.shift.mean:+.2f} [{found.shift.low:+.2f}, {found.shift.high:+.2f}]",
        f"beyond noise {found.beyond}/{found.heads}",
    ]
    if core is not None and found.lost is not None:
        parts += [
            f"R {core.mean:.2f} [{core.low:.2f}, {core.high:.2f}]",
            f"random at most {max(found.random):.2f}",
            f"N {found.lost.mean:.2f}",
        ]
    if found.mlp is not None:
        parts.append(f"MLP {found.mlp.mean:.2f}")
    if run.core_share is not None:
        parts.append(f"planted {len(run.core)} heads, {run.core_share:.2f} of it, {run.hits} found")
    return ", ".join([*parts, f"{run.seconds[0]:.0f} + {run.seconds[1]:.0f} s"])


def _interval(one: Interval) -> str:
    return f"{one.mean:.0%} [{one.low:.0%}, {one.high:.0%}], n {one.n}"


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
