"""Rot: flipped bits, truncated and exchanged files. fsck names each, and nothing reads as other data."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.stress import World

from pv.registry.check import fsck
from pv.registry.errors import PvError
from pv.registry.git import loose
from pv.registry.registry import Registry
from pv.vecstore.repo.opening import opened

DAMAGES, QUICK = 1200, 100
SEED = 20260101


@dataclass(frozen=True)
class Damage:
    """What is done to one file: a bit of it flipped, its end cut off, or its place taken by another."""

    how: str
    file: Path
    place: int = 0
    other: Path | None = None

    def bytes(self) -> dict[Path, bytes]:
        """What the files hold then."""
        data = self.file.read_bytes()
        if self.how == "swap":
            assert self.other is not None
            return {self.file: self.other.read_bytes(), self.other: data}
        if self.how == "cut":
            return {self.file: data[: self.place]}
        flipped = bytearray(data)
        flipped[self.place // 8] ^= 1 << self.place % 8
        return {self.file: bytes(flipped)}


def kinds(root: Path) -> dict[str, list[Path]]:
    git = root / "history.git"
    with Registry(root) as registry:
        packs = sorted(registry.packs.files())
    return {
        "pack": packs,
        "object": [loose.object_path(git, object_id) for object_id in loose.stored(git)],
        "ref": sorted(path for path in (git / "refs").rglob("*") if path.is_file()),
        "head": [git / "HEAD"],
        "record": sorted((root / "records").glob("*.json")),
        "settings": [root / "format", git / "config"],
    }


WEIGHTS = {"pack": 40, "object": 32, "ref": 12, "head": 4, "record": 8, "settings": 4}


def damages(root: Path, count: int) -> Iterator[tuple[str, Damage]]:
    chance = random.Random(SEED)
    files = kinds(root)
    drawn = chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    for kind in drawn:
        file = chance.choice(files[kind])
        size = file.stat().st_size
        others = [path for path in files[kind] if path.read_bytes() != file.read_bytes()]
        how = chance.choices(["flip", "cut", "swap"], [70, 20, 10 if others else 0])[0]
        if how == "swap":
            yield kind, Damage(how, file, other=chance.choice(others))
        else:
            yield kind, Damage(how, file, chance.randrange(8 * size if how == "flip" else size))


def read(root: Path, *, weights: bool) -> dict[str, bytes]:
    """All that a reader is given, by the id of what it asked for; without what ended in an error."""
    found: dict[str, bytes] = {}

    def note(name: str, value: object) -> None:
        found[name] = value if isinstance(value, bytes) else repr(value).encode()

    with Registry(root) as registry:
        for name in registry.branches():
            try:
                commits = [entry.id for entry in registry.log(name)]
            except PvError:
                continue
            for commit in commits:
                try:
                    persona = registry.persona(commit)
                    note(f"persona {commit}", persona.to_bytes())
                    note(f"base {commit}", registry.base(commit).to_bytes())
                    note(f"files {commit}", registry.base_files(commit))
                    for vector in persona.vectors:
                        note(f"vector {vector}", registry.vector(commit, vector).to_bytes())
                        note(f"provenance {vector}", registry.provenance(commit, vector))
                    if weights:
                        with opened(registry, commit, [persona]) as at:
                            for vector, decoded in at.vectors.items():
                                for tensor in decoded.manifest.tensors:
                                    note(f"tau {vector} {tensor}", decoded.tau(tensor).tobytes())
                            for tensor in at.base.manifest.tensors:
                                note(f"base tensor {tensor}", at.base.tensor(tensor).raw.tobytes())
                except PvError:
                    continue
        for path in sorted((root / "records").glob("*.json")):
            try:
                note(f"record {path.stem}", registry.record(path.stem))
            except PvError:
                continue
    return found


@pytest.mark.slow
def test_rot_is_found_and_never_read_as_other_data(world: World, tmp_path: Path, full: bool) -> None:
    here = world.copy(tmp_path / "here")
    (here.base / "model.safetensors").rename(here.base / "gone")  # so that the pinned copy is what is read
    try:
        _rot(here, DAMAGES if full else QUICK)
    finally:
        (here.base / "gone").rename(here.base / "model.safetensors")


def _rot(here: World, count: int) -> None:
    truth = read(here.root, weights=True)
    assert len(truth) > 30
    seen: Counter[str] = Counter()
    harmless: list[Damage] = []
    for kind, damage in list(damages(here.root, count)):
        changed = damage.bytes()
        before = {path: path.read_bytes() for path in changed}
        for path, data in changed.items():
            path.chmod(0o644)
            path.write_bytes(data)
        try:
            given = read(here.root, weights=kind == "pack")
        except PvError:
            given = {}
        wrong = [name for name, value in given.items() if truth.get(name) != value]
        assert not wrong, (damage, wrong)
        if fsck.check(here.root).clean:
            harmless.append(damage)
        else:
            seen[f"{kind} {damage.how}"] += 1
        for path, data in before.items():
            path.write_bytes(data)
    print(f"{count} damages found: {dict(sorted(seen.items()))}; not found: {harmless}")
    assert harmless == []
    assert fsck.check(here.root).clean
