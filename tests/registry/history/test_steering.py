"""Steering terms in the history: written whole, merged and reverted by name, kept by gc as long as they are named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.registries import add, flip, fsck, mend, vector
from support.steering import SITES, add_steering, directions, put_steering

from pv.registry.check import fsck as files
from pv.registry.check.gc import collect
from pv.registry.errors import ConflictError, NotFoundError, UsageError
from pv.registry.format_file import format_bytes
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.provenance import Imported
from pv.registry.registry import Registry
from pv.registry.steering import Condition, SteeringTerm
from pv.vecstore.vectors.steering import open_steering, write_steering


def test_a_commit_has_the_manifest_and_where_it_came_from(registry: Registry) -> None:
    term = add_steering(registry, "formal", 1)
    assert registry.vector("HEAD", term.vector).is_steering
    assert registry.provenance("HEAD", term.vector) == Imported("test", "1.gguf")
    assert registry.persona().steering.terms == {"formal": term}
    assert open_steering(term.vector, registry.base().id, registry.packs).keys() == set(SITES)
    registry.change("drop", "Drop", lambda p: p.without_steering("formal"))
    with pytest.raises(NotFoundError):
        registry.vector("HEAD", term.vector)
    assert registry.persona().to_bytes() == registry.persona("HEAD~2").to_bytes()
    fsck(registry)


def test_the_format_is_2_from_the_first_term_on(registry: Registry) -> None:
    file = registry.root / "format"
    add(registry, "a", 1)
    assert file.read_bytes() == format_bytes()
    with pytest.raises(UsageError, match="nothing changed"):
        registry.change("x", "x", lambda p: p)
    assert file.read_bytes() == format_bytes()
    add_steering(registry, "formal", 1)
    assert file.read_bytes() == format_bytes(steering=True) == b'{"git":"sha1","hash":"sha256","pv":2}\n'
    before = file.stat().st_ino
    add_steering(registry, "terse", 2)
    registry.undo(count=2)
    assert not registry.persona().steering.terms
    add(registry, "b", 2)
    assert (file.stat().st_ino, file.read_bytes()) == (before, format_bytes(steering=True))
    fsck(registry)


@pytest.mark.parametrize("left", [format_bytes(), b"{", None], ids=["1", "garbled", "gone"])
@pytest.mark.parametrize("terms", ["named", "undone"])
def test_fsck_writes_the_format_that_the_terms_need(
    registry: Registry, left: bytes | None, terms: str
) -> None:
    add_steering(registry, "formal", 1)
    commit = registry.head().commit
    if terms == "undone":
        registry.undo()
    file = registry.root / "format"
    file.unlink() if left is None else file.write_bytes(left)
    report = files.check(registry.root)
    (found,) = report.damage
    assert (found.kind, found.repairable, report.steers) == ("format", True, True)
    if left == format_bytes():
        assert found.commits == (commit,) and "steering" in found.what
    mend(registry.root)
    assert file.read_bytes() == format_bytes(steering=True)
    assert files.check(registry.root).clean


def test_a_vector_is_named_for_what_it_is(registry: Registry) -> None:
    add(registry, "a", 1)
    term = add_steering(registry, "formal", 1)
    state = registry.history.refs()
    task = SteeringTerm(1.0, vector(1).id)

    def refused(edit: object, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            registry.change("x", "x", edit)  # type: ignore[arg-type]
        assert registry.history.refs() == state

    as_behaviour = Behaviour(1.0, (Term(1.0, term.vector),))
    refused(
        lambda p: p.with_behaviour("b", as_behaviour), "is a steering vector: no behaviour can be made of it"
    )
    refused(
        lambda p: p.with_steering("x", task), "is a task vector: the steering term x cannot be made of it"
    )
    elsewhere = replace(term, sites=("model.layers.9",))
    refused(lambda p: p.with_steering("formal", elsewhere), "no direction at 'model.layers.9'")
    when = Condition(vector(1).id, SITES[0], 0.1)
    refused(
        lambda p: p.with_steering("formal", replace(term, when=when, positions="reply")), "is a task vector"
    )
    when = Condition(term.vector, "lm_head", 0.1)
    refused(
        lambda p: p.with_steering("formal", replace(term, when=when, positions="reply")),
        "no direction at 'lm_head'",
    )
    refused(lambda p: p.with_steering("x", replace(term, sites=("a" * 300,))), "sites must be")


def test_fsck_finds_a_vector_named_for_what_it_is_not(registry: Registry, tmp_path: Path) -> None:
    """As another program might write it: the commit is made past the check."""
    from pv.registry.history import snapshot

    term = add_steering(registry, "formal", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "_check_roles", lambda *_: None)
        as_behaviour = Behaviour(1.0, (Term(1.0, term.vector),))
        registry.change("x", "x", lambda p: p.with_behaviour("b", as_behaviour))
    report = files.check(tmp_path / ".pv")
    assert [f.what for f in report.damage] == [
        f"vector {term.vector[:12]} is a steering vector: no behaviour can be made of it"
    ]
    assert report.behaviours == ("b", "steering formal")


def test_merge_revert_and_pick_by_name(registry: Registry) -> None:
    formal = add_steering(registry, "formal", 1)
    registry.create_branch("side", switch=True)
    sad = add_steering(registry, "sad", 2, -1.0)
    registry.switch("main")
    set_to(registry, "formal", 2.0)
    merged = registry.merge("side")
    assert merged.kind == "merge" and not merged.conflicts
    assert registry.persona().steering.terms == {"formal": replace(formal, coefficient=2.0), "sad": sad}
    registry.revert("HEAD~1")
    assert registry.persona().steering.terms == {"formal": formal, "sad": sad}
    registry.change("drop", "Drop", lambda p: p.without_steering("sad"))
    registry.cherry_pick("side")
    assert registry.persona().steering.terms["sad"] == sad
    set_to(registry, "sad", 5.0)
    with pytest.raises(ConflictError) as caught:
        registry.revert("HEAD~1")
    (conflict,) = caught.value.conflicts
    assert (conflict.name, conflict.kind) == ("sad", "steering")
    assert conflict.ours_from is not None and conflict.ours_from.subject == "Set sad"
    assert conflict.to_json()["ours"] == replace(sad, coefficient=5.0).to_json()
    registry.revert("HEAD~1", take={"sad": "theirs"})
    assert set(registry.persona().steering.terms) == {"formal"}
    fsck(registry)


def set_to(registry: Registry, name: str, coefficient: float) -> None:
    def edit(persona: Persona) -> Persona:
        return persona.with_steering(name, persona.steering_term(name).changed(coefficient=coefficient))

    registry.change(f"set {name}", f"Set {name}", edit)


def test_gc_keeps_what_a_term_or_a_condition_names(registry: Registry) -> None:
    condition = put_steering(registry, 7)
    spare = put_steering(registry, 8)
    formal = add_steering(registry, "formal", 1)
    when = Condition(condition.id, SITES[0], 0.25)
    registry.change(
        "set",
        "Set",
        lambda p: p.with_steering("formal", replace(formal, when=when, positions="reply")),
        vectors={condition.id: (condition, Imported("test", "7"))},
    )
    collect(registry, grace_s=0, expire_s=0)
    assert registry.packs.has(formal.vector) and registry.packs.has(condition.id)
    assert not registry.packs.has(spare.id)
    registry.change("drop", "Drop", lambda p: p.without_steering("formal"))
    collect(registry, grace_s=0, expire_s=0)
    assert registry.packs.has(formal.vector), "the history has it"


def test_a_damaged_pack_is_found_and_who_it_affects(registry: Registry, tmp_path: Path) -> None:
    formal = add_steering(registry, "formal", 1)
    flip(registry.packs.path(formal.vector))
    (finding,) = files.check(tmp_path / ".pv").of("pack")
    assert finding.behaviours == ("steering formal",)
    registry.packs.path(formal.vector).unlink()
    (finding,) = files.check(tmp_path / ".pv").of("missing")
    assert finding.behaviours == ("steering formal",)
    write_steering(directions(1), registry.base().id, registry.packs)
    assert files.check(tmp_path / ".pv").clean


def test_a_lost_manifest_is_written_anew_from_its_pack(registry: Registry, tmp_path: Path) -> None:
    from pv.registry.git import loose

    formal = add_steering(registry, "formal", 1)
    entry = registry.history.entry(registry.resolve("HEAD"), f"vectors/{formal.vector}.json")
    assert entry is not None
    loose.object_path(registry.history.path, entry.id).unlink()
    report, done = mend(tmp_path / ".pv")
    assert report.clean and [one.done for one in done] == [True]
    assert registry.vector("HEAD", formal.vector).is_steering


def test_a_copied_registry_is_as_good(registry: Registry, tmp_path: Path) -> None:
    formal = add_steering(registry, "formal", 1)
    shutil.copytree(tmp_path / ".pv", tmp_path / "copy" / ".pv")
    with Registry.find(tmp_path / "copy") as copy:
        assert copy.persona() == registry.persona()
        found = open_steering(formal.vector, copy.base().id, copy.packs)
        assert {site: one.tobytes() for site, one in found.items()} == {
            site: one.tobytes() for site, one in directions(1).items()
        }
        fsck(copy)
