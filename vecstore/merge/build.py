"""Build: persona -> checkpoint, a deterministic function.

The same persona and engine give the same bytes on any machine, for any thread count and shard size. The result
has exactly the base's keys, and its side files. A folder appears whole or not at all. Each tensor of the base is
read and hashed once, however many vectors there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pv.registry import ids
from pv.registry.dtypes import OUTPUTS
from pv.registry.errors import BaseMismatch, IntegrityError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.side_files import RECIPE
from pv.vecstore.merge import folder
from pv.vecstore.merge.delta import evaluate, holdings, place, taus
from pv.vecstore.merge.folder import Finished, Written, write_folder
from pv.vecstore.merge.methods import check_weights, is_linear
from pv.vecstore.merge.plan import Operand, plan, sole
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, plan_shards
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import apply
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base, BaseTensor
from pv.vecstore.vectors.vector import Vector

__all__ = ["Built", "build", "build_id", "differing", "side_file", "table"]

BLOCK = 1 << 20  # elements rounded at a time: no result depends on it


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
    threads: int = 2,
    force: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Write the persona's checkpoint to the folder `out`.

    Raises BaseMismatch, CorruptPack, StorageError, and IntegrityError if a weight would leave the finite numbers.
    """
    _check(persona, base)
    beside = {name: side_file(name, data, persona) for name, data in side_files.items()}
    made = write_folder(
        out,
        plan_shards(persona, base.manifest, shard_bytes=shard_bytes),
        lambda shard: _finished(persona, base, vectors, shard, threads),
        lambda _: {**beside, RECIPE: persona.to_bytes()},
        force=force,
        progress=progress,
    )
    return Built(
        made.weights, made.files, made.tensors, made.touched, made.changed, made.nbytes, build_id(persona)
    )


def table(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, TensorRow]:
    """The tensor table of the checkpoint that `build` would write. Nothing is written; raises the same."""
    _check(persona, base)
    (shard,) = plan_shards(persona, base.manifest, shard_bytes=1 << 62)
    advance = counted(progress, shard.nbytes)
    rows: dict[str, TensorRow] = {}
    for one in _finished(persona, base, vectors, shard, threads):
        rows[one.name] = one.row
        advance(one.row.nbytes)
    return rows


def side_file(name: str, data: bytes, persona: Persona) -> bytes:
    """A side file as it goes beside the persona's weights. Raises FormatError."""
    written = persona.output.dtype
    return folder.side_file(name, data, None if written == "base" else OUTPUTS[written].torch)


def _check(persona: Persona, base: Base) -> None:
    if persona.base != base.manifest.id:
        raise BaseMismatch(f"the persona is for base {persona.base[:12]}, this is {base.manifest.id[:12]}")
    check_weights(persona.combine, {name: b.weight for name, b in persona.behaviours.items()})


def _finished(
    persona: Persona, base: Base, vectors: Mapping[str, Vector], shard: Shard, threads: int
) -> Iterator[Finished]:
    """A shard's tensors, in order."""

    def work(job: tuple[str, str]) -> Finished:
        float_environment.check()
        return _tensor(persona, base, vectors, *job)

    jobs = [(name, spec.dtype) for name, spec in shard.tensors.items()]
    yield from ordered_map(work, jobs, threads=threads)


def _tensor(persona: Persona, base: Base, vectors: Mapping[str, Vector], name: str, dtype: str) -> Finished:
    """One tensor of the result: the base's and what is added to it, or a captured one in its place."""
    own = base.tensor(name)
    row, raw, added, moved = own.row, own.raw, None, None
    if operands := plan(persona, holdings(vectors), name):
        if row.dtype not in FLOATS:
            raise IntegrityError(
                f"tensor {name!r} is {row.dtype}: a vector cannot be added to it",
                hint="`pv fsck --deep` says which vectors are damaged",
            )
        if (vector := _taken_whole(persona, operands, vectors, name)) is not None:
            row, raw = vector.kept(name, own)
            moved = differing(raw, row.dtype, own)
        else:
            added = evaluate(persona.combine, operands, taus(operands, vectors, name, own), place(own))
            moved = None if added is None else int(np.count_nonzero(added))
    if added is None and row.dtype == dtype:
        return Finished(name, row, raw, moved)

    out = np.empty(len(raw), storage_dtype(dtype))
    for start in range(0, len(raw), BLOCK):
        part = slice(start, start + BLOCK)
        x = to_f32(raw[part], row.dtype)
        if added is not None:
            x = apply(x, added[part])
        out[part] = round_to(
            x, dtype, persona.output.rounding, start=start, seed=persona.output.seed, name=name
        )
        if _left_the_finite(raw[part], row.dtype, out[part], dtype):
            raise IntegrityError(
                f"tensor {name!r} would hold infinite or undefined weights as {dtype}",
                hint="use smaller weights, or a wider --dtype",
            )
    return Finished(name, TensorRow(dtype, row.shape, ids.tensor_id(dtype, row.shape, out.data)), out, moved)


def _taken_whole(
    persona: Persona, operands: tuple[Operand, ...], vectors: Mapping[str, Vector], name: str
) -> Vector | None:
    """From engine 2 on: the vector whose kept tensor is written itself, because it is all that the persona adds.

    Not every such tensor is base + fp32 difference (docs/decisions/0014).
    """
    if persona.engine < 2 or not is_linear(persona.combine):
        return None
    only = sole(operands)
    return vectors[only] if only is not None and vectors[only].needs_base(name) else None


def differing(raw: Raw, dtype: str, own: BaseTensor) -> int:
    """How many elements have other bits than the base's, seen in fp32."""
    return int(np.count_nonzero(to_f32(raw, dtype).view(np.uint32) != own.f32.view(np.uint32)))


def _left_the_finite(before: Raw, dtype: str, out: Raw, written: str) -> bool:
    """Whether an element that was finite, in the base or as it was captured, no longer is."""
    strange = ~np.isfinite(to_f32(out, written))
    return bool(strange.any()) and bool(np.isfinite(to_f32(before[strange], dtype)).any())
