from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from store_kit import BASE, FILES, add, fsck, git, new_registry, pack_bytes, run_python, scale, vector

from pv.registry import canonical, layout
from pv.registry.errors import (
    BaseMismatch,
    ConflictError,
    FormatError,
    IntegrityError,
    NotARegistry,
    NotFoundError,
    StorageError,
    UnknownBehaviour,
    UnknownRevision,
    UsageError,
)
from pv.registry.manifest import BaseManifest
from pv.registry.persona import Behaviour, Combine, Output, Persona, Term
from pv.registry.registry import Head, Registry
from pv.registry.snapshot import write_base
from pv.registry.transaction import Transaction


def drop(name: str):  # type: ignore[no-untyped-def]
    return lambda persona: persona.without(name)


def test_a_new_registry(registry: Registry, tmp_path: Path) -> None:
    assert sorted(p.name for p in tmp_path.iterdir()) == [".pv"]
    names = {"format", "gate", "history.git", "lock", "packs", "quarantine", "records", "refs.lock", "tmp"}
    assert {p.name for p in (tmp_path / ".pv").iterdir()} == names
    assert (tmp_path / ".pv/format").read_text() == '{"git":"sha1","hash":"sha256","pv":1}\n'
    head = registry.head()
    assert head == Head("main", registry.resolve("HEAD"))
    assert registry.branches() == {"main": head.commit}
    assert registry.tags() == {}
    assert registry.persona().to_bytes() == Persona(BASE.id).to_bytes()
    assert registry.base().to_bytes() == BASE.to_bytes()
    assert registry.base_files() == FILES
    assert registry.parents() == ()
    fsck(registry)


def test_git_shows_the_history(registry: Registry) -> None:
    add(registry, "listening", 1)
    one = vector(1).id
    assert git(registry, "ls-tree", "-r", "--name-only", "main").split("\n") == [
        "base/base.json", "base/files/config.json", "base/files/tokenizer.json", "persona.json",
        f"provenance/{one}.json", f"vectors/{one}.json",
    ]  # fmt: skip
    assert git(registry, "show", "main:persona.json").encode() == registry.persona().to_bytes()
    assert json.loads(git(registry, "show", f"main:provenance/{one}.json")) == {"kind": "test", "seed": 1}
    assert git(registry, "log", "--format=%s %an", "main") == "Commit listening Ada\nBegin Ada"


def test_found_from_below(registry: Registry, tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    with Registry.find(below) as found:
        assert found.root == registry.root


def test_not_a_registry(tmp_path: Path) -> None:
    (tmp_path / ".pv").mkdir()
    with pytest.raises(NotARegistry) as caught:
        Registry.find(tmp_path)
    assert caught.value.exit_code == 128
    assert "pv init --base DIR_OR_HUB_ID" in str(caught.value.hint)
    with pytest.raises(NotARegistry):
        Registry(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"git":"sha1","hash":"sha256","pv":2}', "pv 2 is not known"),
        ('{"git":"sha256","hash":"sha256","pv":1}', "git 'sha256' is not known"),
        ('{"git":"sha1","hash":"md5","pv":1}', "hash 'md5'"),
        ("{}", "does not say"),
        ("[]", "does not say"),
        ("", "not valid JSON"),
    ],
)
def test_another_format(registry: Registry, text: str, message: str) -> None:
    (registry.root / "format").write_text(text)
    with pytest.raises(FormatError, match=message):
        Registry(registry.root)


def test_a_second_init_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there already"):
        Registry.init(tmp_path)
    with pytest.raises(UsageError, match="first commit already"):
        registry.start(Persona(BASE.id), BASE, FILES, "again")


def test_a_registry_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a first commit"), Registry.creating(tmp_path):
        pass
    with pytest.raises(RuntimeError), Registry.creating(tmp_path) as registry:
        registry.start(Persona(BASE.id), BASE, FILES, "Begin")
        assert not (tmp_path / ".pv").exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with Registry.creating(tmp_path) as registry:
        registry.start(Persona(BASE.id), BASE, FILES, "Begin")
    assert [p.name for p in tmp_path.iterdir()] == [".pv"]
    with Registry.find(tmp_path) as found:
        assert found.log()[0].subject == "Begin"
        fsck(found)


def test_what_a_killed_init_left_is_swept(tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path
from pv.registry.registry import Registry
with Registry.creating(Path(sys.argv[1])):
    os._exit(9)
"""
    assert run_python(code, str(tmp_path), check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    with layout.creating(tmp_path) as alive:
        os.utime(alive, (0, 0))
        with layout.creating(tmp_path / "other"):
            layout._sweep(tmp_path)
        assert alive.exists()
        assert not left.exists()


def test_a_first_commit_must_fit(tmp_path: Path) -> None:
    with Registry.init(tmp_path) as registry:
        assert registry.head() == Head("main", None)
        for call in (registry.persona, registry.log):
            with pytest.raises(UnknownRevision, match="no commit yet"):
                call()
        with pytest.raises(UsageError, match="no commit yet"):
            add(registry, "a", 1)
        with pytest.raises(BaseMismatch):
            registry.start(Persona("f" * 64), BASE, FILES, "m")
        with pytest.raises(UsageError, match=r"lists the files"):
            registry.start(Persona(BASE.id), BASE, {}, "m")
        pinned = replace(BASE, pinned=True)
        with pytest.raises(NotFoundError, match="no pack"):
            registry.start(Persona(BASE.id), pinned, FILES, "m")
        with registry.packs.writer(BASE.id) as pack:
            pack.write(b"base")
        registry.start(Persona(BASE.id), pinned, FILES, "m")
        assert registry.snapshot().pack_ids() == {BASE.id}


def test_change(registry: Registry) -> None:
    before = registry.resolve("HEAD")
    commit = add(registry, "a", 1, weight=0.5)
    assert registry.resolve("HEAD") == commit
    assert registry.parents() == (before,)
    assert registry.persona().behaviours["a"].weight == 0.5
    assert registry.vector(None, vector(1).id).to_bytes() == vector(1).to_bytes()
    assert registry.provenance("HEAD", vector(1).id) == {"kind": "test", "seed": 1}
    registry.change("scale", "Scale", scale("a", 2.0))
    registry.change("drop", "Drop", drop("a"))
    assert registry.snapshot().vector_ids() == []
    assert registry.snapshot("HEAD~1").pack_ids() == {vector(1).id}
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
        vectors={manifest.id: (manifest, {"packs": [rows, "rubbish", 5]})},
    )
    assert registry.snapshot().pack_ids() == {manifest.id, rows}


def test_refused_changes_change_nothing(registry: Registry) -> None:
    add(registry, "a", 1)
    state = registry.history.refs()
    foreign = vector(3, base="f" * 64)
    with registry.packs.writer(foreign.id) as pack:
        pack.write(pack_bytes(3, base="f" * 64))

    def naming(vector_id: str):  # type: ignore[no-untyped-def]
        return lambda p: p.with_behaviour("b", Behaviour(1.0, (Term(1.0, vector_id),)))

    cases = [
        (lambda p: p, {}, UsageError, "nothing changed"),
        (scale("a", 1.0), {}, UsageError, "nothing changed"),
        (drop("nope"), {}, UnknownBehaviour, "nope"),
        (naming(vector(2).id), {}, NotFoundError, "no commit at hand"),
        (naming(vector(2).id), {vector(2).id: (vector(2), {})}, NotFoundError, "no pack"),
        (naming(foreign.id), {foreign.id: (foreign, {})}, BaseMismatch, "was measured from base"),
        (naming(foreign.id), {foreign.id: (vector(1), {})}, IntegrityError, "was given as"),
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
    theirs = plan.commit(persona, "m", [], base=base, new={manifest.id: (manifest, {})})
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


@pytest.mark.parametrize("refresh", ["raise", "quiet"])
def test_no_git_is_one_clear_error(registry: Registry, tmp_path: Path, refresh: str) -> None:
    code = """
import os
from pathlib import Path
os.environ |= {"PATH": sys.argv[1], "GIT_PYTHON_REFRESH": sys.argv[2]}
from pv.registry.errors import UsageError
from pv.registry.registry import Registry
with Registry.find(Path(sys.argv[1])) as registry:
    try:
        registry.persona()
    except UsageError as error:
        print(error, "|", error.hint)
"""
    assert run_python(code, str(tmp_path), refresh).stdout.startswith(
        "pv needs git, and found none | install"
    )


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
    assert registry.provenance("HEAD", vector(1).id)["seed"] == 1


def test_revert_of_what_changed_since_is_a_conflict(registry: Registry) -> None:
    target = add(registry, "a", 1)
    registry.change("scale", "m", scale("a", 2.0))
    with pytest.raises(ConflictError) as caught:
        registry.revert(target)
    assert caught.value.exit_code == 1
    assert [str(c).split(":")[0] for c in caught.value.conflicts] == ["a"]
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


def test_branches_and_tags(registry: Registry) -> None:
    first = registry.resolve("HEAD")
    second = add(registry, "a", 1)
    assert registry.create_branch("side", "HEAD~1") == first
    assert registry.tag("v1") == second
    assert registry.switch("side") == Head("side", first)
    assert (registry.branches(), registry.tags()) == ({"main": second, "side": first}, {"v1": second})
    for name in ("side", "v1", "Side", "side/way", "V1"):
        with pytest.raises(UsageError):
            registry.create_branch(name) if name != "V1" else registry.tag(name)
    with pytest.raises(UsageError, match="cannot name a tag"):
        registry.tag("a b")
    with pytest.raises(UsageError, match="current branch"):
        registry.delete_branch("side")
    with pytest.raises(UsageError, match="is not a branch") as caught:
        registry.switch("v1")
    assert second[:12] in str(caught.value.hint)
    for call in (registry.switch, registry.delete_branch, registry.delete_tag):
        with pytest.raises(NotFoundError):
            call("nope")
    assert registry.delete_branch("main") == second
    assert registry.delete_tag("v1") == second
    assert registry.branches() == {"side": first}
    fsck(registry)


def test_log(registry: Registry) -> None:
    add(registry, "a", 1)
    registry.create_branch("side", switch=True)
    side = add(registry, "b", 2)
    registry.switch("main")
    main = add(registry, "c", 3)
    registry.tag("v1")
    log = registry.log()
    assert [e.subject for e in log] == ["Commit c", "Commit a", "Begin"]
    assert log[0].refs == ("refs/heads/main", "refs/tags/v1")
    assert [e.head for e in log] == [True, False, False]
    assert (log[0].author, log[0].email, log[0].parents) == ("Ada", "ada@example.org", (log[1].id,))
    assert set(log[0].persona.behaviours) == {"a", "c"}
    assert {e.id for e in registry.log(all=True)} == {e.id for e in log} | {side}
    assert [e.id for e in registry.log("side", limit=1)] == [side]
    registry.delete_branch("side")
    assert side not in {e.id for e in registry.log(all=True)}
    assert main == registry.log("v1")[0].id


def test_reading_is_cheap(registry: Registry) -> None:
    """One git process reads HEAD, refs and personas; the log takes one more."""
    add(registry, "a", 1)
    code = """
from pathlib import Path
from pv.registry.registry import Registry
import pv.registry.gitprocess as g
started = []
start = g.GitProcess.start
g.GitProcess.start = lambda self, *a, **k: (started.append(a[0]), start(self, *a, **k))[1]
with Registry.find(Path(sys.argv[1])) as registry:
    print(len(started), "git" in sys.modules, "numpy" in sys.modules, "torch" in sys.modules)
    registry.head(), registry.branches(), registry.resolve("main"), registry.persona()
    print(len(started))
    registry.log()
    print(len(started))
"""
    out = run_python(code, str(registry.root)).stdout.split("\n")
    assert out[:3] == ["0 False False False", "1", "2"]


def test_records(registry: Registry) -> None:
    build = "ab" * 32
    assert registry.record(build) == {}
    registry.update_record(build, {"weights": "w", "scores": {"x": 1}})
    registry.update_record(build, {"scores": {"y": 2}, "n": [3]})
    assert registry.record(build) == {"weights": "w", "scores": {"x": 1, "y": 2}, "n": [3]}
    path = registry.root / "records" / f"{build}.json"
    assert canonical.loads(path.read_bytes())["build"] == build
    whole = path.read_bytes()
    for damaged in (
        whole.replace(b"ab" * 32, b"ac" * 32),
        whole.replace(b"[3]", b"[2]"),
        whole[:-1],
        whole + b" ",
    ):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(FormatError):
            registry.record(build)
        with pytest.raises(FormatError):
            registry.update_record(build, {"m": 1})
    with pytest.raises(FormatError):
        registry.record("../../x")


def test_a_read_only_registry_can_be_read(registry: Registry) -> None:
    """Nothing but the write locks is opened for writing: a reader never waits and never writes."""
    add(registry, "a", 1)
    state = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in registry.root.rglob("*")}
    with Registry.find(registry.root.parent) as found:
        found.log(all=True)
        found.persona()
        found.base_files()
        found.operations()
        found.vector(None, vector(1).id)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in registry.root.rglob("*")} == state


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


def test_a_stranger_in_the_tree(registry: Registry) -> None:
    commit = registry.resolve("HEAD")
    tree = git(registry, "ls-tree", commit)
    blob = git(registry, "rev-parse", f"{commit}:persona.json")
    wrong = tree.replace(blob, git(registry, "rev-parse", f"{commit}:base/base.json"))
    import subprocess

    made = subprocess.run(
        ["git", "--git-dir", str(registry.history.path), "mktree"],
        input=wrong + "\n", check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    bad = registry.history.commit_tree(made, [], "bad")
    with pytest.raises(FormatError, match=f"persona.json of {bad[:12]}"):
        registry.persona(bad)


def test_the_origin_of_a_base_is_kept(tmp_path: Path) -> None:
    origin = {"kind": "hub", "repo": "someone/model", "revision": "1" * 40}
    base = BaseManifest(BASE.tensors, origin)
    with Registry.init(tmp_path) as registry:
        registry.start(Persona(base.id, output=Output("bf16")), base, {}, "m")
        assert registry.base().origin == origin
        assert registry.base_files() == {}


def test_two_registries_side_by_side(tmp_path: Path) -> None:
    with new_registry(tmp_path / "a") as one, new_registry(tmp_path / "b") as two:
        add(one, "x", 1)
        assert len(one.log()) == 2
        assert len(two.log()) == 1
