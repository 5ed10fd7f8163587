"""Pushing a folder to the Hub as one commit: the branch holds the old checkpoint or the new one, never half.

    seen head ──► hash every file ──► upload what differs (LFS) ──► one commit on that head ──► read it back

The commit names the head that was seen as its parent, so that a push which somebody overtook is refused
instead of undoing theirs. What the Hub then lists at the new commit is compared with what was sent.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import RemoteError, StorageError, UsageError
from pv.registry.remote.address import HubTarget
from pv.registry.remote.hub import hub_client
from pv.registry.remote.hub_errors import overtaken

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.hf_api import RepoFile

__all__ = ["Progress", "Pushed", "head_commit", "push_folder"]

# Called with (path in the repository, bytes sent so far, size), by the uploading threads, one at a time.
Progress = Callable[[str, int, int], None]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
_NOT_SENT = (".git", ".cache")  # what a working copy leaves behind; the Hub refuses these names


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did. `commit` is the branch's head; when nothing differed it is the one that was there."""

    repo: str
    revision: str
    commit: str
    url: str
    uploaded: tuple[str, ...]
    skipped: tuple[str, ...]
    deleted: tuple[str, ...]
    uploaded_bytes: int
    created: bool
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.uploaded or self.deleted)


def head_commit(target: HubTarget, token: str | None = None, endpoint: str | None = None) -> str | None:
    """The commit that the branch points at; None where there is no such repository or branch yet.

    Raises RemoteError when the Hub cannot be asked, or will not say without a token.
    """
    with hub_client(target, token, endpoint) as hub:
        return hub.look().head


def push_folder(
    folder: Path,
    target: HubTarget,
    *,
    message: str,
    token: str | None = None,
    endpoint: str | None = None,
    parent_commit: str | None = None,
    create: bool = True,
    private: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    timeout_s: float = 120.0,
) -> Pushed:
    """Make the branch hold every file of `folder` in one commit, and no weights of an older push.

    Other files in the repository stay. Files that are there already are not sent; if nothing differs, no
    commit is made. `parent_commit` is the head that the caller last saw: a branch that has moved on is
    refused before anything is uploaded. `create` makes a missing repository (`private` or not) or branch.
    `force` goes over a moved head, and over a checkpoint that pv did not push. Without `token`, the one
    that `hf auth login` or HF_TOKEN left is used. `timeout_s` is how long the Hub may stay silent.

    Raises RemoteError (its hint says what to do), UsageError for what cannot be pushed, StorageError for
    files that cannot be read.
    """
    summary, _, description = message.strip().partition("\n")
    if not summary:
        raise UsageError("a push needs a message")
    if _COMMIT.fullmatch(target.revision):
        raise UsageError("a push goes to a branch, not to a commit", hint=f"push to hf://{target.repo}")
    with ExitStack() as stack:
        files = _open_files(folder, progress, stack)
        hub = stack.enter_context(hub_client(target, token or True, endpoint, timeout_s))
        seen = hub.look()
        moved = seen.head is not None and parent_commit not in (None, seen.head)
        if seen.head is None:
            seen = hub.create(seen, create=create, private=private)
        there = hub.tree(seen.head) if seen.head is not None else {}
        additions = {path: hub.addition(path, file) for path, file in files.items()}
        changed = {path: add for path, add in additions.items() if not _same(there.get(path), add)}
        stale = tuple(sorted(path for path in there if _WEIGHTS.fullmatch(path) and path not in files))
        if (changed or stale) and not force:  # what is there already was perhaps pushed by us, unacknowledged
            if moved:
                raise overtaken(str(target))
            if "persona.json" not in there and any(map(_WEIGHTS.fullmatch, there)):
                raise UsageError(
                    f"{target} already holds a model that pv did not push",
                    hint="push under another name, or --force to put this one in its place",
                )
        commit = seen.head
        notes: tuple[str, ...] = ()
        if changed or stale or commit is None:
            for path in changed:
                files[path].sending = True
            commit, notes = hub.commit(changed, stale, summary.strip(), description.strip(), seen.head)
            _check(target, commit, hub.tree(commit), additions, stale)
        return Pushed(
            repo=target.repo,
            revision=target.revision,
            commit=commit,
            url=hub.url,
            uploaded=tuple(changed),
            skipped=tuple(path for path in files if path not in changed),
            deleted=stale,
            uploaded_bytes=sum(add.upload_info.size for add in changed.values()),
            created=seen.created,
            notes=notes,
        )


class _Source(io.BufferedReader):
    """A file of the folder. Once `sending`, each read tells `progress` how far it has come."""

    def __init__(self, path: Path, repo_path: str, progress: Progress | None, lock: threading.Lock) -> None:
        super().__init__(io.FileIO(path))
        self.repo_path, self.progress, self.lock = repo_path, progress, lock
        self.size = path.stat().st_size
        self.sending = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.sending and self.progress is not None:
            with self.lock:
                self.progress(self.repo_path, self.tell(), self.size)
        return data


def _open_files(folder: Path, progress: Progress | None, stack: ExitStack) -> dict[str, _Source]:
    """Every plain file below `folder`, open, by its path in the repository. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    lock = threading.Lock()
    files: dict[str, _Source] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] in _NOT_SENT:
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UsageError(
                f"{name!r} is not a plain file", hint="a push sends plain files: copy it in, or remove it"
            )
        if path.is_file():
            try:
                files[name] = stack.enter_context(_Source(path, name, progress, lock))
            except OSError as error:
                raise StorageError(f"cannot read {name!r}: {error.strerror}") from error
    if not files:
        raise UsageError(f"{folder} holds no files to push")
    return files


def _same(there: RepoFile | None, addition: CommitOperationAdd) -> bool:
    """True if the Hub's listing says that this path holds these bytes."""
    if there is None or there.size != addition.upload_info.size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == addition.upload_info.sha256.hex())
    with addition.as_file() as file:  # small: what is not LFS goes into git itself
        digest = sha1(b"blob %d\0" % there.size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return there.blob_id == digest.hexdigest()


def _check(
    target: HubTarget,
    commit: str,
    there: Mapping[str, RepoFile],
    additions: Mapping[str, CommitOperationAdd],
    stale: tuple[str, ...],
) -> None:
    """Raise RemoteError unless `commit` holds what was sent (by SHA-256 or git blob id) and nothing stale."""
    wrong = [path for path, addition in additions.items() if not _same(there.get(path), addition)]
    wrong += [path for path in stale if path in there]
    if wrong:
        what = "is missing there" if wrong[0] not in there else "is not what was sent"
        raise RemoteError(
            f"{target}: commit {commit[:12]} was made, but {wrong[0]!r} {what}",
            hint="do not use that commit; look for a .gitignore in the repository, then push again",
        )
