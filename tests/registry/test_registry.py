"""A registry: made whole or not at all, found from below, and read without a write."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.registries import BASE, FILES, add, fsck, git, new_registry, run_python, vector, vectors_of

from pv.registry import canonical, layout
from pv.registry.disk import tempfiles
from pv.registry.errors import (
    BaseMismatch,
    FormatError,
    NotARegistry,
    NotFoundError,
    UnknownRevision,
    UsageError,
)
from pv.registry.manifest import BaseManifest
from pv.registry.persona import Output, Persona
from pv.registry.registry import Head, Registry


def test_a_new_registry(registry: Registry, tmp_path: Path) -> None:
    assert sorted(p.name for p in tmp_path.iterdir()) == [".pv"]
    names = {
        ".gitignore",
        "format",
        "gate",
        "history.git",
        "lock",
        "packs",
        "quarantine",
        "records",
        "refs.lock",
        "tmp",
    }
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
        ('{"git":"sha1","hash":"sha256","pv":3}', "pv 3 is not known here, only 1 and 2"),
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
    with pytest.raises(UsageError, match="exists already"):
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
    _long_ago(left)
    with layout.creating(tmp_path) as alive:
        assert not left.exists()
        _long_ago(alive)
        assert list(tempfiles.beside(tmp_path / ".pv")) == []
    assert not alive.exists()


def _long_ago(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, 0))


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
        assert vectors_of(registry) == []


def test_no_git_is_one_clear_error(registry: Registry, tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path
os.environ["PATH"] = sys.argv[1]
from pv.registry.errors import UsageError
from pv.registry.registry import Registry
with Registry.find(Path(sys.argv[1])) as registry:
    try:
        registry.persona()
    except UsageError as error:
        print(error, "|", error.hint)
"""
    assert run_python(code, str(tmp_path)).stdout.startswith("pv needs git, and found none | install")


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
import pv.registry.git.process as g
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
