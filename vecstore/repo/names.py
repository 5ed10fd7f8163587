"""Whether a name that was typed is a behaviour's or a revision's."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from pv.registry.errors import UnknownRevision
from pv.registry.history.revisions import resolve_range
from pv.vecstore.repo.commits import everything

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["behaviour_named"]


def behaviour_named(repo: Reading, text: str) -> tuple[str, str] | None:
    """(revision, behaviour) for REV:NAME, and for a NAME that is no revision; None for a revision, or `A..B`.

    A name that is both is the revision. What is neither is left to whoever looks the revision up, unless the name
    of a behaviour is close: raises UnknownRevision then.
    """
    revision, colon, name = text.rpartition(":")
    if colon and name:
        return revision or "HEAD", name
    try:
        resolve_range(repo.registry.history, text)
    except UnknownRevision as error:
        known = {name for entry in everything(repo.registry) for name in entry.persona.behaviours}
        if text in known:
            return "HEAD", text
        close = get_close_matches(text, sorted({*known, *repo.branches(), *repo.tags()}), 3)
        if known.intersection(close):
            said = f"no branch, tag, commit or behaviour {text[:80]!r}"
            raise UnknownRevision(said, hint=f"did you mean {' or '.join(close)}?") from error
    return None
