from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.registries import add, fsck, git, new_registry, recover, scale

from pv.registry import canonical
from pv.registry.errors import ConflictError, FormatError, PvError, UsageError
from pv.registry.git import refs
from pv.registry.git.objects import RefChange
from pv.registry.history import operations
from pv.registry.history.operations import Operation
from pv.registry.history.undo import standing
from pv.registry.registry import Registry

Visible = tuple[str, dict[str, str]]


def visible(registry: Registry) -> Visible:
    now = operations.view(registry.history)
    return now.head, {ref: v for ref, v in now.refs.items() if ref != refs.OPS}


def test_what_is_written_down(registry: Registry) -> None:
    first = registry.resolve("HEAD")
    second = add(registry, "a", 1)
    registry.create_branch("side", switch=True)
    log = registry.operations()
    assert [(o.seq, o.command) for o in log] == [(3, "branch side"), (2, "commit a"), (1, "init")]
    assert log[0].refs == (RefChange("refs/heads/side", None, second),)
    assert log[0].head == ("refs/heads/main", "refs/heads/side")
    assert log[1].refs == (RefChange("refs/heads/main", first, second),)
    assert registry.operations(limit=1) == log[:1]
    stored = git(registry, "show", "refs/pv/ops~1:operation.json").encode()
    assert canonical.dumps(json.loads(stored)) == stored
    assert json.loads(stored)["refs"] == [["refs/heads/main", first, second]]
    assert git(registry, "rev-list", "--parents", "-1", "refs/pv/ops~1").split()[1:] == [
        log[2].id,
        first,
        second,
    ]


def test_undo_walks_back_and_redo_forward(registry: Registry) -> None:
    states = [visible(registry)]
    for step in (
        lambda: add(registry, "a", 1),
        lambda: registry.create_branch("side", switch=True),
        lambda: add(registry, "b", 2),
        lambda: registry.tag("v1"),
        lambda: registry.switch("main"),
        lambda: registry.merge("side"),
        lambda: registry.delete_branch("side"),
        lambda: registry.delete_tag("v1"),
    ):
        step()
        states.append(visible(registry))
    for state in reversed(states[:-1]):
        registry.undo()
        assert visible(registry) == state
    with pytest.raises(UsageError, match="without a commit"):
        registry.undo()
    for state in states[1:]:
        registry.redo()
        assert visible(registry) == state
    with pytest.raises(UsageError, match="nothing to redo"):
        registry.redo()
    fsck(registry)


def test_undo_redo_undo(registry: Registry) -> None:
    before = visible(registry)
    add(registry, "a", 1)
    after = visible(registry)
    assert registry.undo().command == "commit a"
    assert visible(registry) == before
    assert registry.redo().command == "commit a"
    assert visible(registry) == after
    assert registry.undo().command == "commit a"
    assert visible(registry) == before
    assert [o.undoes for o in registry.operations()] == [2, 3, 2, None, None]


def test_after_an_undo_life_goes_on(registry: Registry) -> None:
    add(registry, "a", 1)
    middle = visible(registry)
    add(registry, "b", 2)
    registry.undo()
    add(registry, "c", 3)
    with pytest.raises(UsageError, match="nothing to redo"):
        registry.redo()
    assert registry.undo().command == "commit c"
    assert visible(registry) == middle
    assert registry.undo().command == "commit a"  # "commit b" is undone already


def test_undo_brings_back_what_no_ref_holds(registry: Registry) -> None:
    registry.create_branch("side", switch=True)
    lost = add(registry, "a", 1)
    registry.switch("main")
    registry.delete_branch("side")
    git(registry, "prune", "--expire=now")
    git(registry, "gc", "-q", "--prune=now")
    registry.undo()
    assert registry.branches()["side"] == lost
    assert registry.vector("side", registry.persona("side").vectors[0])
    fsck(registry)


def test_undo_is_refused_if_a_ref_was_moved_by_other_hands(registry: Registry) -> None:
    first = registry.resolve("HEAD")
    add(registry, "a", 1)
    second = add(registry, "b", 2)
    git(
        registry,
        "update-ref",
        "refs/heads/main",
        git(registry, "commit-tree", "-m", "x", f"{second}^{{tree}}"),
    )
    state = registry.history.refs()
    with pytest.raises(ConflictError, match=r"refs/heads/main moved since") as caught:
        registry.undo()
    assert caught.value.hint
    assert registry.history.refs() == state
    assert first != second


def crash_before_refs(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the chain of operations move, and nothing after it."""
    monkeypatch.setattr(operations, "_apply", lambda *_: False)


@pytest.mark.parametrize("what", ["commit", "branch", "delete", "rename", "undo branch"])
def test_an_unfinished_operation_is_finished(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    add(registry, "a", 1)
    registry.create_branch("side", switch=what == "undo branch")
    before, raw_refs = visible(registry), registry.history.refs()
    action: Callable[[], object] = {
        "commit": lambda: registry.change("scale", "m", scale("a", 2.0)),
        "branch": lambda: registry.create_branch("new", switch=True),
        "delete": lambda: registry.delete_branch("side"),
        "rename": lambda: registry.rename_branch("main", "trunk"),
        "undo branch": lambda: registry.undo(),
    }[what]
    with monkeypatch.context() as patch:
        crash_before_refs(registry, patch)
        action()
    planned = registry.operations(limit=1)[0]
    assert all(raw_refs.get(c.ref) == c.old for c in planned.refs)
    assert registry.history.refs() == {**raw_refs, refs.OPS: planned.id}
    after = visible(registry)  # for a reader, what is planned is done
    assert after != before
    assert after[0] == planned.head[1]
    assert all(after[1].get(c.ref) == c.new for c in planned.refs)
    assert recover(registry) == planned
    assert registry.history.refs() == {**after[1], refs.OPS: planned.id}
    assert registry.history.head_ref() == after[0]
    assert visible(registry) == after
    assert recover(registry) is None
    fsck(registry)


def test_a_write_finishes_what_came_before_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    add(registry, "a", 1)
    with monkeypatch.context() as patch:
        crash_before_refs(registry, patch)
        registry.change("scale", "m", scale("a", 2.0))
    add(registry, "b", 2)
    assert registry.persona().behaviours["a"].weight == 2.0
    assert [o.command for o in registry.operations()] == ["commit b", "scale", "commit a", "init"]
    fsck(registry)


def test_lock_files_of_a_killed_git_do_not_block(registry: Registry) -> None:
    for name in ("HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "refs/pv/ops.lock"):
        (registry.history.path / name).touch()
    add(registry, "a", 1)
    assert not list(registry.history.path.rglob("*.lock"))


def test_a_stale_plan_is_refused_before_anything_is_written(registry: Registry) -> None:
    first = registry.resolve("HEAD")
    second = add(registry, "a", 1)
    state = registry.history.refs()
    with pytest.raises(ConflictError):
        operations.publish(registry.history, "c", [RefChange("refs/heads/main", first, second)])
    assert registry.history.refs() == state


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"seq": "1"}, {"time": "yesterday"}, {"head": ["x"]}, {"refs": {}}, {"undoes": "1"},
        {"more": 1}, {"head": ["refs/heads/main", "refs/tags/a"]}, {"refs": [["refs/pv/ops", None, "0" * 40]]},
        {"refs": [["refs/heads/../../config", None, "0" * 40]]}, {"refs": [["refs/heads/a\0b", None, "0" * 40]]},
        {"refs": [["refs/heads/a", None]]}, {"refs": [["HEAD", None, "0" * 40]]},
        {"refs": [["refs/heads/a", "x", None]]}, {"refs": [["refs/heads/a", None, None]]},
    ],
)  # fmt: skip
def test_foreign_operations_are_refused(registry: Registry, change: dict[str, object]) -> None:
    document = {**registry.operations()[0].to_json(), **change}
    with pytest.raises(FormatError):
        Operation.from_bytes(canonical.dumps(document), "0" * 40)


actions = st.lists(
    st.tuples(
        st.sampled_from(["scale", "branch", "switch", "delete", "tag", "undo", "redo"]),
        st.sampled_from(["main", "x", "y"]),
        st.sampled_from([0.5, 1.5, 2.5]),
    ),
    max_size=8,
)


@given(actions)
@settings(max_examples=8, deadline=None)
def test_any_history_can_be_undone_to_its_start(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, float]]
) -> None:
    with new_registry(tmp_path_factory.mktemp("any")) as registry:
        add(registry, "a", 1)
        start = visible(registry)
        for what, name, weight in steps:
            before = registry.history.refs()
            try:
                match what:
                    case "scale":
                        registry.change("scale", "m", scale("a", weight))
                    case "branch":
                        registry.create_branch(name)
                    case "switch":
                        registry.switch(name)
                    case "delete":
                        registry.delete_branch(name)
                    case "tag":
                        registry.tag(name)
                    case "undo":
                        registry.undo()
                    case "redo":
                        registry.redo()
            except PvError:
                assert registry.history.refs() == before
        seen = visible(registry)
        while next(standing(registry.history)).seq > 2:
            last = seen
            registry.undo()
            seen = visible(registry)
            assert seen != last
        if next(standing(registry.history)).seq == 2:
            assert seen == start
        else:
            assert seen[1] == {"refs/heads/main": registry.resolve("main")}
