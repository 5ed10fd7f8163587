"""The versions of a behaviour, the vectors of a registry, and what a name or an id means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.vectors import nudged, save, small_base

import pv
from pv.registry import ids, provenance
from pv.vecstore.publish.words import Effect
from pv.vecstore.repo.effects import known_effects, own_effect
from pv.vecstore.repo.show import Shown, ShownBehaviour
from pv.vecstore.repo.vectors import KnownVector


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[pv.Repo]:
    """`x` in two versions on main, the first at weight 2 on branch `side`; a third was undone."""
    base = small_base()
    save(tmp_path / "base", base)
    for seed in (1, 2, 3):
        save(tmp_path / f"tuned{seed}", nudged(base, seed))
    with pv.init(tmp_path / "work", base=tmp_path / "base") as made:
        made.commit(tmp_path / "tuned1", name="x", message="First")
        made.branch("side", switch=True)
        made.scale("x", 2)
        made.switch("main")
        made.commit(tmp_path / "tuned2", name="x", message="Second")
        made.commit(tmp_path / "tuned3", name="x", message="Third")
        made.undo()
        yield made


def test_versions_are_numbered_from_the_oldest(repo: pv.Repo) -> None:
    second, first = repo.versions("x")
    assert [(v.number, v.entry.subject) for v in (first, second)] == [(1, "First"), (2, "Second")]
    assert first.now == {"refs/heads/side": 2.0}
    assert second.now == {"refs/heads/main": 1.0}
    assert second.entry.id == repo.head.commit
    (vector,) = second.vectors
    assert (vector.how, vector.encoding, vector.effect) == ("captured", "exact", None)
    assert vector.id == repo.persona.behaviours["x"].terms[0].vector
    assert vector.stored_bytes == repo.registry.packs.size(vector.id)
    assert [v.number for v in repo.versions("x", "side")] == [1], "a weight makes no version"


def test_what_a_revert_brings_back_is_the_version_that_it_was(repo: pv.Repo) -> None:
    repo.revert("HEAD")
    second, first = repo.versions("x")
    assert (first.number, sorted(first.now)) == (1, ["refs/heads/main", "refs/heads/side"])
    assert second.now == {}
    repo.drop("x")
    assert [v.number for v in repo.versions("x")] == [2, 1], "it is history, if dropped"


def test_another_branch_has_versions_of_its_own(repo: pv.Repo, tmp_path: Path) -> None:
    repo.switch("side")
    repo.commit(tmp_path / "tuned3", name="y")
    repo.switch("main")
    with pytest.raises(pv.UnknownBehaviour, match="no behaviour 'y' in what leads to HEAD") as caught:
        repo.versions("y")
    assert caught.value.hint == "other branches have it: pv log --all --behaviour y"
    assert len(repo.versions("y", all=True)) == 1
    with pytest.raises(pv.UnknownBehaviour, match="anywhere") as caught:
        repo.versions("z", all=True)
    assert caught.value.hint == "behaviours in this registry: x, y"


def test_every_vector_and_what_keeps_it(repo: pv.Repo) -> None:
    third, second, first = repo.vectors()
    assert [known.kept_for for known in (first, second, third)] == ["use", "use", "undo"]
    assert [use.ref for use in first.uses] == ["refs/heads/side"]
    assert [use.to_json() for use in second.uses] == [
        {"behaviour": "x", "ref": "refs/heads/main", "commit": repo.head.commit}
    ]
    assert (third.uses, third.first.subject, third.name) == ((), "Third", "x")
    repo.delete_branch("side")
    assert [known.kept_for for known in repo.vectors()] == ["undo", "use", "history"]
    repo.gc(grace_days=0, expire_days=0)
    assert [known.kept_for for known in repo.vectors()] == ["use", "history"]


def test_show_by_any_name_and_id(repo: pv.Repo) -> None:
    head, persona = repo.head.commit, repo.persona
    assert head is not None
    second, first = repo.versions("x")
    for text in ("HEAD", "main", head[:7]):
        shown = repo.show(text)
        assert isinstance(shown, Shown) and (shown.entry.id, shown.found) == (head, None)
    for text, number in (("x", 2), ("HEAD:x", 2), (":x", 2), ("side:x", 1), ("HEAD~1:x", 1)):
        behaviour = repo.show(text)
        assert isinstance(behaviour, ShownBehaviour) and behaviour.version.number == number, text
    shown = repo.show("side:x")
    assert isinstance(shown, ShownBehaviour) and shown.behaviour.weight == 2
    for version in (first, second):
        for digits in (8, 12, 64):
            known = repo.show(version.vectors[0].id[:digits])
            assert isinstance(known, KnownVector) and known.vector == version.vectors[0]
    fp16 = persona.with_output(dtype="fp16", rounding="nearest")
    for identity, said in (
        (persona.id, "persona {}"),
        (persona.base, "base {}"),
        (ids.build_id(persona.id, persona.engine), "build {}"),
        (ids.build_id(fp16.id, fp16.engine), "build {} (--dtype fp16 --rounding nearest)"),
    ):
        shown = repo.show(identity[:12])
        assert isinstance(shown, Shown), said
        assert shown.entry.id == head and shown.found is not None
        assert shown.found.startswith(f"{said.format(identity[:12])} is that of "), shown.found


def test_a_name_that_is_both_is_the_revision(repo: pv.Repo) -> None:
    repo.branch("x", "side")
    shown = repo.show("x")
    assert isinstance(shown, Shown) and shown.entry.id == repo.at("side").commit
    assert isinstance(repo.show("HEAD:x"), ShownBehaviour)


def test_what_is_not_there(repo: pv.Repo) -> None:
    repo.drop("x")
    last = repo.versions("x")[0].entry.id[:12]
    for text in ("x", "HEAD:x"):
        with pytest.raises(pv.UnknownBehaviour, match="no behaviour 'x' in HEAD any more") as caught:
            repo.show(text)
        assert caught.value.hint == f"its newest version is of {last}: pv show {last}:x"
    assert isinstance(repo.show(f"{last}:x"), ShownBehaviour)
    for text in (
        "nope:x",
        "ffffffffffff",
        "f" * 64,
        "f" * 65,
        "HEAD:",
        ":",
        "main..side",
        "a b",
        "",
        "x~1",
        "sidee",
    ):
        with pytest.raises(pv.NotFoundError) as error:
            repo.show(text)
        assert error.value.hint or "no commit" in str(error.value), text


def test_the_own_effect_is_not_that_of_what_it_was_made_from() -> None:
    score: dict[str, Any] = {"effect": {"mean": 2.0, "low": 1.0, "high": 3.0}, "n": 4, "data": "h.jsonl"}
    data = {"name": "r.jsonl", "id": "", "rows": 2, "kept": False}
    trained = {"kind": "trained", "data": data, "loss": None, "held_out": score}
    assert own_effect(provenance.read(trained)) == Effect(2.0, 1.0, 3.0, 4, "h.jsonl")
    derived = {
        "kind": "derived", "derived_from": "0" * 64, "encoding": "ternary",
        "error": {"relative_l2": 0.5, "max_abs": 1}, "original": trained,
    }  # fmt: skip
    assert own_effect(provenance.read(derived)) is None
    measured = {"data": "h.jsonl", "effect": {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 3, "level": 0.95}}
    assert own_effect(provenance.read({**derived, "measured": measured})) == Effect(
        1.0, 0.5, 1.5, 3, "h.jsonl"
    )
    several = own_effect(provenance.read({**derived, "measured": {**measured, "vectors": 3}}))
    assert several is not None and several.vectors == 3, "of three vectors together, and says so"
    nan = {**score["effect"], "low": float("nan")}
    strange: list[dict[str, Any]] = [
        {**score, "effect": nan},
        {},
        {"effect": 3},
        {"effect": {"mean": "x"}},
        {**score, "n": []},
    ]
    for broken in strange:
        assert own_effect(provenance.read({**derived, "measured": broken})) is None
        assert own_effect(provenance.read({**trained, "held_out": broken})) is None


def test_effects_that_were_measured_before_are_read_and_strange_ones_passed_over(repo: pv.Repo) -> None:
    build = ids.build_id(repo.persona.id, repo.persona.engine)
    score = {"effect": {"mean": 2, "low": 1, "high": 3}, "n": 4, "data": "h.jsonl"}
    assert repo.at().effects == ()
    repo.registry.update_record(
        build, {"scores": {"a": {**score, "data": "z.jsonl"}, "b": score, "c": 3, "d": {}}}
    )
    assert [effect.data for effect in repo.at().effects] == ["h.jsonl", "z.jsonl"]
    assert repo.at("side").effects == ()
    repo.registry.update_record(build, {"scores": 7})
    assert known_effects(repo.registry, repo.persona) == ()


def test_a_range_and_a_filter(repo: pv.Repo) -> None:
    assert [e.subject for e in repo.log("side..main")] == ["Second"]
    assert [e.subject for e in repo.log("main..side")] == ["Scale x to 2"]
    assert [e.subject for e in repo.log("side..")] == ["Second"]
    assert repo.log("..main") == []
    assert [e.subject for e in repo.log(all=True, keep=lambda e: "s" in e.subject, limit=1)] != []
    assert [e.subject for e in repo.log(all=True, keep=lambda e: e.subject == "First", limit=5)] == ["First"]
    for text in ("side...main", "nope..main", "main..nope"):
        with pytest.raises(pv.UnknownRevision):
            repo.log(text)
    second, first = repo.log(limit=2)
    assert second.before == first.persona
    assert repo.log()[-1].before is None
