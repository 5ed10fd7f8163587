"""The commit graph: known shapes drawn, and any history drawn so that it can be followed by eye."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pv.cli.graph import graph

History = list[tuple[str, Sequence[str]]]


def drawn(commits: History) -> list[str]:
    lines: list[str] = []
    for (commit, _), left in zip(commits, graph(commits), strict=True):
        lines += [*left.above, f"{left.own} {commit}"]
        if left.fork:
            lines.append(left.fork)
    return lines


def test_a_line() -> None:
    assert drawn([("c", ["b"]), ("b", ["a"]), ("a", [])]) == ["* c", "* b", "* a"]


def test_nothing() -> None:
    assert drawn([]) == []


def test_two_branches_join_where_they_parted() -> None:
    assert drawn([("c", ["a"]), ("b", ["a"]), ("a", [])]) == ["* c", "| * b", "|/", "* a"]


def test_a_merge_forks_below_and_joins_above_what_both_came_from() -> None:
    history: History = [("m", ["c", "b"]), ("c", ["a"]), ("b", ["a"]), ("a", [])]
    assert drawn(history) == ["* m", "|\\", "* | c", "| * b", "|/", "* a"]


def test_columns_to_the_right_move_over() -> None:
    history: History = [
        ("x", ["a"]),
        ("m", ["c", "b"]),
        ("y", ["a"]),
        ("c", ["a"]),
        ("b", ["a"]),
        ("a", []),
    ]
    assert drawn(history) == [
        "* x",
        "| * m",
        "| |\\",
        "| | | * y",
        "| * | | c",
        "| | * | b",
        "| | |/",
        "| |/|",
        "|/| |",
        "| |/",
        "|/|",
        "|/",
        "* a",
    ]
    assert follows(history)


def test_a_fork_pushes_its_neighbours() -> None:
    history: History = [
        ("p", ["n"]),
        ("q", ["k"]),
        ("n", ["m1", "m2"]),
        ("m1", ["k"]),
        ("m2", ["k"]),
        ("k", []),
    ]
    lines = drawn(history)
    assert lines[:4] == ["* p", "| * q", "* | n", "|\\ \\"]
    assert follows(history)


def follows(history: History) -> bool:
    """Follow every line down the drawing, character by character, and see which commits it connects."""
    rows: list[str] = []
    at: dict[int, str] = {}
    for (commit, _), left in zip(history, graph(history), strict=True):
        rows += left.above
        at[len(rows)] = commit
        rows += [left.own, left.fork or left.rest]
    grid = [row.ljust(99) for row in rows]
    found: dict[str, list[str]] = {commit: [] for commit, _ in history}
    for row, commit in at.items():
        assert grid[row].count("*") == 1
        star = grid[row].index("*")
        if any(parents for name, parents in history if name == commit):
            found[commit].append(end_of_line(grid, at, row + 1, star))
        if grid[row + 1][star + 1] == "\\":
            found[commit].append(end_of_line(grid, at, row + 2, star + 2))
    return found == {commit: list(parents) for commit, parents in history}


def end_of_line(grid: list[str], at: dict[int, str], row: int, column: int) -> str:
    """Where the line goes that enters a row from above at an (even) column.

    `|` and `*` stand in a column; a slanted mark stands beside it and leads to the next column. A line that
    comes slanting from the right goes on so if it can: that is how one crosses another.
    """
    slanting = False
    while True:
        if column and grid[row][column - 1] == "/" and (slanting or grid[row][column] == " "):
            column, slanting = column - 2, True
        elif grid[row][column] == "*":
            return at[row]
        elif grid[row][column] == "|":
            slanting = False
        else:
            assert grid[row][column : column + 2] == " \\", (grid, row, column)
            column, slanting = column + 2, False
        row += 1


@st.composite
def histories(draw: st.DrawFn) -> History:
    count = draw(st.integers(1, 12))
    commits: History = []
    for place in range(count):
        older = [str(k) for k in range(place + 1, count)]
        parents = draw(st.lists(st.sampled_from(older), min_size=1, max_size=2, unique=True)) if older else []
        commits.append((str(place), parents))
    return commits


@given(histories())
def test_every_line_leads_from_a_commit_to_its_parent(history: History) -> None:
    assert follows(history), "\n".join(drawn(history))
