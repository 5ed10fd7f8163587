"""fsck: check a registry, however damaged, and mend what can be mended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry.check import fsck as files
from pv.registry.check.repair import Mended
from pv.registry.check.report import Report as Findings
from pv.vecstore.progress import Report, Tick

__all__ = ["Checked", "fsck"]

STAGES = {
    "commits": ("reading the history", "commits"),
    "packs": ("checking packs", "bytes"),
    "decoding": ("decoding packs", "bytes"),
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found; and, if a repair was asked for, what it did (else None)."""

    report: Findings
    mended: tuple[Mended, ...] | None = None

    @property
    def clean(self) -> bool:
        return self.report.clean

    def to_json(self) -> dict[str, Any]:
        document = self.report.to_json()
        if self.mended is None:
            return document
        return {
            **document,
            "repairs": [{"where": m.where, "what": m.what, "done": m.done} for m in self.mended],
        }


def fsck(
    start: Path,
    *,
    deep: bool = False,
    repair: bool = False,
    threads: int,
    progress: Report | None = None,
) -> Checked:
    """Check the registry of a folder, or of the nearest above. Raises NotARegistry; damage is a result."""

    def update(stage: str, done: int, total: int) -> None:
        if progress is not None:
            label, unit = STAGES[stage]
            progress(Tick(label, done, total, unit))

    root = files.locate(start)
    if repair:
        from pv.vecstore.check.repair import repair as mend
        from pv.vecstore.checkpoints.download import fetch

        done = mend(root, deeply=deep, fetch=fetch, threads=threads, progress=update)
        return Checked(done.report, done.mended)
    report = files.check(root, progress=update)
    if deep:
        from pv.vecstore.check.decode import deep as decode_all
        from pv.vecstore.checkpoints.download import fetch

        report = decode_all(root, report, fetch=fetch, threads=threads, progress=update)
    elif not all(base.pinned for base in report.bases.values()):
        from pv.vecstore.check.decode import glance

        report = glance(root, report)
    if report.of("pack", "missing"):
        from pv.vecstore.check.sources import advised

        report = advised(root, report)
    return Checked(report)
