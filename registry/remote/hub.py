"""The calls to a Hub that a push is made of, over huggingface_hub: silent, and never waiting for ever.

huggingface_hub is imported when the first call is made (it is slow to import, and most commands never
need it); its progress bars, log lines and warnings are switched off for as long as a `client` is open and
put back afterwards. Each failure leaves here as a PvError (see hub_errors).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypeVar

from pv.registry.errors import RemoteError
from pv.registry.remote.address import HubTarget
from pv.registry.remote.hub_errors import explain

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

__all__ = ["HubClient", "Seen", "hub_client", "silenced"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the Hub said of the target: its head, or that the repository or only the branch is missing."""

    head: str | None
    repo_exists: bool = True
    created: bool = False


class HubClient:
    """The calls a push makes, on one target, each with its refusals put in words."""

    def __init__(self, api: HfApi, target: HubTarget, timeout_s: float) -> None:
        self.api, self.target, self.timeout_s = api, target, timeout_s

    @property
    def url(self) -> str:
        branch = "" if self.target.revision == "main" else f"/tree/{self.target.revision}"
        return f"{self.api.endpoint}/{self.target.repo}{branch}"

    def ask(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except MemoryError:
            raise
        except Exception as error:
            # All of it is the client's or the server's: there is no code of ours inside a call.
            raise explain(error, str(self.target), self.api.endpoint) from error

    def look(self) -> Seen:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        def find() -> Seen:
            try:
                info = self.api.model_info(
                    self.target.repo, revision=self.target.revision, timeout=self.timeout_s
                )
                return Seen(info.sha)
            except GatedRepoError:
                raise
            except RevisionNotFoundError:
                return Seen(None)
            except RepositoryNotFoundError as error:
                if error.response.status_code != 404:
                    raise  # a stranger gets 401 for what may exist
                return Seen(None, repo_exists=False)

        return self.ask(find)

    def create(self, seen: Seen, *, create: bool, private: bool) -> Seen:
        """The repository and the branch, made where they were missing."""
        branch = self.target.revision
        if not create and (branch != "main" or not seen.repo_exists):
            missing = f"branch {branch!r}" if seen.repo_exists else "such repository"
            raise RemoteError(
                f"{self.target}: there is no {missing}", hint="check the name, or let pv create it"
            )
        if not seen.repo_exists:
            visibility: Any = "private" if private else None  # None: the account's own default
            self.ask(self.api.create_repo, self.target.repo, visibility=visibility, exist_ok=True)
        head = self.look().head
        if head is None and branch != "main":
            self.ask(self.api.create_branch, self.target.repo, branch=branch, exist_ok=True)
            head = self.look().head
        # A server may make a repository without a first commit: then there is no head, and no parent.
        return Seen(head, created=not seen.repo_exists)

    def tree(self, commit: str) -> dict[str, RepoFile]:
        from huggingface_hub.hf_api import RepoFile

        def walk() -> dict[str, RepoFile]:
            rows = self.api.list_repo_tree(self.target.repo, revision=commit, recursive=True)
            return {row.path: row for row in rows if isinstance(row, RepoFile)}

        return self.ask(walk)

    def addition(self, path: str, file: BinaryIO) -> CommitOperationAdd:
        """One file to add, hashed. An open file keeps the client on plain LFS, which every Hub speaks."""
        from huggingface_hub import CommitOperationAdd

        return self.ask(CommitOperationAdd, path, file)

    def commit(
        self,
        additions: Mapping[str, CommitOperationAdd],
        deleted: tuple[str, ...],
        summary: str,
        description: str,
        parent: str | None,
    ) -> tuple[str, tuple[str, ...]]:
        """Upload, then the one commit. Gives its id and what the Hub remarked on the way."""
        from huggingface_hub import CommitOperationDelete

        operations: list[Any] = [
            *(CommitOperationDelete(path, is_folder=False) for path in deleted),
            *additions.values(),
        ]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            info = self.ask(
                lambda: self.api.create_commit(
                    self.target.repo,
                    operations,
                    commit_message=summary,
                    commit_description=description,
                    revision=self.target.revision,
                    parent_commit=parent,
                )
            )
        notes = tuple(str(note.message) for note in caught if note.category is UserWarning)
        return info.oid, notes


@contextmanager
def silenced() -> Iterator[None]:
    """The Hub client without bars, log lines or retries' remarks of its own. Puts everything back."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    drawn = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if drawn:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if drawn:
            enable_progress_bars()


@contextmanager
def hub_client(
    target: HubTarget, token: str | bool | None, endpoint: str | None, timeout_s: float = 120.0
) -> Iterator[HubClient]:
    """The client, set up for one push: silent, and never waiting for ever. Puts everything back."""
    from huggingface_hub import HfApi, get_session

    hub = HubClient(HfApi(endpoint=endpoint, token=token, user_agent="personavec"), target, timeout_s)

    def impatient(request: Any) -> None:
        # The client asks for no timeout at all in places; this also reaches those.
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            kind: limits.get(kind) or timeout_s for kind in ("connect", "read", "write", "pool")
        }

    client = get_session()
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "request": [*hooks["request"], impatient]}
    try:
        with silenced():
            yield hub
    finally:
        client.event_hooks = hooks
