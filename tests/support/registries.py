"""Small true parts for tests of the registry: bases, vectors, personas, and a registry that has some.

`from support.registries import BASE, add, new_registry, vector`. The same arguments give the same ids. And ways to
damage a registry, to see what became of it, and to mend it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pv.registry import ids
from pv.registry.check import fsck as files
from pv.registry.check import repair
from pv.registry.check.report import Report
from pv.registry.combine import METHODS, Combine
from pv.registry.disk import locks
from pv.registry.git import loose, refs
from pv.registry.history import operations
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.registry.provenance import Unknown
from pv.registry.registry import Registry
from support import TESTS

__all__ = [
    "BASE",
    "BUILD",
    "FILES",
    "A",
    "B",
    "Made",
    "add",
    "behaviours",
    "combines",
    "everything",
    "flip",
    "fsck",
    "git",
    "mend",
    "new_registry",
    "outputs",
    "overwrite",
    "pack_bytes",
    "personas",
    "put_pack",
    "recover",
    "run_python",
    "scale",
    "seen",
    "swap",
    "vector",
    "vector_ids",
    "vectors_of",
]


def row(seed: int) -> TensorRow:
    raw = seed.to_bytes(8, "little")
    return TensorRow("F32", (2,), ids.tensor_id("F32", [2], raw))


BASE = BaseManifest(
    {"a.weight": row(1), "b.weight": row(2)},
    {"kind": "path", "path": "/models/tiny"},
    ("config.json", "tokenizer.json"),
)
FILES = {"config.json": b'{"hidden_size": 2}', "tokenizer.json": bytes(range(256))}


def vector(seed: int, base: str = BASE.id) -> VectorManifest:
    return VectorManifest(base, "float", {"a.weight": {"tau": row(1000 + seed)}})


def pack_bytes(seed: int, base: str = BASE.id) -> bytes:
    """The pack of `vector(seed)`: one payload of one chunk, kept raw."""
    chunk = b"\0" + (1000 + seed).to_bytes(8, "little")
    parts = [["a.weight", "tau", [len(chunk)]]]
    description = {"pack": 1, "manifest": vector(seed, base).to_json(), "parts": parts}
    return packfile.sealed_header({"0": len(chunk)}, description, hashlib.sha256(chunk)) + chunk


def put_pack(packs: PackStore, seed: int) -> str:
    """Store the pack of `vector(seed)`; returns its id."""
    manifest = vector(seed)
    with packs.writer(manifest.id) as pack:
        pack.write(pack_bytes(seed))
    return manifest.id


def new_registry(directory: Path) -> Registry:
    registry = Registry.init(directory)
    registry.start(Persona(BASE.id), BASE, FILES, "Begin")
    return registry


def add(registry: Registry, name: str, seed: int, weight: float = 1.0, **options: Any) -> str:
    """Write a pack and commit it as a behaviour, as `pv train` does."""
    manifest = vector(seed)
    with registry.writing():
        put_pack(registry.packs, seed)
        return registry.change(
            f"commit {name}",
            f"Commit {name}",
            lambda persona: persona.with_behaviour(name, Behaviour(weight, (Term(1.0, manifest.id),))),
            vectors={manifest.id: (manifest, Unknown({"kind": "test", "seed": seed}))},
            **options,
        )


def scale(name: str, weight: float) -> Callable[[Persona], Persona]:
    def edit(persona: Persona) -> Persona:
        old = persona.behaviour(name)
        return persona.with_behaviour(name, Behaviour(weight, old.terms, old.modules))

    return edit


def git(registry: Registry, *args: str) -> str:
    """The system's own git on the history."""
    command = ["git", "--git-dir", str(registry.history.path), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def fsck(registry: Registry) -> None:
    """Neither pv nor git finds anything wrong, and every commit in the history can be read in full."""
    assert files.check(registry.root).damage == ()
    for entry in registry.log(all=True):
        snapshot = registry.snapshot(entry.id)
        assert snapshot.base().id == entry.persona.base
        assert vectors_of(registry, entry.id) == list(entry.persona.vectors)
        for vector_id in entry.persona.vectors:
            snapshot.vector(vector_id)
            snapshot.provenance(vector_id)
            assert registry.packs.has(vector_id)


def vectors_of(registry: Registry, revision: str = "HEAD") -> list[str]:
    """Ids of the vectors whose manifests a commit's tree holds."""
    entry = registry.history.entry(registry.resolve(revision), "vectors")
    names = [] if entry is None else list(registry.history.tree(entry.id))
    return [name.removesuffix(".json") for name in names]


def recover(registry: Registry) -> operations.Operation | None:
    """Finish what a crash left half done, as every write does first."""
    with registry.writing(), locks.exclusive(registry.root / "refs.lock") as lock:
        return operations.recover(registry.history, lock)


def run_python(code: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`code` in a fresh interpreter that can import this kit."""
    preamble = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
    command = [sys.executable, "-W", "error", "-c", preamble + code, *args]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=300)


A, B = vector(1).id, vector(2).id
BUILD = "ab" * 32


@dataclass(frozen=True)
class Made:
    """A registry with two branches, two behaviours, a tag, a record; and where its commits are."""

    root: Path
    main: str
    side: str
    tag: str

    @property
    def git(self) -> Path:
        return self.root / "history.git"

    def pack(self, pack_id: str) -> Path:
        return self.root / "packs" / pack_id[:2] / pack_id

    def entry(self, commit: str, path: str) -> Path:
        """The file of the object at `path` in a commit; of the commit itself without one."""
        with files.reading(self.root) as history:
            if path:
                found = history.entry(commit, path)
                assert found is not None
                return loose.object_path(self.git, found.id)
        return loose.object_path(self.git, commit)


def overwrite(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def flip(path: Path, place: int = -9) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    overwrite(path, bytes(data))


def swap(one: Path, other: Path) -> None:
    a, b = one.read_bytes(), other.read_bytes()
    overwrite(one, b)
    overwrite(other, a)


def mend(root: Path) -> tuple[Report, list[repair.Mended]]:
    done: list[repair.Mended] = []
    with locks.alone(root):
        for _ in range(2):  # refs first: what they lead to is known only then
            done += repair.repair(root, files.check(root, alone=True))
    return files.check(root), done


def seen(root: Path) -> dict[str, bytes]:
    """What a user can see: every ref, and what it leads to."""
    with Registry(root) as registry:
        now = operations.view(registry.history)
        return {
            "HEAD": now.head.encode(),
            **{ref: registry.persona(c).to_bytes() for ref, c in now.refs.items() if ref != refs.OPS},
        }


def everything(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-7, 1e30]),
    st.floats(-1e30, 1e30),
)
vector_ids = st.integers(0, 6).map(lambda seed: vector(seed).id)
behaviours = st.builds(
    Behaviour,
    numbers,
    st.lists(st.builds(Term, numbers, vector_ids), min_size=1, max_size=3).map(tuple),
    st.none() | st.dictionaries(st.text(max_size=8), numbers, max_size=2),
)


def _rule(method: str, given: dict[str, Any]) -> Combine:
    return Combine.of(method, **given)


def switches(method: str) -> st.SearchStrategy[Combine]:
    """Any rule of a method."""
    options: dict[str, st.SearchStrategy[Any]] = {
        one.name: st.sampled_from(one.choices)
        if one.choices
        else st.integers(int(one.least or 0), int(one.most or 1)).map(float)
        if one.whole
        else st.floats(0.01, 1.0)
        if one.above is not None or one.most is not None
        else st.floats(0, 1e30)
        if one.least is not None
        else numbers
        for one in METHODS[method].options
    }
    if method == "della":  # whose density and epsilon hang together
        options |= {"density": st.floats(0.4, 0.6), "epsilon": st.floats(0, 0.4, exclude_max=True)}
    return st.fixed_dictionaries(options).map(lambda given: _rule(method, given))


combines = st.sampled_from(sorted(METHODS)).flatmap(switches)
outputs = st.builds(
    Output,
    st.sampled_from(["base", "bf16", "fp16", "fp32"]),
    st.sampled_from(["stochastic", "nearest"]),
    st.sampled_from([0, 1, (1 << 53) - 1]),
)
names = st.sampled_from(["a", "b", "listening", "x.y-z_1"])
personas = st.builds(
    Persona,
    st.just(BASE.id),
    st.dictionaries(names, behaviours, max_size=3),
    combines,
    outputs,
)
