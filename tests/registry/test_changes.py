"""Changes, merges, reverts and picks: one commit that can be read in full, or nothing at all."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.registries import BASE, add, fsck, git, pack_bytes, scale, vector, vectors_of

from pv.registry.combine import Combine
from pv.registry.errors import (
    BaseMismatch,
    ConflictError,
    IntegrityError,
    NotFoundError,
    PvError,
    StorageError,
    UnknownBehaviour,
    UsageError,
)
from pv.registry.history.snapshot import write_base
from pv.registry.history.transaction import Transaction
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.provenance import Provenance, Unknown
from pv.registry.registry import Registry

Edit = Callable[[Persona], Persona]


def drop(name: str) -> Edit:
    return lambda persona: persona.without(name)


def test_change(registry: Registry) -> None:
    before = registry.resolve("HEAD")
    commit = add(registry, "a", 1, weight=0.5)
    assert registry.resolve("HEAD") == commit
    assert registry.parents() == (before,)
    assert registry.persona().behaviours["a"].weight == 0.5
    assert registry.vector(None, vector(1).id).to_bytes() == vector(1).to_bytes()
    assert registry.provenance("HEAD", vector(1).id).to_json() == {"kind": "test", "seed": 1}
    registry.change("scale", "Scale", scale("a", 2.0))
    registry.change("drop", "Drop", drop("a"))
    assert vectors_of(registry) == []
    assert vectors_of(registry, "HEAD~1") == [vector(1).id]
    assert registry.vector(None, vector(1).id).id == vector(1).id  # an older commit has it
    with pytest.raises(NotFoundError):
        registry.vector("HEAD", vector(1).id)
    with pytest.raises(NotFoundError):
        registry.vector(None, vector(9).id)
    fsck(registry)


def test_provenance_may_name_more_packs(registry: Registry) -> None:
    manifest = vector(1)
    with registry.packs.writer(manifest.id) as pack:
        pack.write(b"x")
    rows = vector(7).id
    registry.change(
        "train",
        "m",
        lambda p: p.with_behaviour("a", Behaviour(1.0, (Term(1.0, manifest.id),))),
        vectors={manifest.id: (manifest, Unknown({"packs": [rows, "rubbish", 5]}))},
    )
    assert registry.provenance(None, manifest.id).packs == (rows,)


def test_refused_changes_change_nothing(registry: Registry) -> None:
    add(registry, "a", 1)
    state = registry.history.refs()
    foreign = vector(3, base="f" * 64)
    with registry.packs.writer(foreign.id) as pack:
        pack.write(pack_bytes(3, base="f" * 64))

    def naming(vector_id: str) -> Edit:
        return lambda p: p.with_behaviour("b", Behaviour(1.0, (Term(1.0, vector_id),)))

    cases: list[tuple[Edit, dict[str, tuple[VectorManifest, Provenance]], type[PvError], str]] = [
        (lambda p: p, {}, UsageError, "nothing changed"),
        (scale("a", 1.0), {}, UsageError, "nothing changed"),
        (drop("nope"), {}, UnknownBehaviour, "nope"),
        (naming(vector(2).id), {}, NotFoundError, "no commit at hand"),
        (naming(vector(2).id), {vector(2).id: (vector(2), Unknown({}))}, NotFoundError, "no pack"),
        (naming(foreign.id), {foreign.id: (foreign, Unknown({}))}, BaseMismatch, "was measured from base"),
        (naming(foreign.id), {foreign.id: (vector(1), Unknown({}))}, IntegrityError, "was given as"),
        (lambda p: replace(p, base="f" * 64), {}, BaseMismatch, "cannot change the base"),
    ]
    for edit, vectors, error, message in cases:
        with pytest.raises(error, match=message):
            registry.change("c", "m", edit, vectors=vectors)
    with pytest.raises(UsageError, match="NUL"):
        registry.change("c", "a\0b", scale("a", 2.0))
    with pytest.raises(NotFoundError, match="no branch 'x'"):
        registry.change("c", "m", scale("a", 2.0), branch="x")
    assert registry.history.refs() == state
    fsck(registry)


def test_a_vector_from_a_commit_on_another_base(registry: Registry) -> None:
    other = BaseManifest({"a.weight": BASE.tensors["b.weight"]}, BASE.origin)
    manifest = vector(3, base=other.id)
    persona = Persona(other.id, {"a": Behaviour(1.0, (Term(1.0, manifest.id),))})
    with registry.packs.writer(manifest.id) as pack:
        pack.write(b"x")
    plan = Transaction(registry.history, registry.packs)
    base = write_base(registry.history, other, {})
    theirs = plan.commit(persona, "m", [], base=base, new={manifest.id: (manifest, Unknown())})
    git(registry, "update-ref", "refs/remotes/origin/main", theirs)  # as a fetch would bring it
    with pytest.raises(BaseMismatch, match="was measured from base"):
        registry.change("add", "m", lambda p: replace(p, behaviours=persona.behaviours), also_from=[theirs])
    assert [c.name for c in registry.merge("origin/main").conflicts] == ["base"]
    with pytest.raises(ConflictError):
        registry.cherry_pick("origin/main")


def test_any_command_line_can_be_written_down(registry: Registry) -> None:
    registry.change("pv \udcff\0\n" + "x" * 1000, "m", lambda p: p, allow_empty=True)
    assert registry.operations(limit=1)[0].command == ("pv ???" + "x" * 1000)[:500]
    fsck(registry)


def test_an_empty_commit_if_asked_for(registry: Registry) -> None:
    before = registry.resolve("HEAD")
    assert registry.change("c", "m", lambda p: p, allow_empty=True) != before


def test_a_change_of_another_branch(registry: Registry) -> None:
    """Training takes hours: the commit goes where it began, wherever HEAD is by then."""
    registry.create_branch("side")
    commit = add(registry, "a", 1, branch="side")
    assert registry.branches()["side"] == commit
    assert registry.head().commit != commit


def test_vectors_from_elsewhere(registry: Registry) -> None:
    registry.create_branch("side", switch=True)
    theirs = add(registry, "a", 1)
    registry.switch("main")
    behaviour = registry.persona(theirs).behaviours["a"]
    registry.change("add", "m", lambda p: p.with_behaviour("copy", behaviour), also_from=[theirs])
    assert registry.vector("HEAD", vector(1).id).id == vector(1).id
    joined = registry.change("join", "m", lambda p: p, second_parent=theirs)
    assert registry.parents(joined)[1] == theirs
    fsck(registry)


def test_merge(registry: Registry) -> None:
    root = add(registry, "a", 1)
    registry.create_branch("side", switch=True)
    theirs = add(registry, "b", 2)
    assert registry.merge("main").kind == "up-to-date"
    registry.switch("main")
    assert registry.merge("side").kind == "fast-forward"
    assert registry.head().commit == theirs
    registry.undo()
    assert registry.head().commit == root
    ours = add(registry, "c", 3)
    outcome = registry.merge("side", message=None)
    assert (outcome.kind, registry.parents()) == ("merge", (ours, theirs))
    assert set(registry.persona().behaviours) == {"a", "b", "c"}
    assert registry.log(limit=1)[0].message == "Merge side into main"
    assert registry.merge("side").kind == "up-to-date"
    fsck(registry)


def test_merge_conflicts_change_nothing(registry: Registry) -> None:
    add(registry, "a", 1)
    registry.create_branch("side", switch=True)
    registry.change("scale", "m", scale("a", 2.0))
    registry.switch("main")
    registry.change("scale", "m", scale("a", 3.0))
    state = registry.history.refs()
    outcome = registry.merge("side")
    assert (outcome.commit, [c.name for c in outcome.conflicts]) == (None, ["a"])
    assert registry.history.refs() == state
    with pytest.raises(UsageError):
        registry.merge("side", {"z": "ours"})
    assert registry.merge("side", {"a": 0.25}).commit == registry.head().commit
    assert registry.persona().behaviours["a"].weight == 0.25


def test_merge_with_a_rule(registry: Registry) -> None:
    add(registry, "a", 1)
    registry.create_branch("side", switch=True)
    add(registry, "b", 2)
    registry.switch("main")
    outcome = registry.merge("side", combine=Combine.of("ties"), message="m")
    assert outcome.kind == "merge"  # not a fast-forward: the result is neither side
    assert registry.persona().combine.method == "ties"
    assert len(registry.parents()) == 2


def test_merge_of_a_fast_forward_with_take_is_a_commit(registry: Registry) -> None:
    registry.create_branch("side", switch=True)
    add(registry, "a", 1)
    registry.switch("main")
    assert registry.merge("side", {"a": 0.5}).kind == "merge"
    assert registry.persona().behaviours["a"].weight == 0.5


def test_revert_is_exact(registry: Registry) -> None:
    add(registry, "a", 1)
    before = registry.history.commit(registry.resolve("HEAD")).tree
    target = add(registry, "b", 2)
    commit = registry.revert(target)
    read = registry.history.commit(commit)
    assert read.tree == before  # not only the persona: the whole tree, byte for byte
    assert read.message == f'Revert "Commit b"\n\nThis takes back commit {target}.'
    registry.revert("HEAD")
    assert set(registry.persona().behaviours) == {"a", "b"}
    with pytest.raises(UsageError, match="like that already"):
        registry.revert(commit)
    fsck(registry)


def test_revert_of_something_older(registry: Registry) -> None:
    target = add(registry, "a", 1)
    add(registry, "b", 2)
    registry.revert(target)
    assert set(registry.persona().behaviours) == {"b"}
    with pytest.raises(UsageError, match="first commit"):
        registry.revert("HEAD~3")


def test_revert_brings_the_old_version_back(registry: Registry) -> None:
    add(registry, "a", 1)
    target = add(registry, "a", 2)
    registry.revert(target)
    assert registry.persona().vectors == (vector(1).id,)
    assert registry.provenance("HEAD", vector(1).id).to_json()["seed"] == 1


def test_revert_of_what_changed_since_is_a_conflict(registry: Registry) -> None:
    target = add(registry, "a", 1)
    registry.change("scale", "m", scale("a", 2.0))
    with pytest.raises(ConflictError) as caught:
        registry.revert(target)
    assert caught.value.exit_code == 1
    assert [c.name for c in caught.value.conflicts] == ["a"]
    registry.revert(target, take={"a": "theirs"})
    assert registry.persona().behaviours == {}


def test_revert_of_a_merge_needs_a_mainline(registry: Registry) -> None:
    registry.create_branch("side", switch=True)
    add(registry, "a", 1)
    registry.switch("main")
    add(registry, "b", 2)
    merge = str(registry.merge("side").commit)
    with pytest.raises(UsageError, match="is a merge") as caught:
        registry.revert(merge)
    assert "-m 1" in str(caught.value.hint)
    for bad in (0, 3):
        with pytest.raises(UsageError, match=f"has no parent {bad}"):
            registry.revert(merge, bad)
    registry.revert(merge, 1)
    assert set(registry.persona().behaviours) == {"b"}
    registry.undo()
    registry.revert(merge, 2)
    assert set(registry.persona().behaviours) == {"a"}


def test_cherry_pick(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.create_branch("side", switch=True)
    add(registry, "a", 1)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace")
    target = add(registry, "b", 2)
    monkeypatch.delenv("GIT_AUTHOR_NAME")
    registry.switch("main")
    registry.cherry_pick(target)
    assert set(registry.persona().behaviours) == {"b"}
    entry = registry.log(limit=1)[0]
    assert (entry.author, entry.subject) == ("Grace", "Commit b")
    assert target in entry.message
    with pytest.raises(UsageError, match="like that already"):
        registry.cherry_pick(target)
    fsck(registry)


def test_a_full_disk_is_one_clear_error(registry: Registry) -> None:
    add(registry, "a", 1)
    state = registry.history.refs()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(StorageError):
            registry.change("scale", "m", scale("a", 2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert registry.history.refs() == state
    registry.change("scale", "m", scale("a", 2.0))
    fsck(registry)
