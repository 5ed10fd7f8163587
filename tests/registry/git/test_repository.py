from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pv.registry.errors import ConflictError, IntegrityError, NotFoundError, UnknownRevision, UsageError
from pv.registry.git.objects import Author, RefChange, TreeEntry
from pv.registry.git.process import ObjectReader
from pv.registry.git.repository import GitRepository
from pv.registry.history.operations import View, view

MAIN = "refs/heads/main"


@pytest.fixture
def history(tmp_path: Path) -> Iterator[GitRepository]:
    with GitRepository.create(tmp_path / "history.git") as made:
        yield made


def commit(history: GitRepository, text: str, *parents: str) -> str:
    tree = history.write_tree({"file": TreeEntry(history.write_blob(text.encode()))})
    return history.commit_tree(tree, parents, text)


def move(history: GitRepository, ref: str, new: str | None, old: str | None) -> None:
    history.update_refs([RefChange(ref, old, new)])


def git(history: GitRepository, *args: str, input: str | None = None) -> str:
    command = ["git", "--git-dir", str(history.path), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, input=input).stdout.strip()


def test_git_agrees_with_what_is_written(history: GitRepository) -> None:
    blob = history.write_blob(bytes(range(256)))
    inner = history.write_tree({"z": TreeEntry(blob), "a b": TreeEntry(blob)})
    tree = history.write_tree({"file": TreeEntry(blob), "folder": TreeEntry(inner, folder=True)})
    first = history.commit_tree(tree, [], "  Über\n\nbody\n\n")
    second = history.commit_tree(tree, [first, first], "two")
    move(history, MAIN, second, None)
    git(history, "fsck", "--strict", "--full")
    assert git(history, "ls-tree", "-r", "--name-only", "main") == "file\nfolder/a b\nfolder/z"
    assert git(history, "log", "--format=%an %ae|%s|%b|%P", "main") == (
        f"Ada ada@example.org|two||{first}\nAda ada@example.org|Über|body\n|"
    )
    assert git(history, "rev-parse", "--is-bare-repository", "--show-object-format") == "true\nsha1"
    assert history.read_blob(second, "folder/a b") == bytes(range(256))
    read = history.commit(second)
    assert (read.tree, read.parents, read.message, read.author.name) == (tree, (first,), "two", "Ada")
    assert history.tree(tree)["folder"] == TreeEntry(inner, folder=True)
    assert history.commit(first).message == "Über\n\nbody"


def test_what_is_not_there(history: GitRepository) -> None:
    first = commit(history, "one")
    with pytest.raises(NotFoundError):
        history.read_blob(first, "other")
    with pytest.raises(NotFoundError):
        history.read_blob(first, "file/inside")
    with pytest.raises(IntegrityError, match="missing"):
        history.commit("0" * 40)
    with pytest.raises(IntegrityError, match="is a tree, not a commit"):
        history.commit(history.commit(first).tree)
    assert history.kind("0" * 40) is None


def test_compare_and_swap(history: GitRepository) -> None:
    one = commit(history, "one")
    two, other = commit(history, "two", one), commit(history, "other", one)
    move(history, MAIN, one, None)
    with pytest.raises(ConflictError):
        move(history, MAIN, two, None)  # it exists already
    move(history, MAIN, two, one)
    with pytest.raises(ConflictError):
        move(history, MAIN, other, one)  # a stale writer
    with pytest.raises(ConflictError):
        move(history, "refs/heads/new", one, two)  # there is none
    with pytest.raises(ConflictError):
        move(history, MAIN, None, one)
    assert history.refs() == {MAIN: two}
    move(history, MAIN, None, two)
    assert history.refs() == {}


def test_all_refs_move_or_none(history: GitRepository) -> None:
    one = commit(history, "one")
    two = commit(history, "two", one)
    move(history, MAIN, one, None)
    with pytest.raises(ConflictError):
        history.update_refs([RefChange("refs/heads/a", None, two), RefChange(MAIN, two, None)])
    with pytest.raises(ConflictError):
        history.update_refs([RefChange("refs/heads/a", None, two)], verify=[RefChange(MAIN, two, None)])
    assert history.refs() == {MAIN: one}
    history.update_refs([RefChange("refs/heads/a/b", None, two), RefChange(MAIN, one, two)])
    assert history.refs() == {"refs/heads/a/b": two, MAIN: two}


def test_ancestry(history: GitRepository) -> None:
    root = commit(history, "root")
    left, right = commit(history, "left", root), commit(history, "right", root)
    joined, alone = commit(history, "joined", left, right), commit(history, "alone")
    assert history.merge_base(left, right) == root
    assert history.merge_base(left, alone) is None
    walked = history.walk([joined])
    assert (walked[0], walked[-1], len(walked)) == (joined, root, 4)
    assert history.walk([joined], limit=2) == walked[:2]
    assert history.walk([]) == []
    assert history.with_prefix(root[:8]) == [root]
    assert history.with_prefix("--all") == []


def test_user_text_is_never_an_option(history: GitRepository, tmp_path: Path) -> None:
    target = tmp_path / "written"

    def ancestor(text: str) -> object:
        return history.merge_base(text, text)

    for call in (history.commit, history.tree, history.blob, ancestor):
        with pytest.raises(ValueError, match="not an object id"):
            call(f"--output={target}")
    for text in (f"--output={target}", "HEAD", "-1"):
        with pytest.raises(UnknownRevision):
            history.walk([text])
    assert not target.exists()


def test_the_callers_environment_does_not_redirect(
    history: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["git", "init", "-q", "--bare", str(elsewhere)], check=True)
    before = sorted(p for p in elsewhere.rglob("*"))
    hook = tmp_path / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    for name, value in {
        "GIT_DIR": str(elsewhere), "GIT_WORK_TREE": str(tmp_path), "GIT_COMMON_DIR": str(elsewhere),
        "GIT_OBJECT_DIRECTORY": str(elsewhere / "objects"), "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(elsewhere / "objects"), "GIT_NAMESPACE": "evil",
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": str(hook.parent),
        "GIT_CONFIG_PARAMETERS": f"'core.hooksPath={hook.parent}'", "GIT_GRAFT_FILE": str(tmp_path / "x"),
        "GIT_SHALLOW_FILE": str(tmp_path / "y"), "GIT_DEFAULT_HASH": "sha256",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (Path.home() / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hook.parent}\n[user]\n\tname=A\n\temail=a@b\n"
    )
    one = commit(history, "one")
    move(history, MAIN, one, None)
    assert history.refs() == {MAIN: one}
    assert (history.path / MAIN).is_file()
    assert sorted(p for p in elsewhere.rglob("*")) == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("config", "environment", "expected"),
    [
        ("[user]\n\tname = Grace\n\temail = g@h\n", {}, ("Grace", "g@h")),
        ("[user]\n\tname = Grace\n\temail = g@h\n", {"GIT_AUTHOR_NAME": "Other"}, ("Other", "g@h")),
        ("[user]\n\tname = Grace\n", {"EMAIL": "mail@x"}, ("Grace", "mail@x")),
        ("[user]\n\tname = Grace\n\tuseConfigOnly = true\n", {}, ("Grace", "pv@localhost")),
        ("[user]\n\tuseConfigOnly = true\n", {}, ("pv", "pv@localhost")),
        ("[user]\n\tname = .\n\temail = g@h\n", {}, ("pv", None)),
        ("", {"GIT_AUTHOR_NAME": "", "GIT_AUTHOR_EMAIL": "a@b"}, ("pv", None)),
    ],
)
def test_the_author_is_gits_or_a_stand_in(
    history: GitRepository,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    environment: dict[str, str],
    expected: tuple[str, str | None],
) -> None:
    (home / ".gitconfig").write_text(config)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    author = history.commit(commit(history, "one")).author
    assert author.name == expected[0]
    assert expected[1] in (None, author.email)
    assert history.commit(commit(history, "two")).author.name == expected[0]


def test_a_given_author_is_kept(history: GitRepository) -> None:
    zone = timezone(timedelta(hours=-3, minutes=-30))
    author = Author("Zoë", "z@x", datetime(2020, 2, 29, 12, 0, 7, tzinfo=zone))
    tree = history.write_tree({"f": TreeEntry(history.write_blob(b""))})
    read = history.commit(history.commit_tree(tree, [], "m", author=author))
    assert read.author == author
    assert read.author.time.utcoffset() == author.time.utcoffset()


@pytest.mark.parametrize("message", ["a\0b", "\ud800"])
def test_messages_that_git_cannot_hold(history: GitRepository, message: str) -> None:
    tree = history.write_tree({"f": TreeEntry(history.write_blob(b""))})
    with pytest.raises(UsageError):
        history.commit_tree(tree, [], message)


def test_a_rotten_object_is_an_error(history: GitRepository) -> None:
    blob = history.write_blob(b"precious" * 100)
    path = history.path / "objects" / blob[:2] / blob[2:]
    whole = path.read_bytes()
    other = history.write_blob(b"something else")
    swapped = (history.path / "objects" / other[:2] / other[2:]).read_bytes()
    path.chmod(0o644)
    for bad in (whole[:-1], whole[: len(whole) // 2], b"", swapped, bytes([whole[0] ^ 8]) + whole[1:]):
        path.write_bytes(bad)
        with GitRepository(history.path) as fresh, pytest.raises(IntegrityError):
            fresh.blob(blob)
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with GitRepository(history.path) as fresh:
            try:
                assert fresh.blob(blob) == b"precious" * 100  # a bit of the zlib header may not matter
            except IntegrityError:
                continue
            assert position < 2


def test_the_reader_survives_a_dead_git(history: GitRepository) -> None:
    blob = history.write_blob(b"data")
    assert history.blob(blob) == b"data"
    assert isinstance(history._reader, ObjectReader)
    process = history._reader._process
    assert process is not None
    process.kill()
    process.wait()
    assert history.blob(blob) == b"data"


@pytest.mark.parametrize(
    "text", ["", "0" * 39 + "\n", "g" * 40, "ref: refs/heads/other\n", "\0" * 41, "\xff" * 41]
)
def test_a_damaged_ref_is_not_a_missing_ref(history: GitRepository, text: str) -> None:
    move(history, MAIN, commit(history, "one"), None)
    (history.path / MAIN).write_text(text, encoding="latin-1")
    with pytest.raises(IntegrityError, match="damaged"):
        history.refs()


@pytest.mark.parametrize(
    "text", ["", "refs/heads/main\n", "ref: refs/tags/x\n", "ref: refs/heads/../x\n", "0" * 40]
)
def test_a_damaged_head(history: GitRepository, text: str) -> None:
    (history.path / "HEAD").write_text(text)
    with pytest.raises(IntegrityError):
        history.head_ref()
    (history.path / "HEAD").unlink()
    with pytest.raises(IntegrityError):
        history.head_ref()


def test_head_may_not_name_a_branch_that_is_gone(history: GitRepository) -> None:
    assert view(history) == View(MAIN, {})
    other = commit(history, "one")
    move(history, "refs/heads/other", other, None)
    with pytest.raises(IntegrityError, match="branch main, which does not exist"):
        view(history)
    history.set_head("refs/heads/other")
    assert view(history).tip == other
    with pytest.raises(ValueError, match="not a branch ref"):
        history.set_head("refs/tags/v1")


def test_packed_refs_are_refs(history: GitRepository) -> None:
    one = commit(history, "one")
    two = commit(history, "two", one)
    history.update_refs([RefChange(MAIN, None, one), RefChange("refs/tags/v1", None, one)])
    git(history, "pack-refs", "--all")
    assert not (history.path / MAIN).exists()
    move(history, MAIN, two, one)
    assert history.refs() == {MAIN: two, "refs/tags/v1": one}
    move(history, "refs/tags/v1", None, one)
    assert history.refs() == {MAIN: two}
    (history.path / "packed-refs").write_text("rubbish\n")
    with pytest.raises(IntegrityError):
        history.refs()


def test_no_hook_runs_even_if_the_configuration_would_let_it(history: GitRepository, tmp_path: Path) -> None:
    (history.path / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    hook = history.path / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    one = commit(history, "one")
    git(history, "update-ref", MAIN, one)
    assert (tmp_path / "ran").exists()  # a plain git runs it
    (tmp_path / "ran").unlink()
    move(history, MAIN, None, one)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config", "commondir", "config.worktree"])
def test_a_foreign_configuration_is_refused(history: GitRepository, name: str) -> None:
    history.check_config()
    with (history.path / name).open("a") as file:
        file.write("[core]\n\tfsmonitor = /bin/false\n")
    with pytest.raises(IntegrityError, match="can run programs"):
        history.check_config()


def test_trees_hold_plain_files_only(history: GitRepository) -> None:
    blob = history.write_blob(b"/etc/passwd")
    tree = git(history, "mktree", input=f"120000 blob {blob}\tlink\n")
    with pytest.raises(IntegrityError, match="plain files"):
        history.tree(tree)


def test_times_that_no_clock_has(history: GitRepository) -> None:
    tree = history.write_tree({"f": TreeEntry(history.write_blob(b""))})
    text = f"tree {tree}\nauthor A <a@b> 99999999999999999999 +0000\ncommitter A <a@b> 0 +0000\n\nm\n"
    made = git(history, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", input=text)
    assert history.commit(made).author.time == datetime(1970, 1, 1, tzinfo=UTC)
