"""The behavioural bars on the real model: each behaviour alone, merged, at -0.5, 0.5 and 1, bf16 against fp32."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.kit import BASE, ROWS, Bars, registry
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.registry.registry import Registry
from pv.vecstore.data.rows import Rows, read_rows
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.repo.score import score_persona
from pv.vecstore.train.loop import train
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.vectors.encode import encode_vector

NAMES = ("listening", "concise", "pirate")
SAME = 0.05  # a bf16 build's effect may differ from an fp32 build's by this share


def main() -> bool:
    bars = Bars()
    with registry() as (reg, commit):
        base = reg.base(commit)
        plain = Persona(base.id)
        vectors: dict[str, str] = {}
        held = {name: read_rows(ROWS / f"{name}.heldout.jsonl") for name in NAMES}
        for name in NAMES:
            trained = train(BASE, read_rows(ROWS / f"{name}.jsonl"), TrainOptions())
            vectors[name] = encode_vector(trained.deltas, base, reg.packs).id
            stored = reg.packs.size(vectors[name]) / 1e6
            first, last = trained.loss[0], trained.loss[-1]
            losses = f"loss {first:.2f} at step 1, {last:.2f} at step {len(trained.loss)}"
            print(f"{name}: {trained.seconds:.0f} s, {losses}, {stored:.0f} MB")

        def persona(**weights: float) -> Persona:
            behaviours = {n: Behaviour(w, (Term(1.0, vectors[n]),)) for n, w in weights.items()}
            return replace(plain, behaviours=behaviours)

        alone: dict[str, Interval] = {}
        for name in NAMES:
            alone[name] = found = _effect(reg, commit, persona(**{name: 1.0}), held[name])
            bars.say(f"{name} alone", _words(found), "above 0", found.low > 0)
            steps = [_effect(reg, commit, persona(**{name: w}), held[name]) for w in (-0.5, 0.5)]
            means = [steps[0].mean, 0.0, steps[1].mean, found.mean]
            bars.say(f"{name} at -0.5, 0.5, 1", " ".join(f"{m:+.1f}" for m in (means[0], *means[2:])),
                     "in order, first below 0", means == sorted(set(means)))  # fmt: skip
            wide = _effect(reg, commit, replace(persona(**{name: 1.0}), output=Output("fp32")), held[name])
            near = abs(found.mean / wide.mean - 1)
            value = f"{found.mean:+.2f} and {wide.mean:+.2f}: {100 * near:.2f} %"
            bars.say(f"{name}: bf16 build against fp32 build", value, "within 5 %", near <= SAME)
        for a, b in (("listening", "pirate"), ("listening", "concise")):
            for name in (a, b):
                found = _effect(reg, commit, persona(**{a: 1.0, b: 1.0}), held[name])
                value = f"{_words(found)}, kept {100 * found.mean / alone[name].mean:.0f} %"
                bars.say(f"{a} + {b}: {name}", value, "above 0", found.low > 0)
    return bars.all_hold


def _effect(reg: Registry, commit: str, persona: Persona, rows: Rows) -> Interval:
    return score_persona(reg, commit, persona, rows).effect


def _words(interval: Interval) -> str:
    return f"{interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}] nats"
