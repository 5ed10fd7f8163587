"""A build in shares: each weight file is written by whoever comes to it, and whoever finds them all makes the folder.

    <out>.pvparts/<plan>/model/             the weight files that are finished, each by one rename
    <out>.pvparts/<plan>/<file>.rows        of each, one line of JSON: what is in it
    <out>.pvparts/<plan>/.<file>.<..>.pvtmp/  files that are not finished (see unfinished.py)

Nothing here is a model: there is no index, and no config. Invariant: `model/` holds nothing but finished files, and
`<file>.rows` is written after its file; so whoever finds all rows may write the index and the side files, and give
`model/` its name, <out>, by one rename. Everybody who does that writes the same bytes, and only one can rename.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry import canonical
from pv.registry.disk import durable, tempfiles
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.seal import Seal, seal
from pv.registry.errors import FormatError, UsageError
from pv.registry.manifest import Spec, TensorRow
from pv.vecstore.checkpoints.checkpoint import INDEX
from pv.vecstore.checkpoints.fingerprint import table_id
from pv.vecstore.merge.folder import Compute, Written, kept_words, move_folder, write_shard
from pv.vecstore.merge.shards import Shard, index_bytes, plan_id
from pv.vecstore.merge.unfinished import sweep, unfinished
from pv.vecstore.merge.weight_file import Finished, Placed
from pv.vecstore.progress import Progress, counted

__all__ = ["Part", "Parts"]

SUFFIX = ".pvparts"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One weight file that is finished: its SHA-256, and what is in it."""

    file: str
    sha256: str
    finished: Mapping[str, Finished]


class Parts:
    """The shares of one build of `out`; `what` is the id of the build."""

    def __init__(self, out: Path, what: str, shards: tuple[Shard, ...]) -> None:
        self.out, self.shards, self.plan = out.resolve(), shards, plan_id(what, shards)
        self.folder = self.out.with_name(self.out.name + SUFFIX) / self.plan[:16]

    def write(
        self,
        number: int,
        compute: Compute,
        *,
        threads: int,
        progress: Progress | None,
        elsewhere: Mapping[str, Placed] | None = None,
    ) -> Part:
        """Write the weight file `number` (1 is the first), whole or not at all. One that is there is only hashed.

        Raises UsageError where nothing can be written, and StorageError.
        """
        shard = self.shards[number - 1]
        advance = counted(progress, shard.nbytes)
        with durable.storage_errors(self.folder):
            if (there := self._sound(shard)) is not None:
                advance(shard.nbytes)
                return there
            self._make()
            beside, finished = self.folder / shard.file, dict[str, Finished]()
            sweep(beside, self.plan)
            with unfinished(beside, self.plan) as work:
                try:
                    digest = write_shard(
                        work.new / shard.file, shard, compute, work.journal, elsewhere or {}, finished, Counter(),
                        threads=threads, advance=advance,
                    )  # fmt: skip
                except KeyboardInterrupt as error:
                    if work.journal is not None and work.journal.here:
                        error.add_note(kept_words(len(work.journal.here)))
                    raise
                part = Part(shard.file, digest, finished)
                with contextlib.suppress(
                    FileNotFoundError
                ):  # another has written it, and the last one gathered
                    (work.new / shard.file).rename(self._model / shard.file)
                    durable.step(f"part {number} in place")
                    durable.fsync_dir(self._model)
                    durable.write_file(self._rows(shard), self._document(part))
            return part

    def missing(self) -> list[int]:
        """The numbers of the weight files that are not finished."""
        return [number for number, shard in enumerate(self.shards, 1) if self._part(shard) is None]

    def strangers(self) -> int:
        """How many weight files beside these are of another build: another persona, or another number of shards."""
        there = self.folder.parent.glob("*/model/*.safetensors")
        return sum(path.parent.parent != self.folder for path in there)

    def part(self, number: int) -> Part | None:
        """What is known of a finished weight file."""
        return self._part(self.shards[number - 1])

    def gather(self, beside: Callable[[str], Mapping[str, bytes]], *, force: bool) -> Written | None:
        """Make the folder of the parts; None if one is missing, or another process has just done so.

        Raises UsageError, StorageError.
        """
        parts = [self._part(shard) for shard in self.shards]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        finished = {name: one for part in found for name, one in part.finished.items()}
        weights = table_id({name: one.row for name, one in finished.items()})
        others = dict(beside(weights))
        if len(self.shards) > 1:
            others[INDEX] = index_bytes(self.shards)
        try:
            sealed = self._complete(others)
            move_folder(self._model, self.out, force=force)
        except (FileNotFoundError, UsageError):
            if self._model.exists():
                raise
            return None
        self.discard()
        return Written(
            weights,
            {part.file: part.sha256 for part in found},
            len(finished),
            sum(one.moved is not None for one in finished.values()),
            sum(one.moved or 0 for one in finished.values()),
            sum(shard.nbytes for shard in self.shards),
            finished=finished,
            seal=sealed,
        )

    def discard(self) -> None:
        """Delete all of it."""
        tempfiles.delete(self.folder)
        with contextlib.suppress(OSError):  # shares of another build may be in it
            self.folder.parent.rmdir()

    def _complete(self, others: Mapping[str, bytes]) -> Seal:
        """Put the other files beside the weights. Raises FileNotFoundError if it is no longer there."""
        with durable.storage_errors(self.folder):
            for name, data in others.items():
                ready = self.folder / durable.tmp_name(name)
                durable.write_file(ready, data)
                ready.rename(self._model / name)
            durable.fsync_dir(self._model)
            sealed = seal(self._model)
        if strange := sealed.keys() - {*others, *(shard.file for shard in self.shards)}:
            raise UsageError(
                f"{self._model} holds {min(strange)}, which is no part of the build", hint="move it elsewhere"
            )
        return sealed

    @property
    def _model(self) -> Path:
        return self.folder / "model"

    def _make(self) -> None:
        try:
            durable.make_dirs(self._model)
        except OSError as error:
            raise UsageError(
                f"cannot make {self._model}: {error.strerror}", hint="name another folder with -o"
            ) from None

    def _sound(self, shard: Shard) -> Part | None:
        """A finished weight file, once it has been hashed."""
        if (part := self._part(shard)) is not None:
            with (self._model / shard.file).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == part.sha256:
                    return part
        return None

    def _part(self, shard: Shard) -> Part | None:
        """A finished weight file: what its rows say, if they are of this plan and the file has the size for it."""
        try:
            document = canonical.loads(read_bounded(self._rows(shard)), what="rows")
            size = (self._model / shard.file).stat().st_size
        except (OSError, FormatError):
            return None
        if not isinstance(document, dict) or document.pop("seal", None) != _seal(document):
            return None
        match document:
            case {"plan": self.plan, "file": shard.file, "sha256": str(digest), "tensors": dict(tensors)}:
                finished = {name: _finished(name, value) for name, value in tensors.items()}
                specs = {name: Spec(one.row.dtype, one.row.shape) for name, one in finished.items()}
                if specs == dict(shard.tensors) and size == len(shard.head) + shard.nbytes:
                    return Part(shard.file, digest, finished)
        return None

    def _rows(self, shard: Shard) -> Path:
        return self.folder / f"{shard.file}.rows"

    def _document(self, part: Part) -> bytes:
        said = {
            "schema": SCHEMA,
            "plan": self.plan,
            "file": part.file,
            "sha256": part.sha256,
            "tensors": {name: [one.row.to_json(), one.moved] for name, one in part.finished.items()},
        }
        return canonical.dumps({**said, "seal": _seal(said)}) + b"\n"


def _finished(name: str, value: Any) -> Finished:
    match value:
        case [row, (int() | None) as moved]:
            return Finished(name, TensorRow.from_json(row, name), moved)
    raise FormatError(f"{name[:80]!r}: a tensor is [[dtype, shape, id], moved]")


def _seal(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(b"pv:rows:1\n" + canonical.dumps(dict(said))).hexdigest()
