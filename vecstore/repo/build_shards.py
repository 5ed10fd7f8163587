"""build, in shards: one weight file by each process, wherever it runs; the last one makes the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.vecstore.merge.bias import compute_baked
from pv.vecstore.merge.build import as_built, build_id, check, files_beside
from pv.vecstore.merge.folder import check_free
from pv.vecstore.merge.model_trim import settle, trimming
from pv.vecstore.merge.parts import Part, Parts
from pv.vecstore.merge.shards import Shard
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.bake import ToBuild, to_build
from pv.vecstore.repo.build import Build, BuildPlan, as_asked, usable
from pv.vecstore.repo.known_folders import already_built, elsewhere, note_folder
from pv.vecstore.repo.opening import opened

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["ShardBuild", "ShardedBuild", "build_shard", "plan_shard"]


@dataclass(frozen=True, slots=True)
class ShardBuild:
    """One weight file of a build: `number` of `shards`. `missing` are the numbers of those that are not written yet.

    `made` is the whole build, once there is nothing missing; None where another process has just made it. `strangers`
    is the number of weight files that wait beside these and are of another build.
    """

    output: Path
    commit: str
    build: str
    number: int
    shards: tuple[Shard, ...]
    sha256: str
    missing: tuple[int, ...]
    made: Build | None
    strangers: int = 0

    @property
    def shard(self) -> Shard:
        return self.shards[self.number - 1]

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.output),
            "commit": self.commit,
            "build": self.build,
            "shard": self.number,
            "shards": len(self.shards),
            "file": self.shard.file,
            "sha256": self.sha256,
            "tensors": len(self.shard.tensors),
            "bytes": self.shard.nbytes,
            "missing": list(self.missing),
            "weights": None if self.made is None else self.made.built.weights,
        }


@dataclass(frozen=True, slots=True)
class ShardedBuild:
    """A build whose weight files are written one by one, by processes that know nothing of each other."""

    revision: Revision
    persona: Persona
    wanted: ToBuild
    folder: Path
    shards: tuple[Shard, ...]

    @property
    def build(self) -> str:
        """Its id."""
        return build_id(self.wanted.persona)

    @property
    def parts(self) -> Parts:
        return Parts(self.folder, self.build, self.shards)

    def there(self, *, threads: int, progress: Report | None = None) -> Build | None:
        """The whole build, if it is in its folder already. What is left of its shares goes."""
        registry, commit = self.revision.registry, self.revision.commit
        found = already_built(
            registry, commit, self.wanted.persona, self.revision.base, self.shards, self.folder,
            baked=self.wanted.beside(self.shards), threads=threads, progress=progress,
        )  # fmt: skip
        if found is None:
            return None
        self.parts.discard()
        return as_asked(registry, self.folder, commit, self.persona, self.wanted, found, already=True)

    def write(self, number: int, *, force: bool, threads: int, progress: Report | None = None) -> Part:
        """Write one weight file. The registry is only read."""
        check_free(self.folder.resolve(), force=force)
        registry, persona, parts = self.revision.registry, self.wanted.persona, self.parts
        baked = self.wanted.beside(self.shards)
        update = stage(progress, f"building shard {number} of {len(self.shards)}")
        with opened(registry, self.revision.commit, [persona]) as at:
            check(persona, at.base)
            trim = trimming(persona, progress)
            settled = settle(persona, at.base, at.vectors, threads=threads, progress=trim)
            with elsewhere(
                registry,
                persona,
                at.base.manifest,
                at.manifests,
                (self.shards[number - 1],),
                self.folder,
                baked,
            ) as placed:
                return parts.write(
                    number,
                    lambda name, dtype, write: compute_baked(
                        settled, at.base, at.vectors, baked, name, dtype, write
                    ),
                    threads=threads,
                    progress=update,
                    elsewhere=placed,
                )

    def gather(self, *, force: bool) -> Build | None:
        """Make the folder of the weight files; None if one is missing, or another process has just done so."""
        registry, commit = self.revision.registry, self.revision.commit
        persona, baked = self.wanted.persona, self.wanted.beside(self.shards)

        def beside(_: str) -> Mapping[str, bytes]:
            return files_beside(persona, registry.base_files(commit), baked)

        written = self.parts.gather(beside, force=force)
        if written is None:
            return None
        made = as_built(written, persona)
        vectors = {vector: registry.vector(commit, vector) for vector in persona.task_vectors}
        note_folder(registry, self.folder, persona, self.revision.base, vectors, self.shards, made, baked)
        return as_asked(registry, self.folder, commit, self.persona, self.wanted, made)


def plan_shard(
    revision: Revision,
    output: Path,
    number: int,
    count: int,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    bake: bool = True,
) -> BuildPlan:
    """What `build_shard` would write. Reads no weights; raises what can be known without them."""
    whole = _sharded(revision, output, number, count, dtype, rounding, bake)
    with opened(revision.registry, revision.commit, [whole.persona]):
        return BuildPlan(whole.parts.folder / "model", revision.commit, (whole.shards[number - 1],))


def build_shard(
    revision: Revision,
    output: Path,
    number: int,
    count: int,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    force: bool = False,
    bake: bool = True,
    threads: int,
    progress: Report | None = None,
) -> ShardBuild:
    """Write weight file `number` of the `count` of a revision's build; make the checkpoint if that was the last.

    Until then nothing is at `output`: the files wait beside it. Raises UsageError, MissingBase, IntegrityError.
    """
    whole = _sharded(revision, output, number, count, dtype, rounding, bake)
    shard, missing = whole.shards[number - 1], tuple[int, ...]()
    made = whole.there(threads=threads, progress=progress)
    if made is None:
        part = whole.write(number, force=force, threads=threads, progress=progress)
        digest, made = part.sha256, whole.gather(force=force)
        if made is None and number in (missing := tuple(whole.parts.missing())):
            made, missing = whole.there(threads=threads, progress=progress), ()
            if made is None:
                raise UsageError(
                    f"{whole.parts.folder} was deleted while shard {number} was written", hint="run it again"
                )
    else:
        digest = made.built.files[shard.file]
    strangers = whole.parts.strangers() if missing else 0
    return ShardBuild(
        whole.folder, revision.commit, whole.build, number, whole.shards, digest, missing, made, strangers
    )


def _sharded(
    revision: Revision,
    output: Path,
    number: int,
    count: int,
    dtype: str | None,
    rounding: str | None,
    bake: bool,
) -> ShardedBuild:
    if not 1 <= number <= count:
        raise UsageError(
            f"there is no shard {number} of {count}",
            hint=f"--shards 1/{count} is the first, {count}/{count} the last",
        )
    persona = revision.persona.with_output(dtype=dtype, rounding=rounding)
    wanted = to_build(revision.registry, revision.commit, persona, bake=bake)
    return ShardedBuild(revision, persona, wanted, usable(output), wanted.shards(revision.base, count=count))
