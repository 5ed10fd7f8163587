"""fsck: what it looks at, what it reports, what is no damage; and what a repair of refs and packs leaves."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from support.registries import (
    BASE,
    A,
    B,
    Made,
    everything,
    flip,
    git,
    mend,
    new_registry,
    overwrite,
    put_pack,
    recover,
    scale,
    seen,
    vector,
)

from pv.registry.check import fsck
from pv.registry.check.report import Finding, Report
from pv.registry.errors import IntegrityError, NotARegistry
from pv.registry.git import loose, refs
from pv.registry.git.objects import RefChange
from pv.registry.git.process import GitProcess
from pv.registry.history import operations
from pv.registry.provenance import Unknown
from pv.registry.registry import Registry


def test_a_sound_registry(made: Made) -> None:
    before = everything(made.root)
    stages: dict[str, tuple[int, int]] = {}
    report = fsck.check(made.root, progress=lambda stage, done, total: stages.update({stage: (done, total)}))
    assert report.findings == ()
    assert report.clean and not report.deep
    assert (report.commits, report.operations, report.packs, report.records) == (4, 9, 2, 1)
    assert report.objects == sum(1 for _ in loose.stored(made.git)) > 40
    assert report.nbytes == sum(made.pack(pack_id).stat().st_size for pack_id in (A, B))
    assert stages["commits"] == (4, 4)
    assert 0 < stages["packs"][0] <= stages["packs"][1] == report.nbytes
    assert {pack_id: sorted(use.behaviours) for pack_id, use in report.uses.items()} == {A: ["a"], B: ["b"]}
    assert everything(made.root) == before


def test_one_damage_hides_no_other(made: Made) -> None:
    overwrite(made.root / "format", b"")
    overwrite(made.git / "config", b"")
    overwrite(made.git / "HEAD", b"")
    overwrite(made.git / "refs/heads/main", b"")
    flip(made.entry(made.side, f"provenance/{B}.json"))
    flip(made.pack(A))
    report = fsck.check(made.root)
    assert {f.kind for f in report.damage} == {"format", "config", "head", "ref", "object", "pack"}
    assert report.behaviours == ("a", "b")
    mended, _ = mend(made.root)
    assert {f.kind for f in mended.damage} == {"object", "pack"}


def test_no_git_is_started_under_a_foreign_configuration(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, ...]] = []
    start = GitProcess.start

    def noted(self: GitProcess, *args: str, **options: Any) -> Popen[bytes]:
        started.append(args)
        return start(self, *args, **options)

    monkeypatch.setattr(GitProcess, "start", noted)
    assert fsck.check(made.root).clean
    assert [args[0] for args in started] == ["fsck"]
    started.clear()
    overwrite(made.git / "config", b"[core]\n\tfsmonitor = /bin/evil\n")
    assert not fsck.check(made.root).clean
    assert started == []


def test_what_only_an_operation_needs_is_checked_too(made: Made) -> None:
    with Registry(made.root) as registry:
        undone = registry.change("scale a 9", "m", scale("a", 9.0))
        registry.undo()
    flip(loose.object_path(made.git, undone))
    (finding,) = fsck.check(made.root).damage
    assert finding.where == undone


def test_damage_where_no_commit_leads(made: Made) -> None:
    """git would believe that the object is there, and never write it again."""
    with Registry(made.root) as registry:
        lost = registry.history.write_blob(b"written by a command that was killed")
    assert fsck.check(made.root).clean
    flip(loose.object_path(made.git, lost))
    (finding,) = fsck.check(made.root).damage
    assert (finding.kind, finding.where, finding.commits) == ("object", lost, ())
    mended, _ = mend(made.root)
    assert mended.clean
    with Registry(made.root) as registry:
        assert registry.history.write_blob(b"written by a command that was killed") == lost
        assert registry.history.blob(lost) == b"written by a command that was killed"


def test_an_unfinished_operation_is_no_damage(made: Made) -> None:
    with Registry(made.root) as registry:
        history = registry.history
        new = history.commit_tree(history.commit(made.main).tree, [made.main], "later")
        operations.publish(history, "later", [RefChange("refs/heads/main", made.main, new)])
        after = history.refs()
    overwrite(made.git / "refs/heads/main", made.main.encode() + b"\n")  # as if killed before it moved
    report = fsck.check(made.root)
    assert report.clean
    (note,) = report.notes
    assert note.kind == "unfinished" and "refs/heads/main" in note.what
    with Registry(made.root) as registry:
        recover(registry)
        assert registry.history.refs() == after
    assert fsck.check(made.root).findings == ()


def test_leftovers_and_strangers_are_named(made: Made) -> None:
    old = [
        made.root / "tmp" / "pack.1.aa.pvtmp",
        made.root / "records" / "x.1.aa.pvtmp",
        made.git / "HEAD.1.aa.pvtmp",
        made.git / "objects" / "aa" / "tmp_obj_x",
    ]
    for path in old:
        overwrite(path, b"half")
        os.utime(path, (0, 0))
    overwrite(made.root / "tmp" / "young.1.aa.pvtmp", b"half")
    overwrite(made.git / "refs/heads/main.lock", b"")
    strange = [
        "notes.txt",
        "packs/readme",
        "history.git/hooks/post-commit",
        "quarantine/x",
        "records/x",
        "tmp/x",
    ]
    for name in strange:
        overwrite(made.root / name, b"hello")
    report = fsck.check(made.root)
    assert report.clean
    assert {made.root / f.where for f in report.of("leftover")} == {*old, made.git / "refs/heads/main.lock"}
    named = {"history.git/hooks" if name.startswith("history.git/hooks") else name for name in strange}
    assert {f.where for f in report.of("unknown")} == named
    mended, _ = mend(made.root)
    assert mended.of("leftover") == []
    assert all((made.root / name).exists() for name in strange)


def test_a_ref_that_git_made_is_named(made: Made) -> None:
    with Registry(made.root) as registry:
        git(registry, "update-ref", "refs/heads/mine", made.tag)
    report = fsck.check(made.root)
    assert report.clean
    assert [f.where for f in report.of("unknown")] == ["history.git/refs/heads/mine"]


def test_a_pack_that_a_provenance_lists_is_needed(tmp_path: Path) -> None:
    from pv.registry.persona import Behaviour, Persona, Term

    def edit(persona: Persona) -> Persona:
        return persona.with_behaviour("c", Behaviour(1.0, (Term(1.0, A),)))

    with new_registry(tmp_path) as registry:
        rows = put_pack(registry.packs, 7)
        put_pack(registry.packs, 1)
        commit = registry.change("c", "m", edit, vectors={A: (vector(1), Unknown({"packs": [rows]}))})
        assert fsck.check(registry.root).clean
        registry.packs.path(rows).unlink()
        (finding,) = fsck.check(registry.root).damage
    assert (finding.kind, finding.behaviours, finding.commits) == ("missing", ("c",), (commit,))


def test_a_tree_with_more_or_less_than_belongs_there(made: Made) -> None:
    with Registry(made.root) as registry:
        history = registry.history
        tree = dict(history.tree(history.commit(made.main).tree))
        lacking = {name: entry for name, entry in tree.items() if name != "provenance"}
        more = {**tree, "extra.txt": tree["persona.json"]}
        for entries, what in ((lacking, "provenance lacks"), (more, "'extra.txt', which does not belong")):
            bad = history.commit_tree(history.write_tree(entries), [made.main], "bad")
            old = registry.resolve("main")
            operations.publish(history, "bad", [RefChange("refs/heads/main", old, bad)])
            findings = [f for f in fsck.check(made.root).damage if bad in f.commits]
            assert any(what in f.what for f in findings), findings


def test_a_document_in_another_spelling(made: Made) -> None:
    """The same JSON value with a space in it hashes otherwise: no pv wrote that."""
    with Registry(made.root) as registry:
        history = registry.history
        tree = dict(history.tree(history.commit(made.main).tree))
        spaced = history.write_blob(history.read_blob(made.main, "persona.json").replace(b",", b", "))
        tree["persona.json"] = type(tree["persona.json"])(spaced)
        bad = history.commit_tree(history.write_tree(tree), [made.main], "bad")
        operations.publish(history, "bad", [RefChange("refs/heads/main", made.main, bad)])
    (finding,) = fsck.check(made.root).damage
    assert "canonical" in finding.what


def test_objects_in_a_git_pack(made: Made) -> None:
    """As a fetch leaves them. They are read through git, and git checks them."""
    with Registry(made.root) as registry:
        git(registry, "repack", "-a", "-d", "-q")
        git(registry, "prune-packed")
    report = fsck.check(made.root)
    assert report.clean and report.commits == 4
    (pack,) = (made.git / "objects/pack").glob("*.pack")
    flip(pack, 200)
    assert not fsck.check(made.root).clean


def test_without_a_registry(tmp_path: Path) -> None:
    with pytest.raises(NotARegistry):
        fsck.locate(tmp_path)
    (tmp_path / ".pv").mkdir()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert fsck.locate(inner) == tmp_path / ".pv"
    report = fsck.check(tmp_path / ".pv")  # an empty folder: nothing there, and it says so
    assert {f.kind for f in report.damage} >= {"format", "config"}


def test_a_bomb_in_an_object_is_damage_not_memory(made: Made) -> None:
    bomb = zlib.compress(b"blob 999999999999\0" + bytes(1 << 20))
    path = made.entry(made.main, "persona.json")
    overwrite(path, bomb)
    assert not fsck.check(made.root).clean


def test_findings_are_data() -> None:
    finding = Finding("pack", "packs/aa/x", "w", ("a",), ("c",), True, "h")
    report = Report((finding, Finding("unknown", "x", "y")), commits=1)
    document = report.to_json()
    assert document["clean"] is False
    assert document["findings"][0] == {
        "kind": "pack", "where": "packs/aa/x", "what": "w", "damage": True, "behaviours": ["a"],
        "commits": ["c"], "repairable": True, "hint": "h",
    }  # fmt: skip
    assert [f.where for f in report.notes] == ["x"]
    assert BASE.id not in report.uses


def test_every_bit_of_an_object_counts(made: Made) -> None:
    """Also those that deflate leaves unused, and that git does not look at."""
    for object_id in list(loose.stored(made.git))[:40]:
        path = loose.object_path(made.git, object_id)
        whole = path.read_bytes()
        loose.read_loose(path, object_id)
        for place in [*range(0, 8 * len(whole), 7), *range(8 * len(whole) - 40, 8 * len(whole))]:
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            overwrite(path, bytes(flipped))
            with pytest.raises(IntegrityError):
                loose.read_loose(path, object_id)
        overwrite(path, whole)


# Mended


def test_packed_refs(made: Made) -> None:
    visible = seen(made.root)
    with Registry(made.root) as registry:
        git(registry, "pack-refs", "--all")
    assert fsck.check(made.root).clean
    overwrite(made.git / "packed-refs", (made.git / "packed-refs").read_bytes()[:-30])
    assert fsck.check(made.root).damage[0].kind == "ref"
    mended, _ = mend(made.root)
    assert mended.clean
    assert seen(made.root) == visible


def test_moving_a_ref_back_can_be_undone(made: Made) -> None:
    overwrite(made.git / "refs/heads/main", made.side.encode() + b"\n")
    mended, done = mend(made.root)
    assert mended.clean
    assert made.side[:12] in done[0].what
    with Registry(made.root) as registry:
        assert registry.resolve("main") == made.main
        assert registry.undo().command == "fsck --repair"
        assert registry.resolve("main") == made.side
    assert fsck.check(made.root).clean


def test_a_chain_whose_tail_is_gone_is_shortened(made: Made) -> None:
    with Registry(made.root) as registry:
        known = registry.operations()
    loose.object_path(made.git, known[3].id).unlink()
    (finding,) = fsck.check(made.root).damage
    assert finding.kind == "operations"
    mended, _ = mend(made.root)
    assert mended.clean
    with Registry(made.root) as registry:
        assert [o.seq for o in registry.operations()] == [o.seq for o in known[:3]]
        assert (
            registry.undo().taken_back[0].seq == known[0].seq - 2
        )  # known[0] is the redo, known[1] the undo of that one


def test_an_older_chain_never_takes_a_ref_back(made: Made) -> None:
    """The operation that moved main is lost: what main says is newer than what the rest of the chain says."""
    with Registry(made.root) as registry:
        newest = registry.change("scale a 5", "m", scale("a", 5.0))
        lost = registry.operations(1)[0].id
    loose.object_path(made.git, lost).unlink()
    assert not fsck.check(made.root).clean
    mended, _ = mend(made.root)
    assert mended.clean
    with Registry(made.root) as registry:
        assert registry.resolve("main") == newest
        registry.undo()
        assert registry.resolve("main") == made.main


def test_a_pack_comes_back_from_the_quarantine(made: Made) -> None:
    whole = made.pack(A).read_bytes()
    shutil.copy(made.pack(A), made.root / "quarantine" / A)
    flip(made.pack(A))
    mended, done = mend(made.root)
    assert mended.clean and "quarantine" in done[0].what
    assert made.pack(A).read_bytes() == whole
    made.pack(A).unlink()
    overwrite(made.root / "quarantine" / A, whole[:-1])
    mended, _ = mend(made.root)
    assert [f.kind for f in mended.damage] == ["missing"]  # a copy that is damaged itself is no copy


def test_an_object_that_git_overlooked_is_not_missing(made: Made) -> None:
    """git lists objects before it reads refs; what a writer adds in between it calls missing."""
    there, gone = made.main, "f" * 40
    assert fsck._is_there(made.root, f"missing commit {there}")
    assert not fsck._is_there(made.root, f"missing commit {gone}")
    assert not fsck._is_there(made.root, f"error in commit {there}: badTree")
    flip(loose.object_path(made.git, there))
    assert not fsck._is_there(made.root, f"missing commit {there}")


def test_a_branch_that_pv_would_not_name_is_no_place_for_head(made: Made) -> None:
    heads = made.git / "refs/heads"
    for path in heads.iterdir():
        path.unlink() if path.name != "main" else path.rename(heads / "-x")
    (made.git / "HEAD").write_text("ref: refs/heads/-x\n")
    (made.git / refs.OPS).unlink()
    mended, _ = mend(made.root)
    assert mended.clean
    with Registry(made.root) as registry:
        assert registry.head().branch == "main"
