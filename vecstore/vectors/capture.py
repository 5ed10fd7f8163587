"""Capture: a fine-tuned checkpoint kept bit for bit, as an `exact` vector against its base."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pv.registry.errors import CheckpointRefused, UsageError
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.align import Aligned, align
from pv.vecstore.checkpoints.checkpoint import Checkpoint, read_raw
from pv.vecstore.checkpoints.fingerprint import row_of
from pv.vecstore.packs.write import Part
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors.array import Raw
from pv.vecstore.tensors.formats import FLOATS, all_finite
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.encode import write_vector
from pv.vecstore.vectors.vector import reference_to

__all__ = ["Inspect", "capture"]

Inspect = Callable[[Aligned, dict[str, TensorRow]], None]


def capture(
    checkpoint: Checkpoint,
    base: Base,
    packs: PackStore,
    *,
    smallest: bool = False,
    inspect: Inspect | None = None,
    strange: Callable[[str], None] | None = None,
    threads: int = 2,
    progress: Progress | None = None,
) -> VectorManifest:
    """Keep a fine-tuned checkpoint; returns the manifest of its vector.

    Frozen tensors are left out. `inspect` sees the checkpoint and its table of tensors before anything is written,
    and may raise; `strange` is told of a tensor with numbers that are not finite. Raises
    CheckpointRefused for a checkpoint that does not fit the base, UsageError for one that equals it.
    """
    aligned = align(checkpoint, base.manifest)
    names = sorted(aligned.specs)
    advance = counted(progress, 2 * sum(aligned.specs[name].nbytes for name in names))

    changed: list[str] = []
    rows = dict(base.manifest.tensors)
    for name, row in zip(
        names, ordered_map(lambda n: row_of(aligned, n), names, threads=threads), strict=True
    ):
        rows[name] = row
        if row != base.manifest.tensors[name]:
            changed.append(name)
        else:
            advance(row.nbytes)
        advance(row.nbytes)
    if not changed:
        raise UsageError(
            f"{checkpoint.where} is the base itself: there is nothing to commit",
            hint="name the fine-tuned checkpoint: pv commit DIR --as NAME",
        )
    _check_floats(changed, aligned, base.manifest)
    if inspect:
        inspect(aligned, rows)
    for _ in ordered_map(base.tensor, changed, threads=1):
        pass  # a delta against wrong bytes could not be decoded again

    odd: set[str] = set()
    parts = [_exact_part(aligned, base, name, odd.add) for name in changed]
    made = write_vector(
        parts, base.manifest.id, "exact", packs, smallest=smallest, threads=threads, progress=advance
    )
    if strange:
        for name in sorted(odd):
            strange(name)
    return made


def _exact_part(aligned: Aligned, base: Base, name: str, odd: Callable[[str], None]) -> Part:
    spec, own = aligned.specs[name], base.manifest.tensors[name]

    def read(start: int, stop: int) -> Raw:
        raw = read_raw(aligned, name, start, stop)
        if not all_finite(raw, spec.dtype):
            odd(name)
        return raw

    row = TensorRow(spec.dtype, spec.shape, "")
    return Part(
        name, "ft", spec.dtype, spec.shape, read, reference_to(own, {"ft": row}, partial(base.raw, name))
    )


def _check_floats(changed: list[str], checkpoint: Aligned, base: BaseManifest) -> None:
    stuck = [name for name in changed if base.tensors[name].dtype not in FLOATS]
    if stuck:
        named = ", ".join(f"{name!r} ({base.tensors[name].dtype})" for name in stuck[:5])
        raise CheckpointRefused(
            f"{checkpoint.where} changes {named}: a vector moves {', '.join(sorted(FLOATS))} tensors only",
            hint="put the base's own tensor there, if the change does not matter",
        )
