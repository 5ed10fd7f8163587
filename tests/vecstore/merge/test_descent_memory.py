"""What looking for the build that a checkpoint was tuned from keeps in memory: one tensor, however long the history."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.vectors import array, base_at, behaviour, delta, kept, persona, save, store

from pv.registry.combine import Combine
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.merge.build import build
from pv.vecstore.merge.descent import SAMPLE, descents
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import Base, BaseTensor
from pv.vecstore.vectors.vector import Vector, open_vector

SHAPE = (256, 2 * SAMPLE // 256)
TENSORS = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(4)]
COUNT = 5


class Alive:
    """Whole tensors that were handed out and are still held by somebody."""

    def __init__(self) -> None:
        self.refs: list[tuple[str, str, weakref.ref[F32] | weakref.ref[BaseTensor]]] = []
        self.calls: Counter[tuple[str, str]] = Counter()

    def note(self, kind: str, name: str, value: F32 | BaseTensor) -> None:
        self.calls[kind, name] += 1
        self.refs.append((kind, name, weakref.ref(value)))  # type: ignore[arg-type]

    def now(self, kind: str) -> list[str]:
        return [name for its, name, ref in self.refs if its == kind and ref() is not None]


@dataclass(frozen=True)
class WatchedBase(Base):
    alive: Alive = field(default_factory=Alive)

    def tensor(self, name: str) -> BaseTensor:
        assert self.alive.now("base") == [], "the base's tensor before this one is still held"
        made = Base.tensor(self, name)
        self.alive.note("base", name, made)
        return made


@dataclass(frozen=True)
class WatchedVector(Vector):
    alive: Alive = field(default_factory=Alive)
    most: int = 1

    def tau(self, name: str, base: BaseTensor | None = None) -> F32:
        held = self.alive.now("tau")
        assert set(held) <= {name}, f"{held} are still held while {name} is decoded"
        assert len(held) < self.most
        made = Vector.tau(self, name, base)
        self.alive.note("tau", name, made)
        return made


@dataclass(frozen=True)
class World:
    base: WatchedBase
    ids: list[str]
    folder: Path
    alive: Alive
    plain: dict[str, Vector]

    def personas(self, rule: Combine) -> list[Persona]:
        """A history: each has one behaviour more than the one before."""
        made = {f"b{n}": behaviour(0.5 + n / 8, v) for n, v in enumerate(self.ids)}
        names = list(made)
        return [persona(self.base, {n: made[n] for n in names[: k + 1]}, rule) for k in range(COUNT)]

    def watched(self, most: int) -> dict[str, Vector]:
        """The vectors; of whose tensors, whole, no more than `most` may be held at once."""
        return {
            v: WatchedVector(one.manifest, one.pack, self.base, self.alive, most)
            for v, one in self.plain.items()
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = save(tmp_path / "base", {name: array(name, "BF16", *SHAPE) for name in TENSORS})
    packs, alive = store(tmp_path), Alive()
    with base_at(folder) as base:
        ids = [
            kept(base, packs, {name: delta(SHAPE, 10 * n + at) for at, name in enumerate(TENSORS)})
            for n in range(COUNT)
        ]
        watched = WatchedBase(base.manifest, base.weights, base.close, alive)
        plain = {v: open_vector(v, base, packs) for v in ids}
        yield World(watched, ids, tmp_path, alive, plain)
        for vector in plain.values():
            vector.close()


@pytest.mark.parametrize(("rule", "most"), [(Combine.of("add"), 1), (Combine.of("ties"), COUNT)])
def test_no_tensor_is_kept_once_its_turn_is_over(world: World, rule: Combine, most: int) -> None:
    personas = world.personas(rule)
    built, unwatched = world.folder / "built", Base(world.base.manifest, world.base.weights, world.base.close)
    build(personas[2], unwatched, world.plain, built, side_files={})
    with Checkpoint(built) as checkpoint:
        found = descents(checkpoint, world.base, world.watched(most), personas)
    assert [one is not None and one.same for one in found] == [False, False, True, False, False]
    assert found[2] is not None
    assert found[2].descends
    assert found[2].contained == pytest.approx(1, abs=0.01)
    assert found[2].mark == pytest.approx(1, abs=0.01)
    assert world.alive.now("tau") == world.alive.now("base") == []
    assert set(world.alive.calls.values()) <= {
        1,
        COUNT,
    }  # the base once, each vector once: also for five personas
