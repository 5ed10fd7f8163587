"""The commit graph in text, newest first: a star a commit, a column a line of development."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Drawn", "graph"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What stands left of one commit: lines above it, its own, the fork below a merge, and any further ones."""

    above: tuple[str, ...]
    own: str
    fork: str | None
    rest: str


def graph(commits: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Drawn]:
    """Draw (commit, parents), children before parents. Column n is at character 2n.

    Between the columns, `\\` opens one for a further parent of a merge and `/` closes one at the commit where
    it parted; columns to the right of it move over. A line in between is crossed.
    """
    lanes: list[str] = []  # the commit that each column waits for
    for commit, parents in commits:
        if commit not in lanes:
            lanes.append(commit)
        column = lanes.index(commit)
        above: list[str] = []
        for other in range(len(lanes) - 1, column, -1):
            if lanes[other] == commit:
                above.append("| " * (other - 1) + "|/" + " /" * (len(lanes) - other - 1))
                del lanes[other]
                above += [_crossing(place, len(lanes)) for place in range(other - 1, column, -1)]
        own = " ".join("*" if i == column else "|" for i in range(len(lanes)))
        lanes[column : column + 1] = parents
        fork = None
        if len(parents) > 1:  # every column after the first parent's is new, or has moved to the right
            fork = "| " * column + "|" + "\\ " * (len(lanes) - column - 1)
        yield Drawn(tuple(above), own, fork and fork.rstrip(), " ".join("|" for _ in lanes).ljust(len(own)))


def _crossing(place: int, width: int) -> str:
    """A line on its way from column `place` to the one before it, over `width` columns."""
    cells = list(" ".join("|" * width))
    cells[2 * place - 1] = "/"
    return "".join(cells)
