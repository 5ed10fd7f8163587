"""fsck names every kind of damage and whom it affects, changes nothing; repair puts right what it can."""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_kit import BASE, add, git, new_registry, put_pack, scale, vector

from pv.registry import fsck, locks, objects, operations, refs, repair
from pv.registry.errors import IntegrityError, NotARegistry
from pv.registry.findings import Finding, Report
from pv.registry.gitprocess import GitProcess
from pv.registry.history import RefChange
from pv.registry.packs import DAMAGED
from pv.registry.registry import Registry

A, B = vector(1).id, vector(2).id
BUILD = "ab" * 32


@dataclass(frozen=True)
class Made:
    """A registry with two branches, two behaviours, a tag, a record; and where its commits are."""

    root: Path
    main: str
    side: str
    tag: str

    @property
    def git(self) -> Path:
        return self.root / "history.git"

    def pack(self, pack_id: str) -> Path:
        return self.root / "packs" / pack_id[:2] / pack_id

    def entry(self, commit: str, path: str) -> Path:
        """The file of the object at `path` in a commit; of the commit itself without one."""
        with fsck.reading(self.root) as history:
            if path:
                found = history.entry(commit, path)
                assert found is not None
                return objects.object_path(self.git, found.id)
        return objects.object_path(self.git, commit)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("original")
    os.environ.setdefault("EMAIL", "ada@example.org")
    with new_registry(folder) as registry:
        add(registry, "a", 1)
        registry.create_branch("side", switch=True)
        side = add(registry, "b", 2)
        registry.switch("main")
        tag = registry.resolve("HEAD")
        registry.tag("v1")
        main = registry.change("scale a 2", "m", scale("a", 2.0))
        registry.update_record(BUILD, {"weights": "w"})
        registry.undo()
        registry.redo()
    return Made(folder / ".pv", main, side, tag)


@pytest.fixture
def made(original: Made, tmp_path: Path) -> Made:
    shutil.copytree(original.root, tmp_path / ".pv")
    return Made(tmp_path / ".pv", original.main, original.side, original.tag)


def overwrite(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def flip(path: Path, place: int = -9) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    overwrite(path, bytes(data))


def swap(one: Path, other: Path) -> None:
    a, b = one.read_bytes(), other.read_bytes()
    overwrite(one, b)
    overwrite(other, a)


def mend(root: Path) -> tuple[Report, list[repair.Mended]]:
    done: list[repair.Mended] = []
    with locks.alone(root):
        for _ in range(2):  # refs first: what they lead to is known only then
            done += repair.repair(root, fsck.check(root, alone=True))
    return fsck.check(root), done


def seen(root: Path) -> dict[str, bytes]:
    """What a user can see: every ref, and what it leads to."""
    with Registry(root) as registry:
        now = operations.view(registry.history)
        return {
            "HEAD": now.head.encode(),
            **{ref: registry.persona(c).to_bytes() for ref, c in now.refs.items() if ref != refs.OPS},
        }


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def everything(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_sound_registry(made: Made) -> None:
    before = everything(made.root)
    stages: dict[str, tuple[int, int]] = {}
    report = fsck.check(made.root, progress=lambda stage, done, total: stages.update({stage: (done, total)}))
    assert report.findings == ()
    assert report.clean and not report.deep
    assert (report.commits, report.operations, report.packs, report.records) == (4, 9, 2, 1)
    assert report.objects == sum(1 for _ in objects.stored(made.git)) > 40
    assert report.nbytes == sum(made.pack(pack_id).stat().st_size for pack_id in (A, B))
    assert stages["commits"] == (4, 4)
    assert 0 < stages["packs"][0] <= stages["packs"][1] == report.nbytes
    assert {pack_id: sorted(use.behaviours) for pack_id, use in report.uses.items()} == {A: ["a"], B: ["b"]}
    assert everything(made.root) == before


@dataclass(frozen=True)
class Damage:
    """What is done, and what fsck must say: kind, place, behaviours, commits; and whether repair undoes it."""

    do: Callable[[Made], object]
    kind: str
    where: str | Callable[[Made], str]
    behaviours: tuple[str, ...] = ()
    commits: Callable[[Made], set[str]] = lambda made: set()
    mended: bool = True


def _all(made: Made) -> set[str]:
    return {made.tag, made.main, made.side}


def _object_id(path: str, commit: str = "main") -> Callable[[Made], str]:
    def where(made: Made) -> str:
        file = made.entry(getattr(made, commit), path)
        return file.parent.name + file.name

    return where


DAMAGES: dict[str, Damage] = {
    "format garbled": Damage(lambda m: overwrite(m.root / "format", b"{"), "format", "format"),
    "format gone": Damage(lambda m: (m.root / "format").unlink(), "format", "format"),
    "format without its line feed": Damage(
        lambda m: overwrite(m.root / "format", (m.root / "format").read_bytes()[:-1]), "format", "format"
    ),
    "format of a later pv": Damage(
        lambda m: overwrite(m.root / "format", b'{"git":"sha1","hash":"sha256","pv":2}\n'),
        "format", "format", mended=False,
    ),
    "config edited": Damage(
        lambda m: overwrite(m.git / "config", b"[core]\n\tfsmonitor = /bin/evil\n"),
        "config", "history.git/config",
    ),
    "config gone": Damage(lambda m: (m.git / "config").unlink(), "config", "history.git/config"),
    "alternates": Damage(
        lambda m: overwrite(m.git / "objects/info/alternates", b"/elsewhere\n"),
        "config", "history.git/objects/info/alternates",
    ),
    "HEAD garbled": Damage(lambda m: flip(m.git / "HEAD", 0), "head", "history.git/HEAD"),
    "HEAD gone": Damage(lambda m: (m.git / "HEAD").unlink(), "head", "history.git/HEAD"),
    "HEAD elsewhere": Damage(
        lambda m: overwrite(m.git / "HEAD", b"ref: refs/heads/side\n"), "head", "history.git/HEAD"
    ),
    "HEAD nowhere": Damage(
        lambda m: overwrite(m.git / "HEAD", b"ref: refs/heads/nope\n"), "head", "history.git/HEAD"
    ),
    "HEAD detached": Damage(
        lambda m: overwrite(m.git / "HEAD", m.main.encode() + b"\n"), "head", "history.git/HEAD"
    ),
    "branch garbled": Damage(
        lambda m: flip(m.git / "refs/heads/main"),
        "ref", "history.git/refs/heads/main", ("a",), lambda m: {m.main},
    ),
    "branch cut short": Damage(
        lambda m: overwrite(m.git / "refs/heads/side", m.side.encode()),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "branch emptied": Damage(
        lambda m: overwrite(m.git / "refs/heads/side", b""),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "branch gone": Damage(
        lambda m: (m.git / "refs/heads/side").unlink(),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "branches swapped": Damage(
        lambda m: swap(m.git / "refs/heads/main", m.git / "refs/heads/side"),
        "ref", "history.git/refs/heads/main", ("a",), lambda m: {m.main},
    ),
    "a link for a branch": Damage(
        lambda m: ((m.git / "refs/heads/side").unlink(), (m.git / "refs/heads/side").symlink_to("main")),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "tag moved": Damage(
        lambda m: overwrite(m.git / "refs/tags/v1", m.main.encode() + b"\n"),
        "ref", "history.git/refs/tags/v1", ("a",), lambda m: {m.tag},
    ),
    "operations garbled": Damage(
        lambda m: overwrite(m.git / refs.OPS, b"z" * 40 + b"\n"), "operations", f"history.git/{refs.OPS}"
    ),
    "operations gone": Damage(lambda m: (m.git / refs.OPS).unlink(), "operations", f"history.git/{refs.OPS}"),
    "operations at a commit": Damage(
        lambda m: overwrite(m.git / refs.OPS, m.main.encode() + b"\n"),
        "operations", f"history.git/{refs.OPS}",
    ),
    "newest operation damaged": Damage(
        lambda m: flip(objects.object_path(m.git, (m.git / refs.OPS).read_text().strip())),
        "operations", f"history.git/{refs.OPS}",
    ),
    "persona damaged": Damage(
        lambda m: flip(m.entry(m.main, "persona.json")),
        "object", _object_id("persona.json"), (), lambda m: {m.main}, mended=False,
    ),
    "persona gone": Damage(
        lambda m: m.entry(m.main, "persona.json").unlink(),
        "object", _object_id("persona.json"), (), lambda m: {m.main}, mended=False,
    ),
    "manifest damaged": Damage(
        lambda m: flip(m.entry(m.side, f"vectors/{B}.json")),
        "object", _object_id(f"vectors/{B}.json", "side"), ("b",), lambda m: {m.side},
    ),
    "manifest gone": Damage(
        lambda m: m.entry(m.side, f"vectors/{A}.json").unlink(),
        "object", _object_id(f"vectors/{A}.json", "side"), ("a",), _all,
    ),
    "provenance damaged": Damage(
        lambda m: overwrite(m.entry(m.side, f"provenance/{B}.json"), b""),
        "object", _object_id(f"provenance/{B}.json", "side"), ("b",), lambda m: {m.side}, mended=False,
    ),
    "tree damaged": Damage(
        lambda m: flip(m.entry(m.side, "vectors")),
        "object", _object_id("vectors", "side"), ("a", "b"), lambda m: {m.side}, mended=False,
    ),
    "side file damaged": Damage(
        lambda m: flip(m.entry(m.main, "base/files/tokenizer.json")),
        "object", _object_id("base/files/tokenizer.json"), ("a", "b"), _all, mended=False,
    ),
    "something after an object": Damage(
        lambda m: overwrite(
            m.entry(m.main, "persona.json"), m.entry(m.main, "persona.json").read_bytes() + b"\0"
        ),
        "object", _object_id("persona.json"), (), lambda m: {m.main},
    ),
    "commit damaged": Damage(
        lambda m: flip(m.entry(m.main, "")),
        "object", lambda m: m.main, (), lambda m: {m.main}, mended=False,
    ),
    "objects swapped": Damage(
        lambda m: swap(m.entry(m.side, f"vectors/{A}.json"), m.entry(m.side, f"vectors/{B}.json")),
        "object", _object_id(f"vectors/{B}.json", "side"), ("b",), lambda m: {m.side},
    ),
    "pack flipped": Damage(
        lambda m: flip(m.pack(A), -1), "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False
    ),
    "pack header flipped": Damage(
        lambda m: flip(m.pack(B), 9), "pack", f"packs/{B[:2]}/{B}", ("b",), lambda m: {m.side}, mended=False
    ),
    "pack cut short": Damage(
        lambda m: overwrite(m.pack(A), m.pack(A).read_bytes()[:-1]),
        "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False,
    ),
    "pack emptied": Damage(
        lambda m: overwrite(m.pack(A), b""), "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False
    ),
    "packs swapped": Damage(
        lambda m: swap(m.pack(A), m.pack(B)), "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False
    ),
    "pack gone": Damage(
        lambda m: m.pack(B).unlink(), "missing", f"packs/{B[:2]}/{B}", ("b",), lambda m: {m.side}, mended=False
    ),
    "pack that nobody needs": Damage(
        lambda m: overwrite(m.pack("c" * 64), b"nonsense"), "pack", f"packs/cc/{'c' * 64}"
    ),
    "record garbled": Damage(
        lambda m: flip(m.root / f"records/{BUILD}.json", 40), "record", f"records/{BUILD}.json"
    ),
    "record of another build": Damage(
        lambda m: (m.root / f"records/{BUILD}.json").rename(m.root / f"records/{'ac' * 32}.json"),
        "record", f"records/{'ac' * 32}.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_found_and_what_can_be_is_mended(made: Made, damage: Damage) -> None:
    visible = seen(made.root)
    where = damage.where if isinstance(damage.where, str) else damage.where(made)
    damage.do(made)
    before = everything(made.root)
    report = fsck.check(made.root)
    assert not report.clean
    finding = next(f for f in report.damage if f.where == where)
    assert finding.kind == damage.kind
    assert finding.behaviours == damage.behaviours
    assert set(finding.commits) >= damage.commits(made)
    assert everything(made.root) == before

    commits = [
        *_all(made),
        *([(made.git / refs.OPS).read_text().strip()] if (made.git / refs.OPS).exists() else []),
    ]
    mended, done = mend(made.root)
    after = everything(made.root)
    for name, content in before.items():  # whatever was there before is there still, if under another name
        aside = f"quarantine/{name.rpartition('/')[2]}."
        assert after.get(name) == content or content in (
            *(c for n, c in after.items() if n.startswith(aside) and n.endswith(DAMAGED)),
            *(sha256(f"{commit}\n") for commit in commits),  # a ref: an operation has noted where it was
        ), name
    if damage.mended:
        assert mended.damage == (), done
        assert done and all(one.done for one in done)
        assert seen(made.root) == visible
        with Registry(made.root) as registry:  # and it goes on from here
            registry.change("scale a 3", "m", scale("a", 3.0))
            registry.undo()
        assert fsck.check(made.root).clean
        assert seen(made.root) == visible
    else:
        assert {(f.kind, f.where) for f in mended.damage} == {(f.kind, f.where) for f in report.damage}


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
    monkeypatch.setattr(
        GitProcess, "start", lambda self, *a, **k: (started.append(a), start(self, *a, **k))[1]
    )
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
    flip(objects.object_path(made.git, undone))
    (finding,) = fsck.check(made.root).damage
    assert finding.where == undone


def test_damage_where_no_commit_leads(made: Made) -> None:
    """git would believe that the object is there, and never write it again."""
    with Registry(made.root) as registry:
        lost = registry.history.write_blob(b"written by a command that was killed")
    assert fsck.check(made.root).clean
    flip(objects.object_path(made.git, lost))
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
        registry.recover()
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
    objects.object_path(made.git, known[3].id).unlink()
    (finding,) = fsck.check(made.root).damage
    assert finding.kind == "operations"
    mended, _ = mend(made.root)
    assert mended.clean
    with Registry(made.root) as registry:
        assert [o.seq for o in registry.operations()] == [o.seq for o in known[:3]]
        assert registry.undo().seq == known[0].seq - 2  # known[0] is the redo, known[1] the undo of that one


def test_an_older_chain_never_takes_a_ref_back(made: Made) -> None:
    """The operation that moved main is lost: what main says is newer than what the rest of the chain says."""
    with Registry(made.root) as registry:
        newest = registry.change("scale a 5", "m", scale("a", 5.0))
        lost = registry.operations(1)[0].id
    objects.object_path(made.git, lost).unlink()
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


def test_a_pack_that_a_provenance_lists_is_needed(tmp_path: Path) -> None:
    from pv.registry.persona import Behaviour, Persona, Term

    def edit(persona: Persona) -> Persona:
        return persona.with_behaviour("c", Behaviour(1.0, (Term(1.0, A),)))

    with new_registry(tmp_path) as registry:
        rows = put_pack(registry.packs, 7)
        put_pack(registry.packs, 1)
        commit = registry.change("c", "m", edit, vectors={A: (vector(1), {"packs": [rows]})})
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
    for object_id in list(objects.stored(made.git))[:40]:
        path = objects.object_path(made.git, object_id)
        whole = path.read_bytes()
        objects.read_loose(path, object_id)
        for place in [*range(0, 8 * len(whole), 7), *range(8 * len(whole) - 40, 8 * len(whole))]:
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            overwrite(path, bytes(flipped))
            with pytest.raises(IntegrityError):
                objects.read_loose(path, object_id)
        overwrite(path, whole)
