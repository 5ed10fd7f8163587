"""Verify: is a checkpoint on disk that persona's build, bit for bit?

What is compared is the id of the tensor table, so shards and file names do not matter. If the build was
made here before, its record tells the id; otherwise, and to name the tensors that differ, every tensor is
computed again and none is written. Side files are compared too: they do not decide, but they are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry import ids
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.fingerprint import Progress, fingerprint
from pv.vecstore.merge.build import build_id, side_file, table
from pv.vecstore.repo.opening import opened

__all__ = ["Verdict", "verify"]

OUTPUTS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`found` and `expected` are ids of tensor tables. `recorded`: the expected one was known, not computed.

    `differing` says of each tensor that is not the same what it is; `side_files` names those that differ.
    """

    build: str
    found: str
    expected: str
    recorded: bool
    tensors: int
    differing: tuple[tuple[str, str], ...]
    side_files: tuple[str, ...]
    dtype: str | None = None
    """The output dtype that would explain every difference."""

    @property
    def same(self) -> bool:
        return self.found == self.expected

    def to_json(self) -> dict[str, Any]:
        return {
            "same": self.same,
            "build": self.build,
            "found": self.found,
            "expected": self.expected,
            "recorded": self.recorded,
            "tensors": self.tensors,
            "differing": [{"tensor": name, "what": what} for name, what in self.differing],
            "side_files": list(self.side_files),
        }


def verify(
    registry: Registry,
    commit: str,
    persona: Persona,
    path: Path,
    *,
    threads: int = 2,
    hashing: Progress | None = None,
    building: Progress | None = None,
) -> Verdict:
    """Compare the checkpoint at `path` with the build of `persona`, which stands at `commit`.

    Raises NotFoundError, MissingBase, and what is wrong with the checkpoint or the packs.
    """
    with Checkpoint(path) as checkpoint:
        ours = fingerprint(checkpoint, threads=threads, progress=hashing)
    found, build = _id(ours), build_id(persona)
    strange = tuple(_side_files(registry, commit, persona, path))
    recorded = registry.record(build).get("weights")
    if recorded == found:
        return Verdict(build, found, found, True, len(ours), (), strange)
    with opened(registry, commit, [persona]) as at:
        expected = table(persona, at.base, at.vectors, threads=threads, progress=building)
    differing = tuple(_compare(expected, ours))
    dtype = _dtype(expected, ours, [name for name, _ in differing])
    return Verdict(build, found, _id(expected), False, len(ours), differing, strange, dtype)


def _dtype(
    expected: Mapping[str, TensorRow], found: Mapping[str, TensorRow], names: Sequence[str]
) -> str | None:
    """The one dtype that all the tensors that differ have, if it is another than they should have."""
    if not names or any(name not in expected or name not in found for name in names):
        return None
    if any(expected[name].dtype == found[name].dtype for name in names):
        return None
    dtypes = {found[name].dtype for name in names}
    return OUTPUTS.get(dtypes.pop()) if len(dtypes) == 1 else None


def _compare(expected: Mapping[str, TensorRow], found: Mapping[str, TensorRow]) -> Iterator[tuple[str, str]]:
    for name in sorted(expected.keys() | found.keys()):
        a, b = expected.get(name), found.get(name)
        if a is None:
            yield name, "is not part of the build"
        elif b is None:
            yield name, "is missing"
        elif (a.dtype, a.shape) != (b.dtype, b.shape):
            yield name, f"is {b.dtype} {list(b.shape)}, the build has {a.dtype} {list(a.shape)}"
        elif a != b:
            yield name, "has other values"


def _id(rows: Mapping[str, TensorRow]) -> str:
    return ids.base_id((name, row.dtype, row.shape, row.id) for name, row in rows.items())


def _side_files(registry: Registry, commit: str, persona: Persona, path: Path) -> Iterator[str]:
    """Names of the base's side files that are not beside the weights as a build puts them there."""
    folder = path.parent if path.is_file() else path
    for name, data in sorted(registry.base_files(commit).items()):
        beside = folder / name
        if not beside.is_file() or beside.read_bytes() != side_file(name, data, persona):
            yield name
