"""Whether a name that was typed is a behaviour's or a revision's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.registry.errors import UnknownRevision
from pv.registry.history.revisions import did_you_mean, resolve_range
from pv.vecstore.repo.commits import everything

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["behaviour_named"]

LISTS = "`pv branch` and `pv tag` list the names, `pv log --all` the commits, `pv vectors` the behaviours' vectors"


def behaviour_named(repo: Reading, text: str) -> tuple[str, str] | None:
    """(revision, behaviour) for REV:NAME, and for a NAME that is no revision; None for a revision, or `A..B`.

    A name that is both is the revision. Raises UnknownRevision for what is neither.
    """
    revision, colon, name = text.rpartition(":")
    if colon and name:
        return revision or "HEAD", name
    try:
        resolve_range(repo.registry.history, text)
    except UnknownRevision as error:
        if error.behaviour is not None and error.behaviour.rpartition(":")[2] == text:
            return "HEAD", text
        if error.name != text:
            raise
        known = {name for entry in everything(repo.registry) for name in entry.persona.behaviours}
        if text in known:  # undone by now
            return "HEAD", text
        close = did_you_mean(text, sorted({*known, *repo.branches(), *repo.tags()}))
        if text in repo.persona.steering.terms:
            close = f"{text} is a steering term: `pv steer status` shows where it stands"
        said = f"no branch, tag, commit or behaviour {text[:80]!r}"
        raise UnknownRevision(said, hint=close or LISTS, name=text) from error
    return None
