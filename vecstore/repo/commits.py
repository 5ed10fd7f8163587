"""All commits of a registry: those that have a name, those that a ref leads to, those that undo can bring back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pv.registry.history.log import LogEntry, read_log
from pv.registry.persona import Persona
from pv.registry.registry import Registry

__all__ = ["everything", "named_history", "standing_first"]


def everything(registry: Registry) -> list[LogEntry]:
    """The commits that any branch, tag or operation leads to, newest first."""
    named = [*registry.branches().values(), *registry.tags().values()]
    moved = [change for operation in registry.operations() for change in operation.refs]
    named += [value for change in moved for value in (change.old, change.new) if value is not None]
    return read_log(registry.history, list(dict.fromkeys(named)))


def standing_first(registry: Registry) -> list[LogEntry]:
    """The same, those first that a branch or a tag leads to."""
    found = {entry.id: entry for entry in [*registry.log(all=True), *everything(registry)]}
    return list(found.values())


def named_history(
    registry: Registry, history: Sequence[LogEntry] | None = None
) -> list[tuple[str, str, Persona]]:
    """(commit, a name for it, its persona) of every commit: HEAD, branches and tags, HEAD~1 ..., then the others."""
    entries = registry.log(all=True) if history is None else history
    names = _names(registry, entries)
    order = {commit: place for place, commit in enumerate(names)}
    ranked = sorted(entries, key=lambda entry: order.get(entry.id, len(order)))  # stable: newest first
    return [(entry.id, names.get(entry.id, entry.id[:12]), entry.persona) for entry in ranked]


def _names(registry: Registry, entries: Sequence[LogEntry]) -> Mapping[str, str]:
    names: dict[str, str] = {}
    head = registry.head().commit
    if head is not None:
        names[head] = "HEAD"
    for group in (registry.branches(), registry.tags()):
        for name, commit in sorted(group.items()):
            names.setdefault(commit, name)
    parents = {entry.id: entry.parents for entry in entries}
    back = 0
    while head is not None and (above := parents.get(head)):
        head, back = above[0], back + 1
        names.setdefault(head, f"HEAD~{back}")
    return names
