"""Build: persona -> checkpoint, a deterministic function.

The same persona and engine give the same bytes on any machine, for any thread count and shard size. The result
has exactly the base's keys, and its side files. A folder appears whole or not at all. Each tensor of the base is
read and hashed once, however many vectors there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pv.registry import ids
from pv.registry.dtypes import OUTPUTS
from pv.registry.errors import BaseMismatch
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.side_files import RECIPE
from pv.vecstore.merge import folder
from pv.vecstore.merge.compute import compute
from pv.vecstore.merge.folder import Written, write_folder
from pv.vecstore.merge.methods import check_weights
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, plan_shards
from pv.vecstore.merge.weight_file import Placed
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["Built", "as_built", "build", "build_id", "check", "side_file", "table"]


@dataclass(frozen=True, slots=True)
class Built(Written):
    """What a build made: `build` is its id."""

    build: str


def build_id(persona: Persona) -> str:
    return ids.build_id(persona.id, persona.engine)


def build(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    out: Path,
    *,
    side_files: Mapping[str, bytes],
    shard_bytes: int = SHARD_BYTES,
    shards: tuple[Shard, ...] | None = None,
    threads: int = 2,
    force: bool = False,
    progress: Progress | None = None,
    elsewhere: Mapping[str, Placed] | None = None,
) -> Built:
    """Write the persona's checkpoint to the folder `out`. `elsewhere`: see `write_folder`.

    Raises BaseMismatch, CorruptPack, StorageError, and IntegrityError if a weight would leave the finite numbers.
    """
    check(persona, base)
    beside = {name: side_file(name, data, persona) for name, data in side_files.items()}
    persona = settle(persona, base, vectors, threads=threads)
    made = write_folder(
        out,
        shards or plan_shards(persona, base.manifest, shard_bytes=shard_bytes),
        lambda name, dtype, write: compute(persona, base, vectors, name, dtype, write),
        lambda _: {**beside, RECIPE: persona.to_bytes()},
        threads=threads,
        force=force,
        progress=progress,
        what=build_id(persona),
        elsewhere=elsewhere,
    )
    return as_built(made, persona)


def as_built(made: Written, persona: Persona) -> Built:
    """The folder of a persona."""
    return Built(**{one.name: getattr(made, one.name) for one in fields(made)}, build=build_id(persona))


def table(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, TensorRow]:
    """The tensor table of the checkpoint that `build` would write. Nothing is written; raises the same."""
    check(persona, base)
    persona = settle(persona, base, vectors, threads=threads)
    (shard,) = plan_shards(persona, base.manifest, shard_bytes=1 << 62)
    advance = counted(progress, shard.nbytes)
    rows: dict[str, TensorRow] = {}
    jobs = [(name, spec.dtype) for name, spec in shard.tensors.items()]
    for one in ordered_map(
        lambda job: compute(persona, base, vectors, *job, lambda _: None), jobs, threads=threads
    ):
        rows[one.name] = one.row
        advance(one.row.nbytes)
    return rows


def side_file(name: str, data: bytes, persona: Persona) -> bytes:
    """A side file as it goes beside the persona's weights. Raises FormatError."""
    written = persona.output.dtype
    return folder.side_file(name, data, None if written == "base" else OUTPUTS[written].torch)


def check(persona: Persona, base: Base) -> None:
    """Whether they go together; reads no weights. Raises BaseMismatch, UsageError."""
    if persona.base != base.manifest.id:
        raise BaseMismatch(f"the persona is for base {persona.base[:12]}, this is {base.manifest.id[:12]}")
    check_weights(persona.combine, {name: b.weight for name, b in persona.behaviours.items()})
