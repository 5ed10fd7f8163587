from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries import add, git, new_registry

from pv.registry.errors import UnknownRevision, UsageError
from pv.registry.git import refs
from pv.registry.registry import Registry


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, dict[str, str]]]:
    """root - a - b - merge - c (main), and b's other side: a - x - y, merged as second parent."""
    with new_registry(tmp_path_factory.mktemp("graph")) as registry:
        ids = {"root": registry.resolve("HEAD"), "a": add(registry, "a", 1)}
        registry.create_branch("side/way", switch=True)
        ids |= {"x": add(registry, "x", 2), "y": add(registry, "y", 3)}
        registry.tag("v1.0")
        registry.switch("main")
        ids["b"] = add(registry, "b", 4)
        ids["merge"] = str(registry.merge("side/way").commit)
        ids["c"] = add(registry, "c", 5)
        git(registry, "update-ref", "refs/remotes/origin/main", ids["b"])
        yield registry, ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEAD", "c"), ("@", "c"), ("main", "c"), ("refs/heads/main", "c"), ("side/way", "y"), ("v1.0", "y"),
        ("refs/tags/v1.0", "y"), ("origin/main", "b"), ("HEAD~", "merge"), ("@~1", "merge"), ("HEAD^", "merge"),
        ("HEAD~0", "c"), ("HEAD^0", "c"), ("HEAD~2", "b"), ("HEAD~3", "a"), ("HEAD~4", "root"), ("HEAD^^", "b"),
        ("HEAD^^2", "y"), ("HEAD~1^2~1", "x"), ("HEAD~1^2^^", "a"), ("main~1^1", "b"), ("v1.0~3", "root"),
    ],
)  # fmt: skip
def test_what_it_means(graph: tuple[Registry, dict[str, str]], text: str, expected: str) -> None:
    registry, ids = graph
    assert registry.resolve(text) == ids[expected]


def test_ids_and_prefixes(graph: tuple[Registry, dict[str, str]]) -> None:
    registry, ids = graph
    for commit in ids.values():
        assert registry.resolve(commit) == commit
        assert registry.resolve(commit[:12]) == commit
        assert registry.resolve(commit[:12].upper()) == commit
    assert registry.resolve(ids["c"][:16] + "~1") == ids["merge"]
    assert registry.resolve(None) == ids["c"]


@pytest.mark.parametrize(
    "text",
    [
        "", "~1", "^", "nope", "HEAD~5", "HEAD^2", "HEAD~1^3", "HEAD~99999999999", "HEAD~x", "HEAD@{1}", "HEAD:x",
        "main..side/way", "--all", "-n1", "--output=/tmp/x", "main\n", " main", "abc", "0" * 40, "f" * 12,
        "refs/pv/ops", "pv/ops", "ops", "../heads/main", "refs/heads/../heads/main", "/", "\0", "^main", "side",
    ],
)  # fmt: skip
def test_what_means_nothing(graph: tuple[Registry, dict[str, str]], text: str) -> None:
    with pytest.raises(UnknownRevision) as caught:
        graph[0].resolve(text)
    assert caught.value.exit_code == 5


def test_close_names_are_offered(graph: tuple[Registry, dict[str, str]]) -> None:
    with pytest.raises(UnknownRevision) as caught:
        graph[0].resolve("mian")
    assert caught.value.hint == "did you mean main?"


def test_operations_are_not_revisions(graph: tuple[Registry, dict[str, str]]) -> None:
    operation = graph[0].operations(limit=1)[0]
    for text in (operation.id, operation.id[:12]):
        with pytest.raises(UnknownRevision):
            graph[0].resolve(text)


def test_an_ambiguous_prefix_lists_them(registry: Registry) -> None:
    tree = registry.history.commit(registry.resolve("HEAD")).tree
    seen: dict[str, str] = {}
    for number in range(2000):  # the 65,536 prefixes of four digits collide soon
        commit = registry.history.commit_tree(tree, [], str(number))
        if commit[:4] in seen:
            break
        seen[commit[:4]] = commit
    with pytest.raises(UnknownRevision, match="is ambiguous: 2") as caught:
        registry.resolve(commit[:4])
    assert commit[:8] in str(caught.value.hint)


def test_a_branch_wins_over_a_prefix(registry: Registry) -> None:
    first = registry.resolve("HEAD")
    second = add(registry, "a", 1)
    registry.create_branch(second[:6], first)
    assert registry.resolve(second[:6]) == first
    assert registry.resolve(second[:7]) == second


@pytest.mark.parametrize("name", ["main", "a/b", "v1.0", "x_y-z", "né", "a@b", "deadbeef", "0" * 39, "heads"])
def test_names_that_may_be(name: str) -> None:
    assert refs.check_ref_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "-x", "--all", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a@{1}", "@", "HEAD",
        "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "a\n", "a\x7f", "a\0", "x" * 201, "pv/ops",
        "pv", "refs/heads/a", "0" * 40, "F" * 40, "\ud800",
    ],
)  # fmt: skip
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a branch"):
        refs.check_ref_name(name)


@given(st.text(max_size=12) | st.text("a.-/@{~^:lock", max_size=12))
def test_we_allow_no_name_that_git_refuses(name: str) -> None:
    import subprocess

    try:
        refs.check_ref_name(name)
    except UsageError:
        return
    subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=True)
