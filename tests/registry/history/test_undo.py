"""Going back to any operation, as one operation: every state there was can be had again, and undone again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.registries import add, fsck, git, new_registry, scale

from pv.registry.errors import ConflictError, NotFoundError, PvError, UsageError
from pv.registry.git import refs
from pv.registry.history import operations
from pv.registry.registry import Registry

Visible = tuple[str, dict[str, str]]


def visible(registry: Registry) -> Visible:
    now = operations.view(registry.history)
    return now.head, {ref: v for ref, v in now.refs.items() if ref != refs.OPS}


def some_history(registry: Registry) -> dict[int, Visible]:
    """{operation: how things were after it}"""
    states = {1: visible(registry)}
    for step in (
        lambda: add(registry, "a", 1),
        lambda: registry.create_branch("side", switch=True),
        lambda: registry.change("scale", "m", scale("a", 2.0)),
        lambda: registry.tag("v1"),
        lambda: registry.switch("main"),
        lambda: registry.delete_tag("v1"),
        lambda: registry.rename_branch("side", "other"),
    ):
        step()
        states[registry.operations(1)[0].seq] = visible(registry)
    return states


@pytest.mark.parametrize("to", range(1, 8))
def test_back_to_any_operation_and_forward_again(registry: Registry, to: int) -> None:
    states = some_history(registry)
    newest = max(states)
    went = registry.undo(to=to)
    assert visible(registry) == states[to]
    assert [o.seq for o in went.taken_back] == list(range(newest, to, -1))
    assert went.brought_back == ()
    assert (went.head[0], went.head[1]) == (states[newest][0], states[to][0])
    assert len(registry.operations()) == newest + 1, "one operation"
    marks = {o.seq: o.undone_by for o in registry.operations()}
    assert marks == {
        **dict.fromkeys(range(1, to + 1)),
        **dict.fromkeys(range(to + 1, newest + 1), newest + 1),
    } | {newest + 1: None}
    back = registry.redo()
    assert visible(registry) == states[newest]
    assert back.brought_back == went.taken_back
    assert {o.undone_by for o in registry.operations()[2:]} == {None}
    registry.undo()
    assert visible(registry) == states[newest - 1], "an undo after a redo goes one back"
    fsck(registry)


def test_undo_goes_on_from_where_an_undo_to_went(registry: Registry) -> None:
    states = some_history(registry)
    registry.undo(to=4)
    assert [o.seq for o in registry.undo().taken_back] == [4]
    assert visible(registry) == states[3]
    registry.redo()
    assert visible(registry) == states[4]
    registry.redo()
    assert visible(registry) == states[8]


def test_several_at_once(registry: Registry) -> None:
    states = some_history(registry)
    assert [o.seq for o in registry.undo(count=2).taken_back] == [8, 7]
    assert visible(registry) == states[6]
    assert [o.seq for o in registry.undo(count=2).taken_back] == [6, 5]
    assert visible(registry) == states[4]
    with pytest.raises(UsageError, match="there are not 9 operations"):
        registry.undo(count=9)
    assert visible(registry) == states[4]


def test_what_cancels_out_is_taken_back_too(registry: Registry) -> None:
    add(registry, "a", 1)
    registry.create_branch("side", switch=True)
    registry.switch("main")
    registry.switch("side")
    before = visible(registry)
    went = registry.undo(count=2)  # to and fro
    assert (visible(registry), went.refs) == (before, ())
    assert registry.undo().command == "branch side", "not the switch once more"


def test_an_operation_that_was_undone_can_be_gone_back_to(registry: Registry) -> None:
    add(registry, "a", 1)
    first = visible(registry)
    registry.undo()
    registry.tag("v1")
    went = registry.undo(to=2)
    assert visible(registry) == first
    assert [o.seq for o in went.taken_back] == [4]
    assert [o.seq for o in went.brought_back] == [2]
    registry.redo()
    assert set(visible(registry)[1]) == {"refs/heads/main", "refs/tags/v1"}


def test_going_to_where_one_is_changes_nothing(registry: Registry) -> None:
    add(registry, "a", 1)
    registry.tag("v1")
    registry.undo()
    count = len(registry.operations())
    for to in (2, count):
        went = registry.undo(to=to)
        assert (went.taken_back, went.brought_back, went.refs, went.command) == ((), (), (), "")
    assert len(registry.operations()) == count


def test_a_dry_run_changes_nothing(registry: Registry) -> None:
    states = some_history(registry)
    before = registry.history.refs()
    planned = registry.undo(to=3, dry_run=True)
    assert registry.history.refs() == before
    assert visible(registry) == states[8]
    assert registry.undo(to=3) == planned
    again = registry.redo(dry_run=True)
    assert visible(registry) == states[3]
    assert registry.redo() == again


def test_numbers_that_are_not_there(registry: Registry) -> None:
    add(registry, "a", 1)
    before = registry.history.refs()
    for to in (3, 99, -1):
        with pytest.raises(NotFoundError, match=f"there is no operation {to}") as caught:
            registry.undo(to=to)
        assert caught.value.hint == "`pv op log` lists those from 1 to 2"
    with pytest.raises(UsageError, match="would be left without a commit"):
        registry.undo(to=0)
    assert registry.history.refs() == before


def test_other_hands_are_noticed_only_where_they_were(registry: Registry) -> None:
    first = registry.resolve("HEAD")
    registry.tag("moved")
    second = add(registry, "a", 1)
    registry.tag("late")
    git(registry, "update-ref", "refs/tags/moved", second)
    before = registry.history.refs()
    with pytest.raises(ConflictError, match="refs/tags/moved moved since, and not by pv"):
        registry.undo(to=1)
    assert registry.history.refs() == before
    registry.undo(to=2)
    assert visible(registry)[1] == {"refs/heads/main": first, "refs/tags/moved": second}


def test_who_did_it_is_known(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "grace@example.org")
    registry.tag("v1")
    newest, first = registry.operations()
    assert (newest.author, newest.email) == ("Grace", "grace@example.org")
    assert first.author == "Ada"
    assert registry.undo().taken_back[0].author == "Grace"


actions = st.lists(
    st.tuples(
        st.sampled_from(["scale", "branch", "switch", "delete", "tag", "rename", "undo", "redo", "to"]),
        st.sampled_from(["main", "x", "y"]),
        st.integers(1, 9),
    ),
    max_size=9,
)


@given(actions)
@settings(max_examples=8, deadline=None)
def test_after_anything_every_state_can_be_had_again(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    with new_registry(tmp_path_factory.mktemp("any")) as registry:
        add(registry, "a", 1)
        states = {2: visible(registry)}
        for what, name, number in steps:
            try:
                match what:
                    case "scale":
                        registry.change("scale", "m", scale("a", float(number)))
                    case "branch":
                        registry.create_branch(name)
                    case "switch":
                        registry.switch(name)
                    case "delete":
                        registry.delete_branch(name)
                    case "tag":
                        registry.tag(name)
                    case "rename":
                        registry.rename_branch(name, f"{name}{number}")
                    case "undo":
                        registry.undo(count=1 + number % 2)
                    case "redo":
                        registry.redo()
                    case "to":
                        registry.undo(to=number)
            except PvError:
                continue
            states[registry.operations(1)[0].seq] = visible(registry)
        for number, state in states.items():
            registry.undo(to=number)
            assert visible(registry) == state
