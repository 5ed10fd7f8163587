"""A deep check decodes everything and is deceived by no checksum; a repair makes again what can be made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.vectors import base_at, captured, nudged, random_f32, save, small_base

from pv.registry.check import fsck
from pv.registry.check.report import Finding, Report
from pv.registry.disk.safetensors import TensorFile
from pv.registry.manifest import VectorManifest
from pv.registry.packs import packfile
from pv.registry.packs.store import DAMAGED, PackStore
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.provenance import Captured, Derived, Provenance, Trained, TrainingData
from pv.registry.registry import Registry
from pv.vecstore.check import decode
from pv.vecstore.check.repair import Repaired, repair
from pv.vecstore.data.kept_rows import store_rows
from pv.vecstore.data.rows import parse_rows
from pv.vecstore.vectors.base import open_base
from pv.vecstore.vectors.derive import EncodingSpec, derive
from pv.vecstore.vectors.encode import encode_vector
from pv.vecstore.vectors.pinned import pin
from pv.vecstore.vectors.vector import open_vector

TENSORS = small_base()
ROWS = parse_rows(b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', source="rows.jsonl")


@dataclass(frozen=True)
class World:
    """A registry with a captured behaviour a, a trained b, and c, which was derived from b."""

    root: Path
    base_folder: Path
    base: str
    a: str
    b: str
    c: str

    @property
    def packs(self) -> PackStore:
        return PackStore(self.root)

    @property
    def rows(self) -> str:
        return ROWS.id

    def check(self, **options: Any) -> Report:
        return decode.deep(self.root, fsck.check(self.root), **options)


def make(folder: Path, *, pinned: bool) -> World:
    base_folder = save(folder / "base", TENSORS)
    with base_at(base_folder) as base, Registry.creating(folder / "home") as registry:
        origin = {"kind": "path", "path": str(base_folder)}
        manifest = replace(base.manifest, pinned=pinned, origin=origin)
        if pinned:
            pin(base.weights, manifest, registry.packs)
        registry.start(Persona(manifest.id), manifest, {}, "Begin")
    with Registry.find(folder / "home") as registry, base_at(base_folder) as base:
        packs = registry.packs
        a = captured(folder / "tuned", nudged(TENSORS, 4), base, packs)
        deltas = {name: random_f32(name, t.raw.size) for name, t in TENSORS.items() if t.dtype == "BF16"}
        b = encode_vector(deltas, base.manifest, packs, encoding="float")
        with open_vector(b.id, base, packs) as vector:
            c = derive(vector, EncodingSpec.parse("int8"), packs).manifest
        options = {"lr": 1e-4, "epochs": 2, "max_steps": None, "seed": 0}
        data = TrainingData("rows.jsonl", ROWS.id, len(ROWS), kept=True)
        origins: dict[str, Provenance] = {
            "a": Captured("tuned"),
            "b": Trained(data, options, {}, None, 0, packs=(store_rows(ROWS, packs),)),
            "c": Derived(b.id, "int8", 0.01, 0.001),
        }
        for name, made in (("a", a), ("b", b), ("c", c)):
            _commit(registry, name, made, origins[name])
        return World(registry.root, base_folder, base.manifest.id, a.id, b.id, c.id)


def _commit(registry: Registry, name: str, manifest: VectorManifest, origin: Provenance) -> None:
    behaviour = Behaviour(1.0, (Term(1.0, manifest.id),))
    registry.change(
        "commit", name, lambda p: p.with_behaviour(name, behaviour), vectors={manifest.id: (manifest, origin)}
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scrub")


@pytest.fixture(scope="module")
def pinned(home: Path) -> World:
    return make(home / "pinned", pinned=True)


@pytest.fixture(scope="module")
def referred(home: Path) -> World:
    return make(home / "referred", pinned=False)


def _copy(world: World, to: Path) -> World:
    shutil.copytree(world.root, to / ".pv")
    return replace(world, root=to / ".pv")


@pytest.fixture
def world(pinned: World, tmp_path: Path) -> Iterator[World]:
    """A copy, whose base was pinned from a folder that is still there."""
    yield _copy(pinned, tmp_path)
    assert pinned.base_folder.is_dir()


@pytest.fixture
def reference(referred: World, tmp_path: Path) -> World:
    """A copy whose base is only referred to; the base's folder may be changed, too."""
    copied = _copy(referred, tmp_path)
    shutil.move(referred.base_folder, referred.base_folder.with_name("kept")) if not (
        referred.base_folder.with_name("kept").exists()
    ) else shutil.rmtree(referred.base_folder, ignore_errors=True)
    shutil.copytree(referred.base_folder.with_name("kept"), referred.base_folder)
    return copied


def damage(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def forge(path: Path, place: int) -> None:
    """Change one byte of the payload, and put a checksum on it that holds."""
    with TensorFile(path) as file:
        description = json.loads(file.metadata["pv"])
        sizes = {name: entry.nbytes for name, entry in file.entries.items()}
        start = file.data_start
    data = bytearray(path.read_bytes()[start:])
    data[place] ^= 1
    header = packfile.sealed_header(sizes, description, hashlib.sha256(data), pad_to=start)
    path.chmod(0o644)
    path.write_bytes(header + data)


def kinds(report: Report) -> list[tuple[str, str]]:
    return [(finding.kind, finding.where.rpartition("/")[2]) for finding in report.damage]


def about(report: Report, pack_id: str) -> Finding:
    return next(finding for finding in report.damage if finding.where.endswith(pack_id))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_sound_registry(world: World, threads: int) -> None:
    seen: list[tuple[str, int, int]] = []
    report = world.check(threads=threads, progress=lambda *step: seen.append(step))
    assert report.findings == () and report.deep
    total = sum(path.stat().st_size for path in world.packs.files())
    assert seen[-1] == ("decoding", total, total)
    assert len(seen) == 5  # a base, three vectors, rows
    assert set(report.uses) == {world.base, world.a, world.b, world.c, world.rows}


@pytest.mark.parametrize("which", ["base", "a", "b", "c", "rows"])
def test_a_checksum_that_holds_deceives_no_deep_check(world: World, which: str) -> None:
    pack_id = getattr(world, which)
    path = world.packs.path(pack_id)
    forge(path, -2 if which == "rows" else path.stat().st_size // 3 % 200)
    assert fsck.check(world.root).clean
    report = world.check()
    assert ("pack", pack_id) in kinds(report)
    behaviours = {"base": ("a", "b", "c"), "rows": ("b",)}.get(which, (which,))
    assert about(report, pack_id).behaviours == behaviours
    if which != "base":  # whose damage can make a vector that needs it undecodable
        assert kinds(report) == [("pack", pack_id)]


def test_what_is_damaged_for_all_to_see_is_not_decoded_as_well(world: World) -> None:
    damage(world.packs.path(world.b))
    world.packs.path(world.a).unlink()
    report = world.check()
    assert kinds(report) == [("pack", world.b), ("missing", world.a)]


def test_a_damaged_pin_does_not_hide_the_vectors(world: World) -> None:
    """The base's folder stands in."""
    damage(world.packs.path(world.base))
    assert kinds(world.check()) == [("pack", world.base)]


def test_a_base_that_changed_where_it_is_referred_to(reference: World) -> None:
    assert reference.check().findings == ()
    damage(reference.base_folder / "model.safetensors")
    report = reference.check()
    assert [finding.kind for finding in report.damage] == ["base"]  # the vectors are not to blame
    (found,) = report.damage
    assert (found.where, found.behaviours) == (str(reference.base_folder), ("a", "b", "c"))
    assert "1 of its tensors are not those" in found.what


def test_a_changed_base_is_not_taken_for_a_damaged_vector(reference: World) -> None:
    changed = {**TENSORS, **nudged(TENSORS, 9, share=1)}
    save(reference.base_folder, changed)
    report = reference.check()
    assert [finding.kind for finding in report.damage] == ["base"]
    assert [(f.kind, f.where.rpartition("/")[2]) for f in report.notes] == [("unchecked", reference.a)]


def test_a_base_of_another_shape_where_it_is_referred_to(reference: World) -> None:
    save(reference.base_folder, {"model.norm.weight": TENSORS["model.norm.weight"]})
    report = reference.check()
    assert [finding.kind for finding in report.damage] == ["base"]
    assert {finding.kind for finding in report.notes} == {"unchecked"}


def test_a_base_that_is_not_at_hand_is_no_damage(reference: World) -> None:
    shutil.rmtree(reference.base_folder)
    report = reference.check()
    assert report.clean
    assert {finding.kind for finding in report.notes} == {"unchecked"}
    assert len(report.notes) == 4  # three vectors, and the base


# Repair


def _mended(world: World) -> Repaired:
    return repair(world.root, deeply=True)


@pytest.mark.parametrize("how", ["flipped", "forged", "gone"])
@pytest.mark.parametrize("which", ["base", "c"])
def test_a_pack_is_made_again(world: World, which: str, how: str) -> None:
    path = world.packs.path(getattr(world, which))
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "forged":
        forge(path, 9)
    else:
        damage(path)
    damaged = None if how == "gone" else path.read_bytes()
    done = _mended(world)
    assert done.report.findings == () and [one.done for one in done.mended] == [True]
    assert path.read_bytes() == whole
    aside = [p for p in world.packs.quarantine.iterdir() if p.name.endswith(DAMAGED)]
    assert [p.read_bytes() for p in aside] == ([] if damaged is None else [damaged])
    assert list(world.packs.tmp.iterdir()) == []


def test_the_base_is_made_again_before_what_needs_it(world: World) -> None:
    for pack_id in (world.base, world.c):
        world.packs.path(pack_id).unlink()
    done = _mended(world)
    assert done.report.findings == ()
    assert [one.where.rpartition("/")[2] for one in done.mended] == [world.base, world.c]


def test_a_base_whose_folder_holds_something_else_now(world: World, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    damaged = world.packs.path(world.base)
    damage(damaged)
    before = damaged.read_bytes()
    kept = shutil.move(world.base_folder, tmp_path / "elsewhere")
    try:
        save(world.base_folder, small_base(seed=2))
        done = _mended(world)
        assert kinds(done.report)[0] == ("pack", world.base)
        assert [one.done for one in done.mended] == [False]
        shutil.rmtree(world.base_folder)
        assert [one.done for one in _mended(world).mended] == [False]
    finally:
        shutil.rmtree(world.base_folder, ignore_errors=True)
        shutil.move(kept, world.base_folder)
    assert damaged.read_bytes() == before  # as it was: there is nothing better
    assert _mended(world).report.clean


@pytest.mark.parametrize(
    ("which", "advice"),
    [
        ("a", "pv commit tuned --as a"),
        ("b", "pv train rows.jsonl --as b --lr 0.0001 --epochs 2 --seed 0"),
        ("rows", "pv train"),
    ],
)
@pytest.mark.parametrize("gone", [True, False])
def test_what_cannot_be_made_again_is_left_with_advice(
    world: World, which: str, advice: str, gone: bool
) -> None:
    path = world.packs.path(getattr(world, which))
    if gone:
        path.unlink()
    else:
        damage(path)
    before = None if gone else path.read_bytes()
    done = _mended(world)
    assert [one.done for one in done.mended] == [False]
    assert advice in done.mended[0].what
    assert kinds(done.report) == [("missing" if gone else "pack", path.name)]
    assert (path.read_bytes() if path.exists() else None) == before
    assert list(world.packs.quarantine.iterdir()) == []


def test_a_derived_vector_whose_source_is_gone(world: World) -> None:
    for pack_id in (world.b, world.c):
        damage(world.packs.path(pack_id))
    done = _mended(world)
    assert [one.done for one in done.mended] == [False, False]
    assert "pv compress c" in done.mended[1].what or "is not in this registry" in done.mended[1].what


def test_capturing_the_same_checkpoint_again_mends_it(world: World, tmp_path: Path) -> None:
    path = world.packs.path(world.a)
    whole = path.read_bytes()
    damage(path)
    with Registry(world.root) as registry, open_base(registry.base(), registry.packs) as base:
        again = captured(tmp_path / "tuned", nudged(TENSORS, 4), base, registry.packs)
    assert again.id == world.a
    assert path.read_bytes() == whole
    assert world.check().clean


def test_without_looking_deep(world: World) -> None:
    world.packs.path(world.c).unlink()
    done = repair(world.root)
    assert done.report.clean and not done.report.deep
    assert world.check().clean
