"""TIES as in the paper, trimmed over the whole model: held against a few lines over flattened vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import isolate
from support.vectors import (
    FLOATING,
    array,
    base_at,
    behaviour,
    nudged,
    persona,
    random_f32,
    read_all,
    save,
    small_base,
    values,
)

import pv
from pv.registry.combine import Combine
from pv.registry.errors import PvError, UsageError
from pv.registry.manifest import TensorRow, VectorManifest
from pv.registry.persona import Behaviour, Persona, Term
from pv.vecstore.merge.build import build
from pv.vecstore.merge.delta import delta as delta_of
from pv.vecstore.merge.methods import combine
from pv.vecstore.merge.model_cut import Settled
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.native.library import numpy_only
from pv.vecstore.progress import Tick
from pv.vecstore.vectors.base import Base, BaseTensor
from pv.vecstore.vectors.pieces import Expanded

F32 = np.ndarray
Deltas = Mapping[str, F32]
PAPER = Combine.of("ties", preset="paper")
TENSORS = small_base()


def trimmed(delta: Deltas, density: float) -> dict[str, F32]:
    """Step 1, over all tensors end to end."""
    names = sorted(delta)
    flat = np.concatenate([delta[name] for name in names])
    keep = np.argsort(-np.abs(flat), kind="stable")[: max(1, int(density * flat.size))]
    mask = np.zeros(flat.size, bool)
    mask[keep] = True
    ends = np.cumsum([delta[name].size for name in names])[:-1]
    return dict(zip(names, np.split(np.where(mask, flat, np.float32(0)), ends), strict=True))


def reference(deltas: Sequence[Deltas], density: float, weights: list[float] | None = None) -> dict[str, F32]:
    """Algorithm 1 of the paper: trim, elect sgn(sum), mean of what agrees. Weights scale what was elected."""
    kept_ = [trimmed(delta, density) for delta in deltas]
    found = {}
    for name in sorted({name for delta in deltas for name in delta}):
        of = [
            (one[name], w) for one, w in zip(kept_, weights or [1.0] * len(kept_), strict=True) if name in one
        ]
        gamma = np.sign(sum(one.astype(np.float64) for one, _ in of))
        agrees = [(np.sign(one) == gamma) & (gamma != 0) for one, _ in of]
        total = sum(
            np.where(a, one.astype(np.float64) * w, 0) for a, (one, w) in zip(agrees, of, strict=True)
        )
        found[name] = total / np.maximum(1, sum(a.astype(int) for a in agrees))
    return found


# Through builds of a registry, whose vectors have many elements of equal size


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pv.Repo]:
    isolate(tmp_path, monkeypatch)
    save(tmp_path / "base", TENSORS)
    with pv.init(tmp_path / "home", base=tmp_path / "base") as made:
        for number, only in enumerate((None, None, FLOATING[1:4]), 1):
            tuned = save(tmp_path / f"tuned {number}", nudged(TENSORS, number, share=3, only=only))
            made.commit(tuned, name=f"b{number}")
        made.combine("ties", preset="paper", density=0.13)
        yield made


def taus(repo: pv.Repo, *names: str) -> list[dict[str, F32]]:
    found = []
    for name in names:
        with repo.at().vector(name) as vector:
            found.append({tensor: vector.tau(tensor).reshape(-1) for tensor in vector.shapes})
    return found


def added(repo: pv.Repo, out: Path, **options: Any) -> dict[str, np.ndarray]:
    repo.at().build(out, dtype="fp32", threads=2, **options)
    made = read_all(out)
    return {name: values(made[name]).astype(np.float64) - values(TENSORS[name]) for name in FLOATING}


@pytest.mark.parametrize("density", [0.001, 0.13, 0.5, 1.0])
def test_it_is_the_papers(repo: pv.Repo, tmp_path: Path, density: float) -> None:
    repo.combine("ties", preset="paper", density=density)
    wanted = reference(taus(repo, "b1", "b2", "b3"), density)
    for name, found in added(repo, tmp_path / "out").items():
        base = np.abs(values(TENSORS[name])).max(initial=0)
        np.testing.assert_allclose(found, wanted.get(name, 0 * found), rtol=1e-6, atol=1e-7 * base)


def test_it_is_not_the_trim_of_tensors(repo: pv.Repo, tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    of_model = added(repo, tmp_path / "model")
    repo.combine("ties", density=0.13)
    of_tensors = added(repo, tmp_path / "tensors")
    assert any((of_model[name] != of_tensors[name]).any() for name in FLOATING)


def test_every_way_to_build_gives_the_same(repo: pv.Repo, tmp_path: Path) -> None:
    head = repo.at()
    first = head.build(tmp_path / "one", threads=1)
    many = head.build(tmp_path / "many", threads=3, shard_bytes=700)
    assert many.built.weights == first.built.weights and len(many.built.files) > 3
    for number in (2, 3, 1):
        shared = head.build_shard(tmp_path / "shared", number, 3, threads=1)
    assert shared.made is not None and shared.made.built.weights == first.built.weights
    with numpy_only():
        plain = head.build(tmp_path / "plain", threads=2)
    assert plain.built.weights == first.built.weights
    assert head.build(tmp_path / "one", threads=1).already
    for folder in ("one", "shared"):
        assert head.verify(tmp_path / folder, recompute=True).same


def test_an_interrupted_build_goes_on(repo: pv.Repo, tmp_path: Path) -> None:
    whole = repo.at().build(tmp_path / "whole", threads=1).built

    def stop(tick: Tick) -> None:
        if tick.stage == "building" and tick.done > tick.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repo.at().build(tmp_path / "out", threads=1, shard_bytes=700, progress=stop)
    made = repo.at().build(tmp_path / "out", threads=1, shard_bytes=700).built
    assert made.weights == whole.weights and made.resumed


def test_what_another_tensor_changes_is_not_copied(repo: pv.Repo, tmp_path: Path) -> None:
    """A new version of b3 that moves one tensor by far moves the threshold of all."""
    first = repo.at().build(tmp_path / "out", threads=1)
    far = dict(nudged(TENSORS, 3, share=3, only=FLOATING[1:4]))
    name = FLOATING[1]
    far[name] = replace(far[name], raw=(far[name].raw ^ np.uint16(0x0180)))
    repo.commit(save(tmp_path / "far", far), name="b3")
    again = repo.at().build(tmp_path / "out", threads=1, force=True)
    clean = repo.at().build(tmp_path / "clean", threads=1)
    assert again.built.weights == clean.built.weights != first.built.weights
    repo.scale("b3", 0.5)  # trimmed before it is weighed: the trims stay, and what b3 is not in is copied
    scaled = repo.at().build(tmp_path / "out", threads=1, force=True)
    assert scaled.built.copied >= len(FLOATING) - 3
    assert scaled.built.weights == repo.at().build(tmp_path / "clean again", threads=1).built.weights


def test_the_report_and_the_diff_know_it(repo: pv.Repo) -> None:
    found = repo.at().diff(repo.at("HEAD~1"), weights=True)
    assert found.weights
    repo.branch("side")
    repo.scale("b1", 0.5)
    plan = repo.plan_merge("side")
    interference = plan.interference
    assert interference is not None and (interference.trims, interference.density) == ("model", 0.13)
    kept_ = {one.where: one.trim.elements for one in interference.classes if one.trim is not None}
    assert len(set(kept_.values())) > 1  # not the same share everywhere


def test_mergekit_cannot_say_it(repo: pv.Repo) -> None:
    with pytest.raises(UsageError, match="mergekit cannot say ties with trim=model"):
        repo.at().export_mergekit()
    repo.combine("ties", undecided="none", elect="weighted")
    with pytest.raises(UsageError, match="mergekit cannot say ties with undecided=none"):
        repo.at().export_mergekit()


# Laws, on vectors of all sizes


class Small:
    """A base of four tensors, and vectors of arbitrary deltas on it."""

    shapes: ClassVar = {"a": (3, 5), "b": (40,), "c": (2, 2), "d": (9,)}

    def __init__(self, root: Path) -> None:
        own = {name: array(name, "F32", *shape) for name, shape in self.shapes.items()}
        self.base = base_at(save(root / "base", own))

    def added(self, rule: Combine, given_: list[tuple[float, Deltas]], modules: Any = None) -> dict[str, F32]:
        """What a persona of these adds to each tensor, (n,) fp32."""
        vectors = [InMemory.of(self.base, delta) for _, delta in given_]
        behaviours = {
            f"b{at}": behaviour(weight, vector.id, modules=modules if at == 0 else None)
            for at, (vector, (weight, _)) in enumerate(zip(vectors, given_, strict=True))
        }
        return self.of(persona(self.base, behaviours, rule), vectors)

    def of(self, made: Persona, given_: list[InMemory]) -> dict[str, F32]:
        vectors = {vector.id: vector for vector in given_}
        settled = settle(made, self.base, vectors)
        assert isinstance(settled.combine, Settled) and settled.to_bytes() == made.to_bytes()
        with numpy_only():
            assert settle(made, self.base, vectors) == settled
        assert settle(made, self.base, vectors, threads=3) == settled
        found = {name: delta_of(settled, vectors, name) for name in self.shapes}
        return {
            name: np.zeros(int(np.prod(shape)), np.float32) if (one := found[name]) is None else one
            for name, shape in self.shapes.items()
        }


@dataclass(frozen=True)
class InMemory:
    """A vector that was never written."""

    manifest: VectorManifest
    base: Base
    deltas: Deltas

    @staticmethod
    def of(base: Base, deltas: Deltas) -> InMemory:
        rows = {
            n: {"tau": TensorRow("F32", (x.size,), sha256(x.tobytes()).hexdigest())}
            for n, x in deltas.items()
        }
        return InMemory(VectorManifest(base.manifest.id, "float", rows), base, deltas)

    @property
    def id(self) -> str:
        return self.manifest.id

    def tau(self, name: str, base: BaseTensor | None = None) -> F32:
        return self.deltas[name]

    def pieces(self, name: str) -> Expanded:
        return Expanded(lambda start, stop: self.deltas[name][start:stop])

    def needs_base(self, name: str) -> bool:
        return False


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    made = Small(tmp_path_factory.mktemp("small"))
    yield made
    made.base.close()


COARSE = st.integers(-3, 3).map(float)
FINE = st.one_of(
    st.just(0.0), *(st.floats(low, high, width=32) for low, high in ((-1e3, -(2.0**-60)), (2.0**-60, 1e3)))
)


@st.composite
def vector(draw: Any) -> Deltas:
    names = draw(st.sets(st.sampled_from(sorted(Small.shapes)), min_size=1))
    numbers = draw(st.sampled_from([COARSE, FINE]))
    sizes = {name: int(np.prod(Small.shapes[name])) for name in sorted(names)}
    return {
        name: np.array(draw(st.lists(numbers, min_size=n, max_size=n)), np.float32)
        for name, n in sizes.items()
    }


DENSITY = st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.99, 1.0])


@given(st.lists(vector(), min_size=1, max_size=3), DENSITY)
def test_any_vectors(small: Small, deltas: list[Deltas], density: float) -> None:
    rule = Combine.of("ties", preset="paper", density=density)
    found, wanted = small.added(rule, [(1.0, delta) for delta in deltas]), reference(deltas, density)
    for name, got in found.items():
        np.testing.assert_allclose(got, wanted.get(name, 0 * got), rtol=1e-6, atol=0)


@given(st.lists(vector(), min_size=1, max_size=3), DENSITY, st.sampled_from([2.0**-40, 0.25, 8.0]))
def test_scaled_deltas_give_a_scaled_result(
    small: Small, deltas: list[Deltas], density: float, scale: float
) -> None:
    """Up to rounding: other deltas are other vectors, whose ids say in which order they are added."""
    rule = Combine.of("ties", preset="paper", density=density)
    plain = small.added(rule, [(1.0, delta) for delta in deltas])
    scaled = small.added(
        rule, [(1.0, {n: x * np.float32(scale) for n, x in delta.items()}) for delta in deltas]
    )
    for name, got in scaled.items():
        most = max((float(np.abs(d[name]).max()) for d in deltas if name in d), default=0.0) * abs(scale)
        np.testing.assert_allclose(got, plain[name] * np.float32(scale), rtol=1e-6, atol=1e-6 * most)


@given(st.lists(vector(), min_size=1, max_size=3), DENSITY)
def test_the_opposite_of_all_is_the_opposite(small: Small, deltas: list[Deltas], density: float) -> None:
    """Also where two cancel out: neither sign is preferred."""
    rule = Combine.of("ties", preset="paper", density=density)
    plain = small.added(rule, [(1.0, delta) for delta in deltas])
    negative = small.added(rule, [(-1.0, delta) for delta in deltas])
    negated = small.added(rule, [(1.0, {n: -x for n, x in delta.items()}) for delta in deltas])
    for name in plain:
        assert np.array_equal(negative[name], -plain[name])
        np.testing.assert_allclose(negated[name], -plain[name], rtol=1e-6, atol=0)


@given(vector())
def test_one_alone_whole_is_itself_and_its_negative(small: Small, delta: Deltas) -> None:
    rule = Combine.of("ties", preset="paper", density=1)
    for weight in (1.0, -1.0):
        for name, got in small.added(rule, [(weight, delta)]).items():
            assert np.array_equal(got, weight * delta.get(name, 0 * got))


def test_of_equal_ones_the_first_are_kept(small: Small) -> None:
    """In order of tensor and index: of 68 ones, 20 are kept."""
    ones = {name: np.ones(int(np.prod(shape)), np.float32) for name, shape in Small.shapes.items()}
    rule = Combine.of("ties", preset="paper", density=20.5 / 68)
    found = small.added(rule, [(1.0, ones)])
    assert [int(found[name].sum()) for name in sorted(found)] == [15, 5, 0, 0]
    assert found["b"][:5].all()


def test_a_module_factor_of_0_is_absence(small: Small) -> None:
    own = {name: random_f32(f"x {name}", int(np.prod(shape))) for name, shape in Small.shapes.items()}
    other = {name: random_f32(f"y {name}", int(np.prod(shape))) for name, shape in Small.shapes.items()}
    rule = Combine.of("ties", preset="paper", density=0.3)
    without = {name: x for name, x in own.items() if name != "b"}
    found = small.added(rule, [(1.0, own), (1.0, other)], modules={"b": 0.0})
    wanted = small.added(rule, [(1.0, without), (1.0, other)])
    assert all(np.array_equal(found[name], wanted[name]) for name in found)
    halved = small.added(rule, [(1.0, own), (1.0, other)], modules={"b": 0.5})
    assert not np.array_equal(halved["b"], small.added(rule, [(1.0, own), (1.0, other)])["b"])


def test_a_sum_is_trimmed_as_a_sum(small: Small) -> None:
    parts = [{"a": random_f32("p", 15), "b": random_f32("q", 40)}, {"b": random_f32("r", 40)}]
    ids = [InMemory.of(small.base, part) for part in parts]
    rule = Combine.of("ties", preset="paper", density=0.4)
    terms = (Term(1.0, ids[0].id), Term(-0.5, ids[1].id))
    made = persona(small.base, {"x": Behaviour(1.0, terms)}, rule)
    whole = {"a": parts[0]["a"], "b": parts[0]["b"] + np.float32(-0.5) * parts[1]["b"]}
    wanted, found = trimmed(whole, 0.4), small.of(made, ids)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6)


def test_the_order_of_names_is_none(small: Small) -> None:
    deltas = [
        {name: random_f32(f"{at} {name}", int(np.prod(s))) for name, s in Small.shapes.items()}
        for at in range(3)
    ]
    rule = Combine.of("ties", preset="paper", density=0.3)
    ids = [InMemory.of(small.base, delta) for delta in deltas]
    one = persona(small.base, {n: behaviour(1.0, v.id) for n, v in zip("abc", ids, strict=True)}, rule)
    other = persona(small.base, {n: behaviour(1.0, v.id) for n, v in zip("cab", ids, strict=True)}, rule)
    found, again = small.of(one, ids), small.of(other, ids)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_peft_is_the_same_on_one_tensor() -> None:
    """PEFT trims a tensor at a time: of a model of one, that is the whole, and signs that cancel out aside."""
    import torch
    from peft.utils.merge_utils import ties

    deltas = [random_f32(f"peft {at}", 999) for at in range(3)]
    wanted = ties([torch.from_numpy(delta) for delta in deltas], torch.ones(3), 0.3).numpy()
    np.testing.assert_allclose(reference([{"t": d} for d in deltas], 0.3)["t"], wanted, rtol=1e-6)


def test_a_tensor_by_itself_is_refused() -> None:
    """Nobody gets the trim of a tensor where that of the model was asked for."""
    with pytest.raises(PvError, match="before its trim was found"):
        combine(
            PAPER, [Share(1.0, np.ones(3, np.float32))], Place("t", (3,), lambda: np.zeros(3, np.float32))
        )


def test_a_build_with_nothing_in_it(tmp_path: Path) -> None:
    with base_at(save(tmp_path / "base", TENSORS)) as base:
        made = build(persona(base, {}, PAPER), base, {}, tmp_path / "out", side_files={})
        assert made.weights == base.manifest.id
