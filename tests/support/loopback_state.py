"""The state half of the loopback Hub: repositories, commits, stored bytes, and the knobs that make it fail.

Every commit is kept, so that a test can look at one after the fact. LFS objects and blobs lie under `root`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Commit", "Entry", "Fault", "HubState", "Refused", "Repo", "Request", "lfs_pointer"]

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a commit. `oid` is git's blob id: of the content, or for LFS of the pointer file."""

    size: int
    oid: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    oid: str
    parent: str | None
    summary: str
    description: str
    files: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Request:
    """What the server saw: "POST /api/…", the bearer token if any, and small JSON bodies."""

    line: str
    token: str | None
    body: Any = None


@dataclass(slots=True)
class Fault:
    """Answer requests whose "METHOD /path" contains `on` with `status`, or close the connection (0)."""

    status: int
    on: str = ""
    code: str | None = None
    message: str = "the loopback Hub was told to fail"
    delay_s: float = 0.0
    times: int = 1


class Refused(Exception):
    """A reply other than 200."""

    def __init__(self, status: int, message: str, code: str | None = None, body: Any = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.body = body if body is not None else {"error": message}


@dataclass(slots=True)
class Repo:
    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def find(self, revision: str) -> Commit:
        if commits := self.branches.get(revision):
            return commits[-1]
        for commits in self.branches.values():
            for commit in commits:
                if commit.oid == revision:
                    return commit
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def tip(self, branch: str) -> Commit | None:
        """What a new commit on the branch goes on top of: nothing, on the empty main of a new repository."""
        return None if self.branches.get(branch) == [] else self.find(branch)


class HubState:
    """State and knobs. `requests` is what was asked, `repos` what is kept."""

    def __init__(self, root: Path, tokens: Mapping[str, str]) -> None:
        self.root = root
        self.tokens = dict(tokens)  # token → "read" or "write"
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.endpoint = ""
        self.lfs_over = 10 << 20  # bytes from which a file is LFS; *.safetensors always is
        self.multipart_over: int | None = None
        self.page_size = 1000
        self.faults: list[Fault] = []
        self.before_commit: Callable[[], None] | None = None
        self.flip_uploads = 0
        self.swap: dict[str, bytes] = {}
        for name in ("lfs", "blobs", "parts"):
            (root / name).mkdir(parents=True, exist_ok=True)

    # Knobs

    def fail_next(self, status: int, **what: Any) -> None:
        """The next request (see Fault for `on`, `code`, `message`, `delay_s`, `times`) fails."""
        self.faults.append(Fault(status, **what))

    def race(self, repo: str, branch: str = "main") -> None:
        """Somebody else's commit lands just before the next one is taken in."""

        def land() -> None:
            self.put(repo, {"NOTES.md": f"{len(self.commits(repo, branch))}\n".encode()}, branch=branch)

        self.before_commit = land

    def flip_next_upload(self) -> None:
        """The next LFS object arrives with one bit turned."""
        self.flip_uploads += 1

    def swap_in_next_commit(self, path: str, content: bytes) -> None:
        """The server itself records other bytes for `path` than were sent."""
        self.swap[path] = content

    # Looking inside

    def commits(self, repo: str, branch: str = "main") -> list[Commit]:
        return self.repos[repo].branches[branch]

    def head(self, repo: str, branch: str = "main") -> Commit:
        return self.commits(repo, branch)[-1]

    def content(self, entry: Entry) -> Path:
        kind, name = ("lfs", entry.sha256) if entry.sha256 else ("blobs", entry.oid)
        return self.root / kind / str(name)

    def read(self, repo: str, path: str, branch: str = "main") -> bytes:
        return self.content(self.head(repo, branch).files[path]).read_bytes()

    def lines(self, start: str = "") -> list[str]:
        return [request.line for request in self.requests if request.line.startswith(start)]

    # State changes

    def create(self, repo: str, private: bool = False, empty: bool = False) -> None:
        """A fresh repository: one commit that holds .gitattributes, as on the real Hub; none if `empty`."""
        with self.lock:
            self.repos[repo] = Repo(private, {"main": []})
            if not empty:
                self.put(repo, {".gitattributes": GITATTRIBUTES}, summary="initial commit")

    def put(self, repo: str, files: Mapping[str, bytes], branch: str = "main", summary: str = "other") -> str:
        """A commit made behind the client's back: `files` on top of what is there."""
        with self.lock:
            commits = self.commits(repo, branch)
            before = commits[-1].files if commits else {}
            return self.append(
                repo, branch, summary, "", {**before, **{path: self.store(c) for path, c in files.items()}}
            )

    def append(
        self, repo: str, branch: str, summary: str, description: str, files: Mapping[str, Entry]
    ) -> str:
        commits = self.commits(repo, branch)
        parent = commits[-1].oid if commits else None
        table = sorted((path, entry.oid) for path, entry in files.items())
        seed = json.dumps([parent, summary, description, table, len(commits)])
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), parent, summary, description, dict(files))
        commits.append(commit)
        return commit.oid

    def store(self, content: bytes) -> Entry:
        oid = git_blob(content)
        (self.root / "blobs" / oid).write_bytes(content)
        return Entry(len(content), oid)

    def lfs_entry(self, sha256: str, size: int) -> Entry:
        path = self.root / "lfs" / sha256
        if not path.is_file() or path.stat().st_size != size:
            raise Refused(400, f"LFS object {sha256} was never uploaded")
        return Entry(size, git_blob(lfs_pointer(sha256, size)), sha256)


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
