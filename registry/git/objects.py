"""git's objects as values, and their bytes as git writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

from pv.registry.errors import IntegrityError, UnknownRevision
from pv.registry.git.process import damaged

__all__ = [
    "Author",
    "Commit",
    "RefChange",
    "TreeEntry",
    "author_env",
    "checked_id",
    "id_lines",
    "parse_commit",
    "parse_tree",
]

_PERSON = re.compile(r"(?P<name>.*?) ?<(?P<email>[^<>]*)> (?P<seconds>\d+) (?P<zone>[+-]\d{4})")


@dataclass(frozen=True, slots=True)
class Author:
    name: str
    email: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Commit:
    id: str
    tree: str
    parents: tuple[str, ...]
    author: Author
    message: str


@dataclass(frozen=True, slots=True)
class TreeEntry:
    id: str
    folder: bool = False


@dataclass(frozen=True, slots=True)
class RefChange:
    """One ref moves from `old` to `new`; None stands for "does not exist"."""

    ref: str
    old: str | None
    new: str | None

    def to_json(self) -> dict[str, str | None]:
        return {"ref": self.ref, "old": self.old, "new": self.new}


def checked_id(object_id: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", object_id):
        raise UnknownRevision(f"not a commit id: {object_id[:60]!r}")
    return object_id


def id_lines(ids: Iterable[str]) -> bytes:
    return "".join(f"{checked_id(i)}\n" for i in ids).encode()


def author_env(author: Author) -> dict[str, str]:
    offset = author.time.utcoffset() or timedelta(0)
    minutes = int(offset.total_seconds()) // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
    return {
        "GIT_AUTHOR_NAME": author.name,
        "GIT_AUTHOR_EMAIL": author.email,
        "GIT_AUTHOR_DATE": f"{int(author.time.timestamp())} {zone}",
    }


def parse_commit(object_id: str, data: bytes) -> Commit:
    head, _, body = data.partition(b"\n\n")
    tree, parents, author = "", [], None
    for line in head.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition(" ")
        if key == "tree":
            tree = value
        elif key == "parent":
            parents.append(value)
        elif key == "author":
            author = _parse_person(value)
    if not tree or author is None:
        raise damaged(object_id)
    return Commit(
        object_id, checked_id(tree), tuple(parents), author, body.decode("utf-8", "replace").rstrip("\n")
    )


def _parse_person(text: str) -> Author | None:
    match = _PERSON.fullmatch(text)
    if match is None:
        return None
    zone = match["zone"]
    minutes = (int(zone[1:3]) * 60 + int(zone[3:5])) * (-1 if zone[0] == "-" else 1)
    try:
        time = datetime.fromtimestamp(int(match["seconds"]), timezone(timedelta(minutes=minutes)))
    except (ValueError, OverflowError, OSError):
        time = datetime.fromtimestamp(0, UTC)
    return Author(match["name"], match["email"], time)


def parse_tree(object_id: str, data: bytes) -> Mapping[str, TreeEntry]:
    entries: dict[str, TreeEntry] = {}
    position = 0
    while position < len(data):
        space, nul = data.find(b" ", position), data.find(b"\0", position)
        if space < 0 or nul < space or nul + 21 > len(data):
            raise damaged(object_id)
        mode, name = data[position:space], data[space + 1 : nul]
        if mode not in (b"100644", b"40000"):
            raise IntegrityError(f"git tree {object_id} holds more than plain files and folders")
        entries[name.decode("utf-8", "replace")] = TreeEntry(data[nul + 1 : nul + 21].hex(), mode == b"40000")
        position = nul + 21
    return MappingProxyType(entries)
