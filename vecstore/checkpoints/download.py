"""A checkpoint or adapter that lives on a Hub: fetched into the Hub client's own cache, always at a full commit."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote

from pv.registry.errors import NotFoundError, PvError, RemoteError, UsageError
from pv.registry.remote.address import HubTarget, parse_target
from pv.registry.remote.hub import silenced
from pv.registry.remote.hub_errors import explain

__all__ = ["fetch", "hub_target", "is_hub_id", "pin_revision"]

PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken"]
_HUB_ID = re.compile(r"(?:hf://)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*/?(@.+)?")
_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/")
_TREE = re.compile(r"([^/@]+/[^/@]+)(?:/(?:tree|commit)/([^?#]+))?/?")


def is_hub_id(text: str) -> bool:
    """True for `user/name[@revision]`, `hf://user/name`, and the address of its page: not for what is only a path."""
    return text.startswith("hf://") or _PAGE.match(text) is not None or _HUB_ID.fullmatch(text) is not None


def hub_target(text: str) -> HubTarget:
    """The repository and revision that are meant. Raises UsageError."""
    if page := _PAGE.match(text):
        found = _TREE.fullmatch(text[page.end() :])
        if found is None:
            hint = "a model's page is https://huggingface.co/USER/NAME, or with /tree/REVISION after it"
            raise UsageError(f"{text!r} is not the page of a model", hint=hint)
        repo, revision = found[1], unquote((found[2] or "").rstrip("/"))
    else:
        repo, _, revision = text.removeprefix("hf://").partition("@")
        revision = unquote(revision)
    at = f"@{quote(revision, safe='')}" if revision else ""
    return parse_target(f"hf://{repo.rstrip('/')}{at}")


def pin_revision(text: str) -> tuple[str, str]:
    """(repository, full commit sha) of a Hub id. Raises NotFoundError, RemoteError, UsageError."""
    if not is_hub_id(text):
        raise UsageError(f"{text!r} is neither a folder nor a Hub id", hint="a Hub id looks like user/name")
    target = hub_target(text)
    from huggingface_hub import HfApi

    try:
        with silenced():
            sha = HfApi().model_info(target.repo, revision=target.revision, timeout=30).sha
    except Exception as error:
        raise _refused(target, error) from error
    if sha is None:
        raise NotFoundError(f"the Hub names no commit for {text}", hint="name one: user/name@COMMIT")
    return target.repo, sha


def fetch(repo: str, revision: str) -> Path:
    """A local folder with the repository's weights and side files at that commit. Raises NotFoundError, RemoteError.

    What the client's cache holds is taken from there without asking anybody.
    """
    from huggingface_hub import snapshot_download

    with silenced():
        try:
            cached = Path(
                snapshot_download(repo, revision=revision, allow_patterns=PATTERNS, local_files_only=True)
            )
            if any(cached.glob("*.safetensors")):
                return cached
        except (LookupError, OSError, ValueError):
            pass  # not there, or not whole
        try:
            return Path(snapshot_download(repo, revision=revision, allow_patterns=PATTERNS))
        except Exception as error:
            raise _refused(HubTarget(repo, revision), error) from error


def _refused(target: HubTarget, error: BaseException) -> PvError:
    """What kept a repository from being fetched, with what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    while isinstance(error, hub.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # not in the cache, because it could not be fetched: why not?
    where = f"hf://{target.repo}" + ("" if target.revision == "main" else f"@{target.revision}")
    if isinstance(error, hub.RepositoryNotFoundError) and not isinstance(error, hub.GatedRepoError):
        return NotFoundError(
            f"{where}: there is no such model on the Hub, or this account cannot see it",
            hint="check the name; a private model needs `hf auth login`; a folder is written ./USER/NAME",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return NotFoundError(
            f"{where}: the model has no such revision", hint="name a branch, a tag or a commit"
        )
    found = explain(error, where, constants.ENDPOINT)
    if not isinstance(found, RemoteError) or isinstance(error, hub.GatedRepoError):
        return found
    hint = "check the network, HF_ENDPOINT if it is set, and `hf auth login`; or name a folder"
    if isinstance(error, hub.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        hint = "unset HF_HUB_OFFLINE, or name a folder"
    return RemoteError(str(found), hint=hint)
