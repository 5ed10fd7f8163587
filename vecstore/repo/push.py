"""push: a revision's build and its model card, published to a Hub repository as one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.remote.address import HubTarget, parse_target
from pv.registry.remote.push import Pushed, push_folder
from pv.vecstore.progress import Report, Tick
from pv.vecstore.publish.card import CardFacts, model_card
from pv.vecstore.repo.build import Build, build

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Push", "push"]


@dataclass(frozen=True, slots=True)
class Push:
    """What was built, its card, the bytes of each file, and what the Hub has of it (None: nothing was sent)."""

    build: Build
    card: str
    sizes: Mapping[str, int]
    pushed: Pushed | None

    def to_json(self) -> dict[str, Any]:
        made = self.build.built
        document = {"commit": self.build.commit, "build": made.build}
        if self.pushed is None:
            return {"dry_run": True, **document, "sizes": dict(self.sizes), "card": self.card}
        return {
            **document,
            "weights": made.weights,
            "hub_commit": self.pushed.commit,
            "url": self.pushed.url,
            "uploaded": list(self.pushed.uploaded),
            "skipped": list(self.pushed.skipped),
            "deleted": list(self.pushed.deleted),
            "uploaded_bytes": self.pushed.uploaded_bytes,
        }


def push(
    revision: Revision,
    address: str,
    *,
    message: str,
    private: bool = False,
    parent: str | None = None,
    force: bool = False,
    endpoint: str | None = None,
    dry_run: bool = False,
    threads: int,
    progress: Report | None = None,
) -> Push:
    """Build and publish to `hf://USER/NAME`. Raises UsageError, MissingBase, RemoteError."""
    target = parse_target(address)
    with revision.registry.packs.scratch("push") as tmp:
        folder = tmp / "model"
        made = build(revision, folder, threads=threads, progress=progress)
        card = _card(revision, made, target)
        (folder / "README.md").write_text(card, encoding="utf-8")
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        if dry_run:
            return Push(made, card, sizes, None)
        pushed = _send(folder, target, message, private, parent, force, endpoint, progress)
    return Push(made, card, sizes, pushed)


def _card(revision: Revision, made: Build, target: HubTarget) -> str:
    registry, persona, built = revision.registry, revision.persona, made.built
    facts = CardFacts(
        persona=persona,
        base=revision.base,
        build_id=built.build,
        weights_id=built.weights,
        provenance={vector: registry.provenance(revision.commit, vector) for vector in persona.vectors},
        scores=list(registry.record(built.build).get("scores", {}).values()),
        sums=built.files,
        repo=target.repo,
        unbaked=made.unbaked,
    )
    return model_card(facts)


def _send(
    folder: Path,
    target: HubTarget,
    message: str,
    private: bool,
    parent: str | None,
    force: bool,
    endpoint: str | None,
    progress: Report | None,
) -> Pushed:
    def sent(path: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Tick("sending", done, total))

    if progress is not None:
        progress(Tick("sending", 0, 0))
    return push_folder(
        folder,
        target,
        message=message,
        endpoint=endpoint,
        parent_commit=parent,
        private=private,
        force=force,
        progress=sent,
    )
