"""Steering vectors of traits that others wrote, each by pv's own verbs, its controls beside it, failures too.

Contrast rows in the base's own words (`pv steer pairs`: 20 to extract from, 20 held out), directions for every layer,
layer and coefficient chosen by `pv steer sweep` on the rows that were extracted from, then `test` and `verify` on the
held-out ones: effect in nats, rows that go the other way, damage, eight random directions of the same norm, four of
shuffled labels, and the base with a plain system prompt. Then three at once: added, and turned with the norm kept.

PV_BENCH_TRAITS names a folder with files as `../shared/data/traits` has them, PV_BENCH_SETS some of the traits. What
was measured is kept in the cache.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.kit import BASE, CACHE, ROWS, Bars
from pv.registry.steering import Steering
from pv.vecstore.data.rows import read_rows
from pv.vecstore.data.trait import read_trait
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.repo.score import score_persona
from pv.vecstore.repo.score_plan import ScorePlan

FOLDER = Path(os.environ.get("PV_BENCH_TRAITS") or ROWS.parent.parent.parent / "shared" / "data" / "traits")
TRAITS = ("formal", "poetic", "concise", "empathetic", "sarcastic", "verbose")
THREE = ("formal", "poetic", "empathetic")
LAYERS = (6, 10, 14, 18, 22)
COEFFICIENTS = (1.0, 2.0, 4.0, 8.0)
TOKENS = 48
PLAN = ScorePlan(replies=12, max_tokens=48)


def main() -> bool:
    names = [name for name in os.environ.get("PV_BENCH_SETS", "").split(",") if name] or list(TRAITS)
    missing = [name for name in names if not (FOLDER / f"{name}.json").is_file()]
    if missing:
        print(f"not measured: {FOLDER} has no {', '.join(missing)}; PV_BENCH_TRAITS names a folder that has")
        return False
    bars, rows = Bars(), []
    folder = CACHE / "steering"
    if not (folder / "registry" / ".pv").is_dir():
        init(folder / "registry", BASE, threads=2)
    with Repo.open(folder / "registry") as repo:
        for name in names:
            began = time.monotonic()
            found = _kept(folder / f"{name}.json", lambda name=name: _trait(repo, folder, name))
            rows.append(_row(name, found))
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
            bars.say(
                f"{name}: held-out effect",
                _nats(found["tested"]["effect"]),
                "above 0",
                found["tested"]["effect"]["low"] > 0,
            )
            bars.say(
                f"{name}: passes its controls",
                "; ".join(found["failed"]) or "all",
                "all",
                not found["failed"],
            )
        print("\n" + "\n".join(rows))
        if set(THREE) <= set(names):
            _together(repo, folder, bars)
    return bars.all_hold


def _trait(repo: Repo, folder: Path, name: str) -> dict[str, Any]:
    trait, file = read_trait(FOLDER / f"{name}.json"), folder / f"{name}.jsonl"
    if not file.is_file():
        made = repo.steer.pairs(trait, max_tokens=TOKENS)
        made.write(file)
    held = read_rows(folder / f"{name}.heldout.jsonl")
    if name in repo.at("HEAD").persona.steering.terms:  # of a run that was stopped
        repo.steer.drop(name)
    extracted = repo.steer.extract(file, name=name)
    swept = repo.steer.sweep(name, file, layers=LAYERS, coefficients=COEFFICIENTS, replies=4, set=True)
    chosen = repo.at("HEAD").persona.steering_term(name)
    tested = repo.steer.test(name, held, plan=PLAN)
    verified = None
    if tested.passed:
        verified = repo.steer.verify(name, held, prompt=trait.instructions[0][0], plan=PLAN)
    conditions = [*tested.conditions, *(verified.conditions if verified else ())]
    return {
        "at": list(chosen.sites or ()),
        "coefficient": chosen.coefficient,
        "quality": extracted.places[(chosen.sites or extracted.applied_at)[0]].quality.to_json(),
        "sweep": swept.to_json(),
        "tested": dict(tested.evidence),
        "wins": [tested.score.base_wins.mean, tested.score.wins.mean]
        if tested.score.wins and tested.score.base_wins
        else None,
        "verified": None if verified is None else dict(verified.evidence),
        "failed": [one.said for one in conditions if not one.holds],
    }


def _together(repo: Repo, folder: Path, bars: Bars) -> None:
    """Three terms as they were chosen: effects on each one's held-out rows, and damage, by either rule."""
    head = repo.at("HEAD")
    terms = {name: replace(head.persona.steering_term(name), evidence={}, retired_by=None) for name in THREE}
    lost = {}
    for rule in ("add", "preserve-norm"):
        persona = replace(head.persona.without_behaviours(), steering=Steering.of(rule, terms))
        parts = []
        for name in THREE:
            plan = ScorePlan(replies=12 if name == THREE[0] else 0, max_tokens=48)
            score = score_persona(
                repo.registry, head.commit, persona, read_rows(folder / f"{name}.heldout.jsonl"), plan=plan
            )
            parts.append(f"{name} {_nats(score.effect.ends())}")
            if score.replies is not None and score.damage is not None:
                assert score.damage.answers is not None and score.damage.text is not None
                lost[rule] = max(score.damage.answers.mean, score.damage.text.mean)
                parts.append(
                    f"damage {score.damage.answers.mean:+.3f} answers, {score.damage.text.mean:+.3f} text, "
                    f"loops {score.replies.loops.mean:.0%} (base {score.replies.base_loops.mean:.0%})"
                )
        print(f"three, {rule}: {'; '.join(parts)}", flush=True)
    added, kept = lost["add"], lost["preserve-norm"]
    bars.say(
        "three: damage with the norm kept", f"{kept:+.3f}", f"at most {added:+.3f}, as added", kept <= added
    )


def _row(name: str, found: dict[str, Any]) -> str:
    tested, verified = found["tested"], found["verified"] or {}
    damage, other_way = tested["damage"], {key: 100 * x for key, x in tested["against"].items()}
    cells = [
        name,
        f"{found['coefficient']:g} × {', '.join(found['at']).removeprefix('model.layers.')}",
        f"{found['quality']['agreement']:.2f}",
        _nats(tested["effect"]),
        f"{other_way['mean']:.0f} % [{other_way['low']:.0f}, {other_way['high']:.0f}]",
        f"{damage['answers']['mean']:+.3f}, {damage['text']['mean']:+.3f}",
        _range(verified.get("random")),
        _range(verified.get("shuffled")),
        f"{verified['prompt']['mean']:+.1f}" if verified.get("prompt") else "-",
        "; ".join(found["failed"]) or "passes",
    ]
    return f"| {' | '.join(cells)} |"


def _range(values: list[float] | None) -> str:
    return f"{min(values):+.1f} to {max(values):+.1f}" if values else "-"


def _nats(found: dict[str, float]) -> str:
    return f"{found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def _kept(file: Path, measure: Any) -> dict[str, Any]:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(measure(), indent=1))
    found: dict[str, Any] = json.loads(file.read_text())
    return found
