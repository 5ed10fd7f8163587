"""What a check found, as data: the command line draws it, a repair works through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pv.registry.check.reachability import Use
from pv.registry.manifest import BaseManifest
from pv.registry.provenance import Provenance

__all__ = ["Finding", "Report"]

NOTES = frozenset({"unfinished", "leftover", "unknown", "unchecked"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    `kind` is one of

        format, config                   the files that say how to read the rest
        object                           a git object: missing, damaged, or not what it must be
        ref, head, operations            where history begins
        pack, missing                    a pack that is damaged, or not there
        record                           what was measured about a build
        base                             the base's own files, outside the registry
        unfinished, leftover, unknown, unchecked    no damage: a crash's remains, strangers, what was not looked at

    `where` is a path in `.pv`, or an id. `repairable` says that `--repair` knows what to try.
    """

    kind: str
    where: str
    what: str
    behaviours: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    repairable: bool = False
    hint: str | None = None

    @property
    def damage(self) -> bool:
        return self.kind not in NOTES

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "where": self.where,
            "what": self.what,
            "damage": self.damage,
            "behaviours": list(self.behaviours),
            "commits": list(self.commits),
            "repairable": self.repairable,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A checked registry: how much was looked at, and what was found. `deep` if packs were decoded too.

    For whoever repairs: `uses` says who needs a pack, `bases` and `provenance` are the documents of all
    commits by id, `spare` names the pack whose manifest is, byte for byte, a git object; `steers`: a commit has
    steering terms.
    """

    findings: tuple[Finding, ...]
    commits: int = 0
    operations: int = 0
    objects: int = 0
    packs: int = 0
    records: int = 0
    nbytes: int = 0
    deep: bool = False
    uses: Mapping[str, Use] = field(default_factory=dict)
    bases: Mapping[str, BaseManifest] = field(default_factory=dict)
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    spare: Mapping[str, str] = field(default_factory=dict)
    steers: bool = False

    @property
    def damage(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.damage)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.damage)

    @property
    def undecoded(self) -> tuple[Finding, ...]:
        """Packs that a deep check could not decode: their base was not at hand."""
        return tuple(
            one for one in self.findings if one.kind == "unchecked" and one.where.startswith("packs/")
        )

    @property
    def clean(self) -> bool:
        """No damage. There may be notes."""
        return not self.damage

    @property
    def behaviours(self) -> tuple[str, ...]:
        """Every behaviour that damage affects, sorted."""
        return tuple(sorted({name for finding in self.damage for name in finding.behaviours}))

    def of(self, *kinds: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind in kinds]

    def about_pack(self, pack_id: str, kind: str, what: str, **more: Any) -> Finding:
        """A finding about a pack, with whom it affects."""
        use = self.uses.get(pack_id)
        where = f"packs/{pack_id[:2]}/{pack_id}"
        before, _, after = what.partition(where)  # an error names the whole path
        return Finding(
            kind,
            where,
            after.lstrip(": ") if after and ": " not in before else what,
            behaviours=tuple(sorted(use.behaviours)) if use else (),
            commits=tuple(use.commits) if use else (),
            **more,
        )

    def plus(self, findings: Iterable[Finding], **counts: Any) -> Report:
        return replace(self, findings=(*self.findings, *findings), **counts)

    def to_json(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "deep": self.deep,
            "commits": self.commits,
            "operations": self.operations,
            "objects": self.objects,
            "packs": self.packs,
            "records": self.records,
            "bytes": self.nbytes,
            "behaviours": list(self.behaviours),
            "findings": [finding.to_json() for finding in self.findings],
        }
