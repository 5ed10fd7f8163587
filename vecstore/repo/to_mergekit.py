"""export --mergekit: a revision's persona as a mergekit document."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.disk import durable
from pv.registry.errors import UsageError
from pv.vecstore.mergekit.write import as_document, as_text

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["MergekitExport", "export_mergekit"]


@dataclass(frozen=True, slots=True)
class MergekitExport:
    """A document for mergekit: `folders` are where it looks for the behaviours, `output` the file that was written."""

    commit: str
    text: str
    document: dict[str, Any]
    folders: dict[str, str]
    notes: tuple[str, ...]
    output: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "output": None if self.output is None else str(self.output),
            "document": self.document,
            "folders": self.folders,
            "notes": list(self.notes),
        }


def export_mergekit(revision: Revision, output: Path | None = None, *, force: bool = False) -> MergekitExport:
    """The revision's persona as a document that mergekit runs, once its behaviours are exported to folders.

    It is written to `output`, if that is given. Raises UsageError for what mergekit cannot say, by name.
    """
    persona, base = revision.persona, revision.base
    folders = {name: f"./{name}" for name, behaviour in persona.behaviours.items() if behaviour.weight}
    document, said = as_document(persona, base, _at(revision), folders)
    steered = ", ".join(persona.steering.active)
    notes = (*said, *([f"steering is left out, mergekit knows none: {steered}"] if steered else []))
    commands = [f"  pv export {revision.commit[:12]}:{name} -o {at}" for name, at in folders.items()]
    comments = [
        f"Written by pv from commit {revision.commit}.",
        "mergekit needs a checkpoint of each behaviour:",
        *commands,
        "A behaviour that is no captured checkpoint is rounded as it is exported.",
        *notes,
    ]
    text = as_text(document, comments)
    if output is not None:
        if output.is_dir() or (output.exists() and not force):
            raise UsageError(
                f"{output} exists",
                hint="name another file with -o" if output.is_dir() else "--force replaces it",
            )
        if not output.parent.is_dir():
            raise UsageError(f"{output.parent} is no folder", hint="name a file in a folder that is there")
        with durable.storage_errors(output):
            durable.write_file(output, text.encode())
    return MergekitExport(revision.commit, text, document, folders, notes, output)


def _at(revision: Revision) -> str:
    """Where mergekit finds the base."""
    base = revision.base
    place = revision.registry.places.of(base.id) or base.origin
    return place["path"] if "path" in place else f"{place['repo']}@{place['revision']}"
