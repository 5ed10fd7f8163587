"""verify: is a checkpoint on disk that revision's build, bit for bit?

What is compared is the id of the tensor table, so shards and file names do not matter. If the build was
made here before, its record tells the id; otherwise, and to name the tensors that differ, every tensor is
computed again and none is written. Side files are compared too: they do not decide, but they are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.dtypes import DTYPES
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.compare import Difference, differences
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id
from pv.vecstore.merge.build import build_id, side_file, table
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.opening import opened

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`found` and `expected` are ids of tensor tables. `recorded`: the expected one was known, not computed.

    `differing` says of each tensor that is not the same what it is; `side_files` names those that differ; `dtype`
    is the output dtype that would explain every difference.
    """

    commit: str
    build: str
    found: str
    expected: str
    recorded: bool
    tensors: int
    differing: tuple[Difference, ...]
    side_files: tuple[str, ...]
    dtype: str | None = None

    @property
    def same(self) -> bool:
        return self.found == self.expected

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "same": self.same,
            "build": self.build,
            "found": self.found,
            "expected": self.expected,
            "recorded": self.recorded,
            "tensors": self.tensors,
            "differing": [{"tensor": one.name, "what": one.what} for one in self.differing],
            "side_files": list(self.side_files),
        }


def verify(
    revision: Revision,
    checkpoint: Path,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Verdict:
    """Compare the checkpoint with the revision's build.

    Raises NotFoundError, MissingBase, and what is wrong with the checkpoint or the packs.
    """
    persona = revision.persona.with_output(dtype=dtype, rounding=rounding)
    with Checkpoint(checkpoint) as weights:
        ours = fingerprint(weights, threads=threads, progress=stage(progress, "hashing the checkpoint"))
    found, build, commit = table_id(ours), build_id(persona), revision.commit
    strange = tuple(_side_files(revision, persona, checkpoint))
    recorded = revision.registry.record(build).get("weights")
    if recorded == found:
        return Verdict(commit, build, found, found, True, len(ours), (), strange)
    with opened(revision.registry, commit, [persona]) as at:
        update = stage(progress, "computing the build")
        expected = table(persona, at.base, at.vectors, threads=threads, progress=update)
    differing = tuple(differences(expected, ours, owner="the build"))
    explained = _dtype(expected, ours, [one.name for one in differing])
    return Verdict(commit, build, found, table_id(expected), False, len(ours), differing, strange, explained)


def _dtype(
    expected: Mapping[str, TensorRow], found: Mapping[str, TensorRow], names: Sequence[str]
) -> str | None:
    """The one dtype that all the tensors that differ have, if it is another than they should have."""
    if not names or any(name not in expected or name not in found for name in names):
        return None
    if any(expected[name].dtype == found[name].dtype for name in names):
        return None
    dtypes = {found[name].dtype for name in names}
    return DTYPES[dtypes.pop()].output if len(dtypes) == 1 else None


def _side_files(revision: Revision, persona: Persona, path: Path) -> Iterator[str]:
    """Names of the base's side files that are not beside the weights as a build puts them there."""
    folder = path.parent if path.is_file() else path
    for name, data in sorted(revision.registry.base_files(revision.commit).items()):
        beside = folder / name
        if not beside.is_file() or beside.read_bytes() != side_file(name, data, persona):
            yield name
