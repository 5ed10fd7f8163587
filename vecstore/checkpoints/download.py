"""A base that lives on a Hub: fetched once into the Hub client's own cache, always at a full commit."""

from __future__ import annotations

import re
from pathlib import Path

from pv.registry.errors import MissingBase, UsageError
from pv.registry.remote.hub import silenced

__all__ = ["fetch", "is_hub_id", "pin_revision"]

PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_hub_id(text: str) -> bool:
    """True for `user/name` or `user/name@revision`."""
    return _HUB_ID.fullmatch(text) is not None


def pin_revision(text: str) -> tuple[str, str]:
    """(repository, full commit sha) of `user/name[@revision]`. Raises MissingBase, UsageError."""
    if not is_hub_id(text):
        raise UsageError(f"{text!r} is neither a folder nor a Hub id", hint="a Hub id looks like user/name")
    repo, _, revision = text.partition("@")
    from huggingface_hub import HfApi

    try:
        sha = HfApi().model_info(repo, revision=revision or None, timeout=30).sha
    except Exception as error:
        raise _unreachable(text, error) from error
    if sha is None:
        raise MissingBase(f"the Hub names no commit for {text}")
    return repo, sha


def fetch(repo: str, revision: str) -> Path:
    """A local folder with the repository's weights and side files at that commit. Raises MissingBase.

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
            raise _unreachable(f"{repo}@{revision[:12]}", error) from error


def _unreachable(what: str, error: Exception) -> MissingBase:
    return MissingBase(
        f"the base {what} cannot be fetched: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
        hint="check the name, the network and, for a gated model, `hf auth login`; or name a local folder",
    )
