"""diff of checkpoints: two folders that pv may never have seen, or one against the base of a revision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import CheckpointRefused, UsageError
from pv.vecstore.checkpoints.checkpoint import Checkpoint, Weights
from pv.vecstore.checkpoints.compare import Difference
from pv.vecstore.checkpoints.object_store import ObjectFolder, is_store_url
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.checkpoints.together import Together, together
from pv.vecstore.merge.checkpoints import Measured, compare_weights
from pv.vecstore.merge.diff import WeightDiff
from pv.vecstore.merge.heads import Head, HeadCount
from pv.vecstore.merge.movement import Sums, total
from pv.vecstore.merge.spectrum import Spectrum
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.revision import Revision
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.vectors.base import Base

__all__ = ["CheckpointDiff", "diff_checkpoints"]

Side = str | PathLike[str] | Revision
SHOWN = 3


@dataclass(frozen=True, slots=True)
class CheckpointDiff:
    """Two checkpoints, as they are on disk. Falsy if nothing differs that was looked at.

    `weights` has every tensor that was compared, moved or not, but for those in `strange` (a or b is not finite there):
    they are in no sum. `apart` is what could not be compared, or not wholly; `files` what differs beside the weights.
    """

    a: str
    b: str
    weights: WeightDiff
    sums: Sums
    dtypes: Mapping[tuple[str, str], int]
    apart: tuple[Difference, ...] = ()
    strange: tuple[Difference, ...] = ()
    files: tuple[Difference, ...] = ()
    heads: tuple[Head, ...] = ()
    spectra: tuple[Spectrum, ...] = ()
    notes: tuple[str, ...] = ()
    differing: int = 0
    """Tensors whose values differ, those in `strange` among them."""

    def __bool__(self) -> bool:
        return bool(self.differing or self.apart or self.files or self.converted)

    @property
    def converted(self) -> int:
        """Tensors that have another dtype in b."""
        return sum(count for (a, b), count in self.dtypes.items() if a != b)

    def to_json(self, *, top: int = 10) -> dict[str, Any]:
        moved = self.weights
        return {
            "weights_of": "checkpoints",
            "a": self.a,
            "b": self.b,
            "same": not self,
            "total": moved.total.to_json(),
            "norm_a": self.sums.a2**0.5,
            "norm_b": self.sums.b2**0.5,
            "cosine": self.sums.cosine,
            "layers": [one.to_json() for one in moved.by_layer()],
            "modules": [one.to_json() for one in moved.by_module()],
            "classes": [one.to_json() for one in moved.by_class()],
            "tensors": [one.to_json() for one in moved.largest(top)],
            "heads": [one.to_json() for one in self.heads],
            "spectra": [one.to_json() for one in self.spectra],
            "dtypes": [{"a": a, "b": b, "tensors": count} for (a, b), count in self.dtypes.items()],
            "apart": [_line(one) for one in self.apart],
            "not_finite": [_line(one) for one in self.strange],
            "files": [_line(one) for one in self.files],
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.diff_page import fragment

        return fragment(self)


def diff_checkpoints(
    a: Side,
    b: Side,
    *,
    heads: bool = False,
    spectra: bool = False,
    threads: int | None = None,
    progress: Report | None = None,
) -> CheckpointDiff:
    """Compare the weights of two checkpoints, folders or addresses; a Revision stands for its base. Needs no registry.

    Raises NotFoundError, CheckpointRefused, FormatError, MissingBase; UsageError if they have no tensor in common.
    """
    with _opened(a) as (ours, first, mine), _opened(b) as (theirs, second, other):
        both = together(ours, theirs)
        if not both.shared:
            raise UsageError(
                f"{first} and {second} have no tensor in common: {_few(both)}",
                hint="pv diff compares weights by name and shape: are both checkpoints of one architecture?",
            )
        count = _head_count(mine, other, first, second) if heads else None
        measured = compare_weights(
            ours, both, heads=count, spectra=spectra, threads=thread_count(threads),
            progress=stage(progress, "comparing weights"),
        )  # fmt: skip
    return _gathered(first, second, both, measured, tuple(_files(mine, other)), heads=heads)


@contextmanager
def _opened(side: Side) -> Iterator[tuple[Weights, str, Mapping[str, bytes]]]:
    """(weights, how it is called, the files beside them)"""
    if isinstance(side, Revision):
        with _base(side) as base:
            yield base.weights, f"the base of {side.name}", side.registry.base_files(side.commit)
        return
    where = ObjectFolder(str(side)) if is_store_url(side) else Path(side).expanduser().absolute()
    with Checkpoint(where) as checkpoint:
        yield checkpoint, str(where), _beside(where)


def _beside(where: Path | ObjectFolder) -> Mapping[str, bytes]:
    """What lies beside the weights, if it can be taken for what belongs to them; a lone file has nothing."""
    lone = where.is_file() if isinstance(where, Path) else where.file is not None
    with suppress(CheckpointRefused, OSError):
        return {} if lone else side_files(where)
    return {}


@contextmanager
def _base(revision: Revision) -> Iterator[Base]:
    from pv.vecstore.repo.opening import opened

    with opened(revision.registry, revision.commit) as at:
        yield at.base


def _head_count(a: Mapping[str, bytes], b: Mapping[str, bytes], first: str, second: str) -> HeadCount:
    found = HeadCount.of(a.get("config.json"), first)
    if (other := HeadCount.of(b.get("config.json"), second)) != found:
        raise UsageError(
            f"{first} has {found.heads} heads ({found.shared} of keys and values), {second} has {other.heads} "
            f"({other.shared})",
            hint="leave --heads out: their heads are not the same parts of the weights",
        )
    return found


def _gathered(
    first: str,
    second: str,
    both: Together,
    measured: list[Measured],
    files: tuple[Difference, ...],
    *,
    heads: bool,
) -> CheckpointDiff:
    numbers = [(one, one.sums) for one in measured if one.sums is not None]
    finite = [(one, sums) for one, sums in numbers if sums.finite]
    other = [Difference(one.name, "has other bytes") for one in measured if one.sums is None and not one.same]
    strange = (Difference(one.name, _where(sums, same=one.same)) for one, sums in numbers if not sums.finite)
    found = tuple(head for one, _ in finite for head in one.heads)
    notes = []
    if first == second:
        notes.append("both are the same checkpoint")
    if heads and not found:
        notes.append("no heads: there is no q_proj, k_proj, v_proj or o_proj that splits evenly")
    return CheckpointDiff(
        first,
        second,
        WeightDiff(tuple(sums.movement(one.name) for one, sums in finite)),
        total([sums for _, sums in finite]),
        both.dtypes(),
        (*both.apart, *other),
        tuple(strange),
        files,
        found,
        tuple(one.spectrum for one, _ in finite if one.spectrum is not None),
        tuple(notes),
        sum(1 for one in measured if not one.same),
    )


def _where(sums: Sums, *, same: bool) -> str:
    sides = [name for name, norm in (("a", sums.a2), ("b", sums.b2)) if not math.isfinite(norm)]
    bytes_ = " with the same bytes" if same else ""
    return f"holds NaN or infinity in {' and '.join(sides)}{bytes_}: it is in no sum"


def _files(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> Iterator[Difference]:
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            yield Difference(name, f"is only in {'a' if name in a else 'b'}")
        elif a[name] != b[name]:
            yield Difference(name, "differs")


def _few(both: Together) -> str:
    more = f" and {len(both.apart) - SHOWN} more" if len(both.apart) > SHOWN else ""
    return "; ".join(map(str, both.apart[:SHOWN])) + more


def _line(one: Difference) -> dict[str, str]:
    return {"name": one.name, "what": one.what}
