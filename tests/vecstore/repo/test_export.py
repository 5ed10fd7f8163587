"""What was committed comes back: by a build after whatever was done and undone, and by an export at any time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.commands import isolate
from support.vectors import array, files_below, nudged, read_all, same_bits, save, small_base

import pv
from pv.registry.persona import ENGINE, ENGINES
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id
from pv.vecstore.tensors.array import Array

EMBED = "model.embed_tokens.weight"
UP = "model.layers.1.mlp.up_proj.weight"
FLOATS = ("BF16", "F16", "F32")
STRANGE = "some values are not finite: `pv export` gives them back"


def strange() -> dict[str, Array]:
    """A fine-tune that no fp32 difference holds: far from its base, with zeros that changed sign, and a NaN."""
    own = small_base()
    made = {n: array(n, t.dtype, *t.shape, seed=9) if t.dtype in FLOATS else t for n, t in own.items()}
    raw = made[EMBED].raw.copy()
    raw[:4] = [0xB00E, 0x8000, 0x0000, 0x0001]
    nan = made[UP].raw.copy()
    nan[5] = 0x7FC3
    made[EMBED] = Array("BF16", made[EMBED].shape, raw)
    made[UP] = Array("BF16", made[UP].shape, nan)
    return made


def base() -> dict[str, Array]:
    own = small_base()
    raw = own[EMBED].raw.copy()
    raw[:4] = [0xB960, 0x0000, 0x8000, 0x3F80]
    return {**own, EMBED: Array("BF16", own[EMBED].shape, raw)}


TUNED, OTHER = strange(), nudged(base(), 4)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pv.Repo]:
    """With one behaviour, `x`, captured from TUNED, alone on main."""
    isolate(tmp_path, monkeypatch)
    with pv.init(tmp_path / "repo", base=save(tmp_path / "base", base()), threads=1) as made:
        capture = made.commit(save(tmp_path / "tuned", TUNED), name="x", threads=1)
        assert capture.notes == (f"{UP}: {STRANGE}, and so does a build of this behaviour alone at weight 1",)
        save(tmp_path / "other", OTHER)
        yield made


def like(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> bool:
    return found.keys() == wanted.keys() and all(same_bits(t, wanted[n]) for n, t in found.items())


def comes_back(repo: pv.Repo, folder: Path, name: str = "x") -> None:
    """Both ways: a build of the branch, and an export of the behaviour."""
    built = repo.at().build(folder / "built", threads=1).built
    assert like(read_all(folder / "built"), TUNED)
    exported = repo.at().export(name, folder / "exported", threads=2)
    assert exported.captured
    assert like(read_all(folder / "exported"), TUNED)
    assert exported.written.weights == built.weights
    assert repo.at().verify(folder / "exported", threads=1).weights_same
    with Checkpoint(folder.parent / "tuned") as committed:
        assert exported.written.weights == table_id(fingerprint(committed))


def add_and_revert(repo: pv.Repo) -> None:
    repo.commit(repo.path.parent / "other", name="y", threads=1)
    repo.revert("HEAD")


def add_and_negation(repo: pv.Repo) -> None:
    repo.commit(repo.path.parent / "other", name="y", weight=0.3, threads=1)
    repo.add("y", "HEAD", name="z", weight=-0.3)


def merge_and_revert(repo: pv.Repo) -> None:
    repo.branch("side", "HEAD~1", switch=True)
    repo.commit(repo.path.parent / "other", name="y", threads=1)
    repo.switch("main")
    repo.scale("x", 2)
    repo.merge("side")
    repo.revert("HEAD", mainline=1)
    repo.scale("x", 1)


def merged_into_the_base(repo: pv.Repo) -> None:
    repo.branch("side", "HEAD~1", switch=True)
    repo.output(seed=9)
    repo.merge("main")


def negate_twice(repo: pv.Repo) -> None:
    repo.negate("x")
    repo.negate("x")


def halves(repo: pv.Repo) -> None:
    repo.scale("x", 0.5)
    repo.add("x", "HEAD", name="half")


def another_at_zero(repo: pv.Repo) -> None:
    repo.commit(repo.path.parent / "other", name="y", weight=0, threads=1)


def ties_and_back(repo: pv.Repo) -> None:
    repo.combine("ties")
    repo.combine("add")


@pytest.mark.parametrize(
    "story",
    [
        lambda repo: None,
        add_and_revert,
        add_and_negation,
        merge_and_revert,
        merged_into_the_base,
        negate_twice,
        halves,
        another_at_zero,
        ties_and_back,
    ],
)
def test_what_was_committed_comes_back(
    repo: pv.Repo, tmp_path: Path, story: Callable[[pv.Repo], object]
) -> None:
    """The first promise."""
    story(repo)
    comes_back(repo, tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        lambda repo: repo.scale("x", -0.5),
        lambda repo: repo.scale("x", 1, modules={"*": 0.25}),
        lambda repo: repo.combine("ties"),
        lambda repo: repo.output(dtype="fp16", rounding="nearest", seed=3),
        lambda repo: repo.commit(repo.path.parent / "other", name="y", threads=1),
        lambda repo: repo.registry.change("engine", "Engine 1", lambda persona: replace(persona, engine=1)),
    ],
)
def test_an_export_asks_for_nothing_that_the_persona_does(
    repo: pv.Repo, tmp_path: Path, change: Callable[[pv.Repo], object]
) -> None:
    change(repo)
    made = repo.at().export("x", tmp_path / "out", threads=1)
    assert made.captured
    assert (made.build, made.encodings) == (None, ("exact",))
    assert like(read_all(tmp_path / "out"), TUNED)


def test_an_export_of_another_revision(repo: pv.Repo, tmp_path: Path) -> None:
    repo.commit(tmp_path / "other", name="x", threads=1)
    assert repo.at("HEAD~1").export("x", tmp_path / "one", threads=1).captured
    assert repo.at().export("x", tmp_path / "two", threads=1).captured
    assert like(read_all(tmp_path / "one"), TUNED)
    assert like(read_all(tmp_path / "two"), OTHER)
    repo.drop("x")
    with pytest.raises(pv.UnknownBehaviour):
        repo.at().export("x", tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_an_export_can_be_committed_elsewhere_and_is_the_same_vector(repo: pv.Repo, tmp_path: Path) -> None:
    repo.at().export("x", tmp_path / "out", threads=1)
    with pv.init(tmp_path / "elsewhere", base=tmp_path / "base", threads=1) as there:
        made = there.commit(tmp_path / "out", name="x", threads=1)
        assert [term.vector for term in repo.persona.behaviours["x"].terms] == [made.vector]


def test_what_is_no_captured_checkpoint_is_built_alone_at_weight_1(repo: pv.Repo, tmp_path: Path) -> None:
    repo.commit(tmp_path / "other", name="y", threads=1)
    repo.compress("y", "float:fp32", force=True, threads=1)
    repo.scale("y", -0.25, modules={"*.mlp.*": 0})
    repo.output(dtype="fp32")
    made = repo.at().export("y", tmp_path / "out", threads=1)
    assert (made.captured, made.encodings) == (False, ("float",))
    recipe = pv.Persona.from_bytes((tmp_path / "out" / "persona.json").read_bytes())
    assert recipe.behaviours.keys() == {"y"}
    assert (recipe.behaviours["y"].weight, recipe.behaviours["y"].modules) == (1, None)
    assert recipe.output.dtype == "fp32"
    repo.drop("x")
    repo.scale("y", 1, modules={})
    build = repo.at().build(tmp_path / "alone", threads=1).built
    assert (made.build, made.written.files) == (build.build, build.files)
    assert made.to_json()["captured"] is False


def test_several_terms_are_not_one_checkpoint(repo: pv.Repo, tmp_path: Path) -> None:
    """Unless they are it in sum."""
    (term,) = repo.persona.behaviours["x"].terms
    repo.add("x", "HEAD", name="stays")
    other = repo.commit(tmp_path / "other", name="y", threads=1).vector

    def put(*terms: tuple[float, str]) -> None:
        made = tuple(pv.Term(*one) for one in terms)
        repo.registry.change("t", "Terms", lambda persona: persona.with_terms("x", made))

    for terms, captured in (
        (((0.5, term.vector), (0.5, term.vector)), True),
        (((1.0, term.vector), (0.0, other)), True),
        (((2.0, other),), False),
        (((0.5, other), (0.5, other), (1.0, other)), False),
        (((1.0, other), (0.5, other)), False),
    ):
        put(*terms)
        plan = repo.at().plan_export("x", tmp_path / "out", force=True)
        assert plan.captured == captured
        assert repo.at().export("x", tmp_path / "out", threads=1, force=True).captured == captured
    put((1.0, term.vector), (1.0, other))
    assert not repo.at().plan_export("x", tmp_path / "out", force=True).captured
    with pytest.raises(pv.IntegrityError, match="infinite or undefined"):  # a sum with a NaN in it
        repo.at().export("x", tmp_path / "sum", threads=1)
    assert not (tmp_path / "sum").exists()


def test_a_checkpoint_saved_in_fp32_comes_back_in_fp32(repo: pv.Repo, tmp_path: Path) -> None:
    wide = {n: array(n, "F32", *t.shape, seed=5) if t.dtype in FLOATS else t for n, t in base().items()}
    repo.commit(save(tmp_path / "wide", wide), name="wide", threads=1)
    plan = repo.at().plan_export("wide", tmp_path / "out", shard_bytes=1000)
    made = repo.at().export("wide", tmp_path / "out", shard_bytes=1000, threads=1)
    assert {shard.file: shard.nbytes for shard in plan.shards}.keys() == made.written.files.keys()
    assert like(read_all(tmp_path / "out"), wide)
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["dtype"] == "float32"


def test_a_plan_writes_nothing(repo: pv.Repo, tmp_path: Path) -> None:
    before = files_below(tmp_path)
    plan = repo.at().plan_export("x", tmp_path / "out")
    assert plan.to_json()["sizes"] == {"model.safetensors": sum(t.raw.nbytes for t in TUNED.values())}
    assert files_below(tmp_path) == before


# Engines


def test_a_new_registry_begins_with_the_newest_and_edits_keep_what_is_there(repo: pv.Repo) -> None:
    assert repo.persona.engine == ENGINE == max(ENGINES)
    repo.registry.change("engine", "Engine 1", lambda persona: replace(persona, engine=1))
    for edit in (
        lambda: repo.scale("x", 2),
        lambda: repo.negate("x"),
        lambda: repo.combine("ties"),
        lambda: repo.output(seed=3),
        lambda: repo.add("x", "HEAD~5", name="y"),
        lambda: repo.commit(repo.path.parent / "other", name="z", threads=1),
        lambda: repo.drop("x"),
        lambda: repo.revert("HEAD"),
    ):
        edit()
        assert repo.persona.engine == 1


def test_engine_1_goes_on_building_what_it_did(repo: pv.Repo, tmp_path: Path) -> None:
    """Base plus fp32 difference, rounded: the zero keeps the base's sign, and the far weight is another."""
    repo.commit(save(tmp_path / "tuned", {**TUNED, UP: OTHER[UP]}), name="x", threads=1)
    assert read_all(tmp_path / "tuned")[EMBED].raw[0] == 0xB00E
    repo.at().build(tmp_path / "two", threads=1)
    repo.registry.change("engine", "Engine 1", lambda persona: replace(persona, engine=1))
    repo.at().build(tmp_path / "one", threads=1)
    one, two = (read_all(tmp_path / folder)[EMBED].raw for folder in ("one", "two"))
    assert np.array_equal(two, TUNED[EMBED].raw)
    assert one[:3].tolist() == [0xB010, 0x0000, 0x8000]
    assert repo.at().verify(tmp_path / "one", threads=1).same
    assert not repo.at().verify(tmp_path / "two", threads=1).same
    again = repo.commit(save(tmp_path / "tuned", TUNED), name="x", threads=1)
    assert again.notes == (f"{UP}: {STRANGE}; no build with engine 1 does",)
    with pytest.raises(pv.IntegrityError):
        repo.at().build(tmp_path / "three", threads=1)


def test_two_sides_with_an_engine_each(repo: pv.Repo) -> None:
    """One side that moved up takes the other along; two that went different ways are a conflict."""

    def engine(number: int) -> None:
        repo.registry.change("engine", f"{number}", lambda persona: replace(persona, engine=number))

    engine(1)
    repo.branch("side")
    repo.scale("x", 2)
    repo.switch("side")
    engine(2)
    assert repo.merge("main").persona.engine == 2
    assert repo.persona.behaviours["x"].weight == 2
    repo.switch("main")
    assert repo.persona.engine == 1
    assert repo.merge("side").persona.engine == 2
    assert repo.revert("side~1", mainline=None).persona.engine == 1
