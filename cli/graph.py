"""The commit graph in text, newest first: a star a commit, a column a line of development."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

__all__ = ["graph"]


def graph(commits: Iterable[tuple[str, Sequence[str]]]) -> Iterator[tuple[list[str], str, str]]:
    """For each (commit, parents), children before parents: (lines above, its own prefix, prefix of more lines).

    Joins are drawn as `|/`, the second parent of a merge opens a column with `|\\`.
    """
    lanes: list[str] = []  # the commit that each column waits for
    for commit, parents in commits:
        above: list[str] = []
        if commit not in lanes:
            lanes.append(commit)
        column = lanes.index(commit)
        for other in range(len(lanes) - 1, column, -1):
            if lanes[other] == commit:
                above.append("| " * (other - 1) + "|/" + " |" * (len(lanes) - other - 1))
                del lanes[other]
        own = " ".join("*" if i == column else "|" for i in range(len(lanes)))
        if parents:
            lanes[column] = parents[0]
        else:
            del lanes[column]
        for place, parent in enumerate(parents[1:], column + 1):
            lanes.insert(place, parent)
        if len(parents) > 1:
            rest = "| " * column + "|\\" + " |" * (len(lanes) - column - 2)
        else:
            rest = " ".join("|" for _ in lanes)
        yield above, own, rest
