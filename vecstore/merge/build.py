"""Build: persona -> checkpoint, a deterministic function.

The same persona and engine give the same bytes on any machine, for any thread count and shard size. The result
has exactly the base's keys, and its side files; where steering is baked in, the keys of its biases too. A folder
appears whole or not at all. Each tensor of the base is read and hashed once, however many vectors there are, but for
what a bias is computed from.
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
from pv.vecstore.merge.baked import NOTHING, Baked
from pv.vecstore.merge.bias import compute_baked
from pv.vecstore.merge.folder import Written, write_folder
from pv.vecstore.merge.methods import check_weights
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, plan_shards
from pv.vecstore.merge.weight_file import Placed
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["Built", "as_built", "build", "build_id", "check", "files_beside", "table"]


@dataclass(frozen=True, slots=True)
class Built(Written):
    """What a build made: `build` is its id."""

    build: str


def build_id(persona: Persona) -> str:
    """Of what decides the bytes: not of evidence, nor of steering terms that are retired."""
    return ids.build_id(persona.recipe.id, persona.engine)


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
    baked: Baked = NOTHING,
) -> Built:
    """Write the persona's checkpoint to the folder `out`. `elsewhere`: see `write_folder`.

    Raises BaseMismatch, CorruptPack, StorageError, and IntegrityError if a weight would leave the finite numbers.
    """
    check(persona, base)
    beside = files_beside(persona, side_files, baked)
    persona = settle(persona, base, vectors, threads=threads)
    made = write_folder(
        out,
        shards or plan_shards(persona, base.manifest, shard_bytes=shard_bytes, baked=baked),
        lambda name, dtype, write: compute_baked(persona, base, vectors, baked, name, dtype, write),
        lambda _: beside,
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
    baked: Baked = NOTHING,
) -> dict[str, TensorRow]:
    """The tensor table of the checkpoint that `build` would write. Nothing is written; raises the same."""
    check(persona, base)
    persona = settle(persona, base, vectors, threads=threads)
    (shard,) = plan_shards(persona, base.manifest, shard_bytes=1 << 62, baked=baked)
    advance = counted(progress, shard.nbytes)
    rows: dict[str, TensorRow] = {}
    jobs = [(name, spec.dtype) for name, spec in shard.tensors.items()]
    for one in ordered_map(
        lambda job: compute_baked(persona, base, vectors, baked, *job, lambda _: None), jobs, threads=threads
    ):
        rows[one.name] = one.row
        advance(one.row.nbytes)
    return rows


def files_beside(
    persona: Persona, side_files: Mapping[str, bytes], baked: Baked = NOTHING
) -> dict[str, bytes]:
    """What lies beside the persona's weights, but for their index. Raises FormatError."""
    written = persona.output.dtype
    dtype = None if written == "base" else OUTPUTS[written].torch
    found = {name: folder.side_file(name, data, dtype, baked.config) for name, data in side_files.items()}
    return {**found, RECIPE: persona.recipe.to_bytes(), **baked.files}


def check(persona: Persona, base: Base) -> None:
    """Whether they go together; reads no weights. Raises BaseMismatch, UsageError."""
    if persona.base != base.manifest.id:
        raise BaseMismatch(f"the persona is for base {persona.base[:12]}, this is {base.manifest.id[:12]}")
    check_weights(persona.combine, {name: b.weight for name, b in persona.behaviours.items()})
