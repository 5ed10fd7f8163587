"""Repair: check, mend what can be mended without a guess, and check again.

Invariant: a pack is only ever replaced by one whose id is the same and whose every part has been decoded.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pv.registry.check import fsck
from pv.registry.check import repair as files
from pv.registry.check.repair import Mended
from pv.registry.check.report import Finding, Report
from pv.registry.disk import locks
from pv.registry.git import loose
from pv.registry.provenance import Derived
from pv.vecstore.check.decode import Staged, deep, glance
from pv.vecstore.check.sources import restore
from pv.vecstore.checkpoints.side_files import MAX_SIDE_BYTES
from pv.vecstore.vectors.base import Fetch

__all__ = ["Repaired", "repair"]

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did, and the registry as it is now."""

    mended: tuple[Mended, ...]
    report: Report


def repair(
    root: Path,
    *,
    deeply: bool = False,
    fetch: Fetch | None = None,
    threads: int = 2,
    progress: Staged | None = None,
) -> Repaired:
    """Check, mend what can be mended, and check again, with the registry to itself.

    In rounds, since one thing may be needed to mend another: a pack holds a copy of its manifest.
    """

    def look() -> Report:
        report = fsck.check(root, alone=True, progress=progress)
        if deeply:
            return deep(root, report, fetch=fetch, threads=threads, progress=progress)
        return glance(root, report)

    mended: list[Mended] = []
    with locks.alone(root):
        for _ in range(ROUNDS):
            report = look()
            tried = files.repair(root, report, _side_files(report))
            known = {one.where for one in tried}
            lost = [finding for finding in report.of("pack", "missing") if finding.where not in known]
            for finding in sorted(lost, key=lambda f: _rank(report, f)):
                tried.append(restore(root, report, finding, fetch, threads))
            new = [one for one in tried if one.done and one not in mended]
            mended += new
            if not new:
                break
        else:
            report = look()
        failed = [one for one in tried if not one.done]
    return Repaired((*mended, *failed), report)


def _side_files(report: Report) -> dict[str, bytes]:
    """Damaged git objects that are files of a base, from where that base came from: {object id: object}."""
    wanted = {finding.where for finding in report.of("object")}
    found = {}
    bases = [base for base in report.bases.values() if wanted and "path" in base.origin]
    for manifest in bases:
        for name in manifest.files:
            with suppress(OSError):
                path = Path(manifest.origin["path"]) / name
                if path.is_file() and path.stat().st_size <= MAX_SIDE_BYTES:
                    object_id, data = loose.blob(path.read_bytes())
                    if object_id in wanted:
                        found[object_id] = data
    return found


def _rank(report: Report, finding: Finding) -> tuple[int, str]:
    """Bases first, since vectors are decoded against them; derived vectors last."""
    pack_id = finding.where.rpartition("/")[2]
    derived = isinstance(report.provenance.get(pack_id), Derived)
    return (0 if pack_id in report.bases else 2 if derived else 1, pack_id)
