"""An effect in words: what it is of, its interval, n and data, and what keeps it from being trusted.

Scores come as documents, as `--json`, records and provenance have them; anybody may have written one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pv.vecstore.data.overlap import NAMED, Overlap
from pv.vecstore.publish.beside import NotedDamage, NotedReplies, NotedTasks
from pv.vecstore.publish.figures import ends, interval, last_part, part

__all__ = [
    "FEW",
    "VERDICTS",
    "Effect",
    "Quote",
    "at_weight_1",
    "caveats",
    "caveats_of_all",
    "effect",
    "effect_name",
    "interval",
    "last_part",
    "part",
    "rows_of",
    "share",
]

Quote = Callable[[str], str]
"""How a stranger's text is put among ours."""

FEW = 20
"""With fewer rows, the bootstrap's 95 % interval may hold the mean in fewer than 9 cases of 10 (decision 16)."""

VERDICTS: Mapping[str, tuple[str, str]] = {
    "up": ("stronger than in the base", "the interval lies above 0: stronger than in the base"),
    "down": ("weaker than in the base", "the interval lies below 0: weaker than in the base"),
    "inconclusive": ("inconclusive", "the interval holds 0: inconclusive"),
}
"""A verdict in a table, and in a line of its own."""


def share(kept: Mapping[str, Any]) -> str:
    return f"{kept['mean']:.3f} [{kept['low']:.3f}, {kept['high']:.3f}]"


def effect_name(overlap: Overlap | None) -> str:
    """Only what was measured on none of the training rows is a held-out effect."""
    if overlap is None or not overlap.rows:
        return "held-out effect"
    return f"effect on rows of which {overlap.rows} {_are(overlap.rows)}"


def at_weight_1(line: str) -> str:
    """A line that tells of a vector's own effect: whatever weight it has where it is shown, this is not it."""
    return line.replace(" nats,", " nats at weight 1,", 1)


def caveats(n: int | None, overlap: Overlap | None, quote: Quote = str) -> tuple[str, ...]:
    """What to know of a figure before it is believed."""
    found = []
    if overlap is not None:
        of = "" if n is None else f" of {n}"
        lines = _lines(overlap)
        if overlap.rows:
            rows = f"{overlap.rows}{of} rows {_are(overlap.rows)} ({lines})"
            found.append(f"{rows}: this is not a held-out effect")
        if overlap.prompts:
            where = "" if overlap.rows else f" ({lines})"
            verb = "occurs" if overlap.prompts == 1 else "occur"
            found.append(
                f"{overlap.prompts}{of} prompts {verb} in training, with another chosen answer{where}"
            )
        if overlap.unknown:
            names = ", ".join(map(quote, overlap.unknown))
            found.append(f"not compared with the training rows of {names}, which are not in the registry")
    if n is not None and n < FEW:
        found.append(f"n={n} is too few for an interval to be trusted")
    return tuple(found)


def caveats_of_all(
    scores: Iterable[tuple[str, str, int, Overlap | None]], quote: Quote = str
) -> tuple[str, ...]:
    """The caveats of (what was measured, name of the rows, n, overlap), each once, and of what it is, unless of all."""
    names: dict[str, list[str]] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for name, data, n, known in scores:
        names.setdefault(data, []).append(name)
        for caveat in caveats(n, known, quote):
            found.setdefault((data, caveat), []).append(name)
    told = []
    for (data, caveat), of in found.items():
        whose = "" if of == names[data] else ", ".join(["", *map(quote, of)])
        told.append(f"{quote(last_part(data))}{whose}: {caveat}")
    return tuple(told)


@dataclass(frozen=True, slots=True)
class Effect:
    """A noted effect: nats against the base, its 95 % interval, on how many rows and of which file.

    `overlap` is what was known of training rows among them; `vectors` were measured together, mostly one. `damage`,
    `replies` and `tasks` are what was measured beside it.
    """

    mean: float
    low: float
    high: float
    n: int
    data: str
    overlap: Overlap | None = None
    vectors: int = 1
    damage: NotedDamage | None = None
    replies: NotedReplies | None = None
    tasks: NotedTasks | None = None

    @staticmethod
    def read(score: object) -> Effect | None:
        """None for what is noted in another form: anybody may have written it."""
        if not isinstance(score, Mapping):
            return None
        found = ends(score, "effect")
        n, data, vectors = rows_of(score), score.get("data"), score.get("vectors")
        if found is None or n is None or not isinstance(data, str):
            return None
        several = vectors if isinstance(vectors, int) and vectors > 1 else 1
        beside = NotedDamage.read(score), NotedReplies.read(score), NotedTasks.read(score)
        return Effect(*found, n, data, Overlap.read(score.get("overlap")), several, *beside)

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "data": self.data,
            "overlap": self.overlap.to_json() if self.overlap else None,
            "vectors": self.vectors,
            "damage": self.damage.to_json() if self.damage else None,
            "replies": self.replies.to_json() if self.replies else None,
            "tasks": self.tasks.to_json() if self.tasks else None,
        }

    def figures(self, quote: Quote = str) -> str:
        """`+1.23 [...] nats, 95 %, n=30 (rows.jsonl)`"""
        words = f"{interval(self.mean, self.low, self.high)} nats, 95 %, n={self.n}"
        return f"{words} ({quote(last_part(self.data))})"

    def beside(self, quote: Quote = str) -> tuple[str, ...]:
        """What it costs elsewhere, and what replies show of it: a line each."""
        lines = [self.damage.figures(quote)] if self.damage else []
        lines += [self.tasks.words(quote)] if self.tasks else []
        return (*lines, self.replies.words()) if self.replies else tuple(lines)

    def caveats(self, quote: Quote = str) -> tuple[str, ...]:
        return caveats(self.n, self.overlap, quote)

    def brief(self, quote: Quote = str) -> str:
        """What to know of it, where there is one line for all: ` (6 training rows; n too small)`. May be empty."""
        found = [f"of {self.vectors} vectors together"] if self.vectors > 1 else []
        known = self.overlap or Overlap()
        for count, one, more in (
            (known.rows, "training row", "training rows"),
            (known.prompts, "prompt of training", "prompts of training"),
        ):
            if count:
                found.append(f"{count} {one if count == 1 else more}")
        if known.unknown:
            found.append(f"training rows of {', '.join(map(quote, known.unknown))} not here")
        if self.n < FEW:
            found.append("n too small")
        return f" ({'; '.join(found)})" if found else ""


def effect(score: Mapping[str, Any], quote: Quote = str) -> tuple[str, tuple[str, ...]] | None:
    """`held-out effect +1.23 [...] nats, 95 %, n=30 (rows.jsonl)`; then what was measured beside, and caveats."""
    found = Effect.read(score)
    if found is None:
        return None
    lines = (*found.beside(quote), *found.caveats(quote))
    return f"{effect_name(found.overlap)} {found.figures(quote)}", lines


def rows_of(score: Mapping[str, Any]) -> int | None:
    """n, which a score has beside its intervals, and a measured effect inside."""
    inside = score.get("effect")
    for n in (score.get("n"), inside.get("n") if isinstance(inside, Mapping) else None):
        if isinstance(n, int) and not isinstance(n, bool):
            return n
    return None


def _lines(overlap: Overlap) -> str:
    shown = overlap.lines[:NAMED]
    counted = overlap.rows or overlap.prompts
    more = f" and {counted - len(shown)} more" if counted > len(shown) else ""
    return f"line{'' if counted == 1 else 's'} {', '.join(map(str, shown))}{more}"


def _are(count: int) -> str:
    return "is a training row" if count == 1 else "are training rows"
