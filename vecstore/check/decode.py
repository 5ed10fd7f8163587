"""The deep half of fsck: every part of every pack is decoded against its base, and hashed again.

A checksum says that a file is what was written; this says that what was written is what its id names, and that
it can be decoded still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from pv.registry.base_places import BasePlaces
from pv.registry.check.report import Finding, Report
from pv.registry.errors import BaseMismatch, CorruptPack, IntegrityError, MissingBase, PvError, RemoteError
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.fingerprint import row_of
from pv.vecstore.data.kept_rows import load_rows
from pv.vecstore.packs.read import Pack
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base, Fetch, open_base
from pv.vecstore.vectors.origin import base_in_words, origin_in_words
from pv.vecstore.vectors.steering import read_directions
from pv.vecstore.vectors.vector import open_vector, reference_to

__all__ = ["Staged", "deep", "glance", "manifest_of"]

Staged = Callable[[str, int, int], None]
"""(stage, done, total): "commits", "packs" or "decoding"."""


def deep(
    root: Path,
    report: Report,
    *,
    fetch: Fetch | None = None,
    threads: int = 2,
    progress: Staged | None = None,
) -> Report:
    """The report of `fsck.check`, with what decoding every pack that it found whole has shown."""
    return _DeepCheck(root, report, fetch, threads, progress).run()


def glance(root: Path, report: Report) -> Report:
    """The report of `fsck.check`, with a look at where bases are that the registry only refers to: names and
    shapes, not bytes. What would have to be fetched is left alone."""
    packs, places, found = PackStore(root), BasePlaces(root).read_if_sound(), []
    for base_id, manifest in sorted(report.bases.items()):
        if packs.has(base_id) or "path" not in manifest.origin:
            continue
        where = origin_in_words(manifest)
        try:
            open_base(manifest, packs, moved=places.get(base_id)).close()
        except MissingBase as error:
            found.append(Finding("unchecked", where, f"{error}: builds need it", hint=error.hint))
        except IntegrityError as error:
            found.append(_wrong_base(report, where, str(error)))
    return report.plus(found)


def _wrong_base(report: Report, where: str, what: str) -> Finding:
    names = sorted({name for use in report.uses.values() for name in use.behaviours})
    return Finding("base", where, what, tuple(names), hint="put the right checkpoint back there")


class _DeepCheck:
    def __init__(
        self, root: Path, report: Report, fetch: Fetch | None, threads: int, progress: Staged | None
    ) -> None:
        self.packs, self.places = PackStore(root), BasePlaces(root).read_if_sound()
        self.report, self.fetch, self.threads = report, fetch, threads
        self.found: list[Finding] = []
        self._bases: dict[str, Base | None] = {}
        self._wrong: dict[str, IntegrityError] = {}
        self._suspect = {finding.where.rpartition("/")[2] for finding in report.of("pack")}
        self._progress = progress
        self._total = sum(path.stat().st_size for path in self.packs.files())
        self._done = 0

    def run(self) -> Report:
        whole = [path.name for path in self.packs.files() if path.name not in self._suspect]
        described = {pack_id: manifest_of(self.packs, pack_id) for pack_id in whole}
        with ExitStack() as stack:
            for pack_id, manifest in sorted(described.items(), key=lambda kv: _bases_first(kv[1])):
                try:
                    self._pack(pack_id, manifest, stack)
                except (PvError, OSError) as error:
                    self._damaged(pack_id, str(error))
                self._advance(pack_id)
            self._references(stack)
        return self.report.plus(self.found, deep=True)

    def _pack(self, pack_id: str, manifest: BaseManifest | VectorManifest | None, stack: ExitStack) -> None:
        if manifest is None:
            load_rows(pack_id, self.packs)
            return
        if isinstance(manifest, BaseManifest):
            with Pack(self.packs.path(pack_id), expect=pack_id) as pack:
                self._decode(pack, {(name, "w"): None for name in manifest.tensors})
            return
        if manifest.is_steering:  # needs no base to be read
            with Pack(self.packs.path(pack_id), expect=pack_id) as pack:
                read_directions(pack, manifest)
            return
        base = self._base(manifest.base, stack)
        if base is None or not self._vector(pack_id, base):
            hint = "put it back, and run `pv fsck --deep` again"
            known = self.report.bases.get(manifest.base)
            name = base_in_words(known) if known else manifest.base[:12]
            what = f"not decoded: its base {name} was not found"
            self.found.append(self.report.about_pack(pack_id, "unchecked", what, hint=hint))

    def _vector(self, pack_id: str, base: Base) -> bool:
        """False if the base turns out to be another: a changed base looks like a damaged pack."""
        with open_vector(pack_id, base, self.packs) as vector:
            rows = vector.manifest.tensors
            references = {
                (name, part): reference_to(base.manifest.tensors[name], parts, partial(base.raw, name))
                for name, parts in rows.items()
                for part in parts
            }
            try:
                self._decode(vector.pack, references)
            except CorruptPack:
                for name in {name for (name, _), reference in references.items() if reference}:
                    try:
                        base.tensor(name)
                    except BaseMismatch:
                        return False
                raise
            except BaseMismatch:
                return False
        return True

    def _decode(self, pack: Pack, parts: Mapping[tuple[str, str], object]) -> None:
        def work(key: tuple[str, str]) -> None:
            for _ in pack.stream(*key, parts[key]):  # type: ignore[arg-type]
                pass

        for _ in ordered_map(work, sorted(parts), threads=self.threads):
            pass

    def _base(self, base_id: str, stack: ExitStack) -> Base | None:
        """The base, out of its pack if that is whole; None if it is not at hand."""
        if base_id not in self._bases:
            self._bases[base_id] = None
            manifest = self.report.bases.get(base_id) or manifest_of(self.packs, base_id)
            if isinstance(manifest, BaseManifest):
                if self._is_pinned(base_id):
                    manifest = replace(manifest, origin={})
                moved = None if self._is_pinned(base_id) else self.places.get(base_id)
                try:
                    base = open_base(manifest, self.packs, fetch=self.fetch, moved=moved)
                    self._bases[base_id] = stack.enter_context(base)
                except (MissingBase, RemoteError):
                    pass
                except IntegrityError as error:
                    self._wrong[base_id] = error
        return self._bases[base_id]

    def _is_pinned(self, base_id: str) -> bool:
        return self.packs.has(base_id) and base_id not in self._suspect

    def _references(self, stack: ExitStack) -> None:
        """Bases that are only referred to: are the files where they came from still those?"""
        for base_id, manifest in sorted(self.report.bases.items()):
            if self._is_pinned(base_id):
                continue
            where = origin_in_words(manifest)
            base = self._base(base_id, stack)
            if base_id in self._wrong:
                self.found.append(_wrong_base(self.report, where, str(self._wrong[base_id])))
            elif base is None:
                what = f"base {base_in_words(manifest)} was not found: builds need it"
                self.found.append(Finding("unchecked", where, what))
            elif base_id not in self._suspect:
                names = sorted(manifest.tensors)
                rows = ordered_map(partial(row_of, base.weights), names, threads=self.threads)
                changed = [n for n, row in zip(names, rows, strict=True) if row != manifest.tensors[n]]
                if changed:
                    what = f"{len(changed)} of its tensors are not those of base {base_id[:12]}, {changed[0]} ..."
                    self.found.append(_wrong_base(self.report, where, what))

    def _damaged(self, pack_id: str, what: str) -> None:
        self._suspect.add(pack_id)
        self._bases.pop(pack_id, None)
        self.found.append(self.report.about_pack(pack_id, "pack", what, repairable=True))

    def _advance(self, pack_id: str) -> None:
        self._done += self.packs.size(pack_id)
        if self._progress:
            self._progress("decoding", self._done, self._total)


def manifest_of(packs: PackStore, pack_id: str) -> BaseManifest | VectorManifest | None:
    """What a pack says that it holds; None for training rows, and for what cannot be read."""
    with suppress(PvError, OSError):
        return packfile.inspect(packs.path(pack_id), pack_id).manifest
    return None


def _bases_first(manifest: BaseManifest | VectorManifest | None) -> bool:
    return not isinstance(manifest, BaseManifest)
