"""Addresses on a Hub: `hf://user/name[@branch]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from pv.registry.errors import UsageError

__all__ = ["HubTarget", "parse_target"]

_REPO = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_.-]{1,96}/\w[\w.-]{0,95}(?<![.-])", re.ASCII)
_REVISION = re.compile(r"(?!.*(?:\.\.|//|/\.))[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}(?<!\.)(?<!/)(?<!\.lock)")


@dataclass(frozen=True, slots=True)
class HubTarget:
    """A branch of a model repository on the Hub."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        branch = "" if self.revision == "main" else "@" + self.revision.replace("/", "%2F")
        return f"hf://{self.repo}{branch}"


def parse_target(text: str) -> HubTarget:
    """`hf://user/name[@branch]` as a target. Raises UsageError."""
    rest = text.removeprefix("hf://").removeprefix("models/")
    repo, at, revision = rest.partition("@")
    if not text.startswith("hf://"):
        page = re.fullmatch(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)/?", text)
        meant = page[1] if page else repo
        hint = f"did you mean hf://{meant}?" if _REPO.fullmatch(meant) else "write hf://USER/NAME"
        raise UsageError(f"{text!r} is not a Hub address", hint=hint)
    if repo.startswith(("datasets/", "spaces/", "buckets/", "kernels/")):
        raise UsageError(f"{text!r} is not a model repository", hint="a persona is pushed to hf://USER/NAME")
    if not _REPO.fullmatch(repo) or repo.endswith(".git"):
        raise UsageError(
            f"{text!r} does not name a repository on the Hub",
            hint="write hf://USER/NAME or hf://USER/NAME@BRANCH: letters, digits, '-', '_' and '.', no '--'",
        )
    if at and "/" in revision and not revision.startswith("refs/pr/"):
        raise UsageError(f"{text!r} names a path in a repository", hint="a '/' in a branch is written %2F")
    revision = unquote(revision) if at else "main"
    if not _REVISION.fullmatch(revision):
        raise UsageError(f"{revision!r} cannot name a branch", hint="write hf://USER/NAME@BRANCH")
    return HubTarget(repo, revision)
