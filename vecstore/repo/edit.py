"""Verbs that change the recipe and nothing else: negate, add, drop, rename, combine, output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from pv.registry.changes import Change, changes
from pv.registry.combine import Combine
from pv.registry.errors import UsageError
from pv.registry.history.revisions import lasting
from pv.registry.persona import Persona, check_name
from pv.registry.words import combine_words
from pv.vecstore.repo.refused import refused
from pv.vecstore.repo.twice import counted_twice

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = [
    "Committed",
    "add",
    "combine",
    "commit_edit",
    "drop",
    "free_name",
    "negate",
    "output",
    "rename",
    "rule_of",
]


@dataclass(frozen=True, slots=True)
class Committed:
    """Where the branch is now, what was done in words, and the persona `before` and now. `more` goes into the JSON.

    `changed` is whether the branch moved: not if everything is as asked for already. `notes` are for people.
    """

    commit: str
    said: str
    persona: Persona
    before: Persona
    more: Mapping[str, str] = field(default_factory=dict)
    changed: bool = True
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """What differs from before in the persona."""
        return changes(self.before, self.persona)

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            **self.more,
            "changed": self.changed,
            "changes": [change.to_json() for change in self.changes],
            "notes": list(self.notes),
            "persona_id": self.persona.id,
            "persona": self.persona.to_json(),
        }


def negate(repo: Repo, names: Sequence[str], *, message: str | None = None) -> Committed:
    """Flip the signs of behaviours' weights. Raises UsageError for one whose weight is 0."""
    _check_once(names)

    def edit(persona: Persona) -> Persona:
        for name in names:
            behaviour = persona.behaviour(name)
            if not behaviour.weight:
                raise UsageError(
                    f"{name} has weight 0: changing its sign changes nothing",
                    hint=f"give it a weight first: pv scale {name} -1",
                )
            persona = persona.with_behaviour(name, replace(behaviour, weight=-behaviour.weight))
        return persona

    return commit_edit(repo, f"negate {' '.join(names)}", message or f"Negate {', '.join(names)}", edit)


def drop(repo: Repo, names: Sequence[str], *, message: str | None = None) -> Committed:
    """Remove behaviours from the persona; their vectors stay in the history."""
    _check_once(names)

    def edit(persona: Persona) -> Persona:
        for name in names:
            persona.behaviour(name)  # all are here, or nothing is dropped, and the error lists what there is
        for name in names:
            persona = persona.without(name)
        return persona

    return commit_edit(repo, f"drop {' '.join(names)}", message or f"Drop {', '.join(names)}", edit)


def rename(repo: Repo, old: str, new: str, *, message: str | None = None) -> Committed:
    """Give a behaviour another name: the same weight, terms and module factors. Raises UsageError if it is taken."""
    check_name(new)

    def edit(persona: Persona) -> Persona:
        persona.behaviour(old)
        if new == old:
            return persona
        if new in persona.behaviours:
            raise UsageError(
                f"there is a behaviour {new!r} here already",
                hint=f"choose another name, or remove it first: pv drop {new}",
            )
        return persona.renamed(old, new)

    said = message or f"Rename {old} to {new}"
    already = f"{old} has that name already" if new == old else None
    return commit_edit(repo, f"rename {old} {new}", said, edit, already=already)


def add(
    repo: Repo,
    behaviour: str,
    revision: str,
    *,
    name: str | None = None,
    weight: float | None = None,
    message: str | None = None,
) -> Committed:
    """Bring one behaviour from another revision, under its own name or another."""
    name = check_name(name or behaviour)
    commit = repo.registry.resolve(revision)
    source = lasting(revision, commit)
    theirs = repo.registry.persona(commit)
    brought = theirs.behaviour(behaviour, of=revision)
    if weight is not None:
        brought = replace(brought, weight=weight)

    def edit(persona: Persona) -> Persona:
        if persona.base != theirs.base:
            raise UsageError(
                f"{revision} is a persona of another base ({theirs.base[:12]})",
                hint=f"`pv rows {revision}:{behaviour} -o ROWS.jsonl` writes its rows, to train it on this base",
            )
        if name in persona.behaviours:
            raise UsageError(
                f"there is a behaviour {name!r} here already",
                hint=f"bring it under another name: pv add {free_name(persona, name)}={source}:{behaviour}; "
                f"or in its place: pv drop {name}, then pv add {name}={commit[:12]}:{behaviour}",
            )
        return persona.with_behaviour(name, brought)

    said = message or f"Add {name} from {source}:{behaviour}"
    return commit_edit(repo, f"add {name}={revision}:{behaviour}", said, edit, also_from=[commit])


def combine(repo: Repo, rule: Combine, *, message: str | None = None) -> Committed:
    """Set the rule by which behaviours are combined."""
    said = message or f"Combine with {rule.method}"
    already = f"the combine rule is {combine_words(rule)} already"
    edit = partial(Persona.with_combine, combine=rule)
    return commit_edit(repo, f"combine {rule.method}", said, edit, already=already)


def output(
    repo: Repo,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    seed: int | None = None,
    message: str | None = None,
) -> Committed:
    """Set how builds are written. What is None stays as it is."""

    edit = partial(Persona.with_output, dtype=dtype, rounding=rounding, seed=seed)
    said = message or "Set how builds are written"
    return commit_edit(repo, "output", said, edit, already="builds are written so already")


def _check_once(names: Sequence[str]) -> None:
    if not names:
        raise UsageError("name a behaviour", hint="`pv status` lists them")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name!r} is named twice", hint="name each behaviour once")


def free_name(persona: Persona, name: str) -> str:
    """A name like this one that is not taken: `brief2`."""
    return next(free for n in count(2) if (free := f"{name[:60]}{n}") not in persona.behaviours)


def rule_of(rule: str | Combine, preset: str | None, options: Mapping[str, Any]) -> Combine:
    """A method's name and its options, or a rule that has them already. Raises UsageError."""
    if isinstance(rule, str):
        return Combine.of(rule, preset=preset, **options)
    if preset is not None or options:
        raise UsageError(
            "a Combine has its options already", hint='name the method: combine("ties", density=0.3)'
        )
    return rule


def commit_edit(
    repo: Repo,
    command: str,
    message: str,
    edit: Callable[[Persona], Persona],
    *,
    also_from: Sequence[str] = (),
    already: str | None = None,
) -> Committed:
    """Apply `edit` to the persona of the current branch and commit it.

    If nothing changes: no commit, and what is said is `already`; without that, UsageError.
    """
    seen: list[Persona] = []

    def noting(persona: Persona) -> Persona:
        seen[:] = [persona]
        return edit(persona)

    commit = repo.registry.change(
        repo.command(command), message, noting, also_from=also_from, unchanged_ok=already is not None
    )
    (before,) = seen
    now = repo.registry.persona(commit)
    if already is not None and not changes(before, now):
        return Committed(commit, f"{already}: nothing to commit", now, before, changed=False)
    notes = (*counted_twice(before, now), *refused(before, now), *_retiring(before, now))
    return Committed(commit, message, now, before, notes=notes)


def _retiring(before: Persona, now: Persona) -> list[str]:
    """That a behaviour is not any more what a steering term was retired by."""
    return [
        f"{term.retired_by} retired the steering term {name} as it was; `pv steer unretire {name}` applies that again"
        for name, term in sorted(now.steering.terms.items())
        if term.retired_by is not None
        and term.retired_by in before.behaviours
        and before.behaviours[term.retired_by] != now.behaviours.get(term.retired_by)
    ]
