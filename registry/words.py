"""A persona's parts in words: the one place, for the terminal, notebooks and the model card alike.

Pure text from values. Names of module patterns may hold anything: who shows the text escapes it for where it goes, or
gives `quote`, which is applied to ids and patterns (the card's `code`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pv.registry.changes import Change, Value
from pv.registry.combine import Combine, json_number
from pv.registry.conflict import Origin
from pv.registry.ids import is_id
from pv.registry.module_words import MOST as MOST_FACTORS
from pv.registry.module_words import module_words
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.registry.steering import SteeringTerm
from pv.registry.steering_words import (
    site_words,
    state_words,
    steering_differences,
    steering_line,
    steering_words,
)

__all__ = [
    "ago",
    "behaviour_line",
    "change_line",
    "combine_words",
    "first_of",
    "listed",
    "module_words",
    "number",
    "origin_words",
    "output_words",
    "persona_line",
    "ref_name",
    "revision_words",
    "site_words",
    "size",
    "state_words",
    "steering_line",
    "steering_words",
    "switch_words",
    "term_list",
    "terms_words",
    "value_words",
]

Quote = Callable[[str], str]
MOST_TERMS = 2  # in a line; `pv show NAME` has all


def number(value: float) -> str:
    """A number as a person types it, with every digit: what differs never looks alike."""
    return str(json_number(value))


def listed(names: Sequence[str], most: int) -> str:
    """`a, b, c`; of more than `most` the first, and how many there are: `a, b and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size(nbytes: int) -> str:
    """`391 MB`"""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes} B"


def behaviour_line(name: str, behaviour: Behaviour, *, most: int | None = MOST_TERMS) -> str:
    """`listening 1`; with several terms `listening 1 × (1·8d21…, -1·33ab…)`; with modules `(*.mlp.* × 0.5)` too.

    Of more terms than `most`, the first ones and how many there are.
    """
    line = f"{name} {number(behaviour.weight)}"
    if len(behaviour.terms) != 1 or behaviour.terms[0].coefficient != 1:
        parts = [f"{number(t.coefficient)}·{t.vector[:8]}" for t in behaviour.terms]
        line += f" × ({', '.join(first_of(parts, most))})"
    factors = None if most is None else MOST_FACTORS
    return line + (f" ({module_words(behaviour.modules, most=factors)})" if behaviour.modules else "")


def persona_line(persona: Persona) -> str:
    """`listening 1  pirate 0.5`; with steering terms that are applied, `listening 1  steering formal 2`"""
    parts = [behaviour_line(*item) for item in sorted(persona.behaviours.items())]
    parts += [f"steering {name} {number(term.coefficient)}" for name, term in persona.steering.active.items()]
    return "  ".join(parts) or "(base)"


def revision_words(revision: str, commit: str) -> str:
    """`HEAD~3 (6e53664a2459)`; of a commit that was asked for by its id, the id alone."""
    short = commit[:12]
    return short if commit.startswith(revision) else f"{revision} ({short})"


def ref_name(ref: str) -> str:
    """`main`, `tag: v1`, `pv: ops`"""
    name = ref.removeprefix("refs/heads/").removeprefix("refs/remotes/")
    return name.replace("refs/tags/", "tag: ").replace("refs/pv/", "pv: ")


def first_of(parts: Sequence[str], most: int | None = MOST_TERMS) -> list[str]:
    """All of a behaviour's terms, or of many the first, and `… 7 more`."""
    if most is None or len(parts) <= most:
        return list(parts)
    return [*parts[:most], f"… {len(parts) - most} more"]


def term_list(terms: Sequence[Term], quote: Quote = str, *, most: int | None = None) -> str:
    """`0152ee659683`; of several, or one that is scaled, `1 × 0152ee659683, -1 × 33ab...`."""
    if len(terms) == 1 and terms[0].coefficient == 1:
        return quote(terms[0].vector[:12])
    return ", ".join(
        first_of([f"{number(term.coefficient)} × {quote(term.vector[:12])}" for term in terms], most)
    )


def terms_words(terms: Sequence[Term]) -> str:
    """`vector 0152ee659683`, `vectors 1 × 0152ee659683, -1 × 33ab...`"""
    return f"vector{'' if len(terms) == 1 else 's'} {term_list(terms, most=MOST_TERMS)}"


def switch_words(combine: Combine, quote: Quote = str) -> str:
    """`density 0.2, elect unweighted, ...`; empty if the method has no switches."""
    return ", ".join(f"{quote(name)} {quote(_plain(value))}" for name, value in combine.switches.items())


def combine_words(combine: Combine) -> str:
    """`add`, `ties (density 0.2, ...)`"""
    switches = switch_words(combine)
    return f"{combine.method} ({switches})" if switches else combine.method


def output_words(output: Output) -> str:
    """`in the base's dtype, rounded stochastically (seed 0)`: how builds are written."""
    dtype = "the base's dtype" if output.dtype == "base" else output.dtype
    if output.dtype == "fp32":
        return f"in {dtype}, which needs no rounding"
    how = f"stochastically (seed {output.seed})" if output.rounding == "stochastic" else "to nearest"
    return f"in {dtype}, rounded {how}"


def value_words(value: Value) -> str:
    """One side of a change or of a conflict: a behaviour, a steering term, a combine rule or a plain value."""
    match value:
        case None:
            return "(absent)"
        case Behaviour():
            words = f"weight {number(value.weight)}, {terms_words(value.terms)}"
            return words + (f", modules {module_words(value.modules)}" if value.modules else "")
        case Combine():
            return combine_words(value)
        case SteeringTerm():
            return steering_words(value)
    return value[:12] if is_id(value) and isinstance(value, str) else str(value)


def change_line(change: Change) -> str:
    """`+ b 1`, `- b 1`, `~ b  weight 1 -> 0.5`, `~ combine  add -> ties (density 0.2, ...)`, `+ steering s  ...`."""
    name, before, after = change.name, change.before, change.after
    match before, after:
        case Behaviour(), None:
            return f"- {behaviour_line(name, before)}"
        case None, Behaviour():
            return f"+ {behaviour_line(name, after)}"
        case Behaviour(), Behaviour():
            return f"~ {name}  {', '.join(_differences(before, after))}"
        case SteeringTerm(), None:
            return f"- {steering_line(name, before)}"
        case None, SteeringTerm():
            return f"+ {steering_line(name, after)}"
        case SteeringTerm(), SteeringTerm():
            return f"~ steering {name}  {', '.join(steering_differences(before, after))}"
        case Combine(), Combine() if before.method == after.method:
            parts = [
                f"{key} {_plain(old)} -> {_plain(after.options[key])}"
                for key, old in before.options.items()
                if old != after.options[key]
            ]
            return f"~ {name}  {before.method}: {', '.join(parts)}"
    return f"~ {name}  {value_words(before)} -> {value_words(after)}"


def _differences(before: Behaviour, after: Behaviour) -> list[str]:
    found = []
    if before.weight != after.weight:
        found.append(f"weight {number(before.weight)} -> {number(after.weight)}")
    if before.terms != after.terms:
        found.append(f"{terms_words(before.terms)} -> {term_list(after.terms, most=MOST_TERMS)}")
    if before.modules != after.modules:
        found.append(f"modules {module_words(before.modules)} -> {module_words(after.modules)}")
    return found


def origin_words(origin: Origin, now: datetime) -> str:
    """`from "Commit formal", dora, 2 min ago`"""
    return f'from "{origin.subject}", {origin.author}, {ago(origin.time, now)}'


def ago(time: datetime, now: datetime) -> str:
    """`just now`, `2 min ago`, `3 h ago`, `5 days ago`; before that, the day."""
    seconds = (now - time).total_seconds()
    if seconds < 0 or seconds >= 30 * 86400:
        return f"{time.astimezone():%Y-%m-%d}"
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h ago"
    days = int(seconds // 86400)
    return f"{days} day{'' if days == 1 else 's'} ago"


def _plain(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
