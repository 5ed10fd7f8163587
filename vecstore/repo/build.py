"""build: a revision to a checkpoint folder, kept or temporary; what it gave is noted under the build's id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry import layout
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.durable import TMP_SUFFIX
from pv.registry.errors import BaseMismatch, FormatError, StorageError, UsageError
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.fingerprint import fingerprint
from pv.vecstore.checkpoints.side_files import RECIPE
from pv.vecstore.merge.baked import NOTHING, Baked
from pv.vecstore.merge.build import Built, build_id
from pv.vecstore.merge.build import build as write_build
from pv.vecstore.merge.folder import check_free
from pv.vecstore.merge.model_trim import settle, trimming
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, plan_shards
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.bake import ToBuild, to_build
from pv.vecstore.repo.known_folders import already_built, elsewhere, note_folder
from pv.vecstore.repo.opening import Opened, opened

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = [
    "Build",
    "BuildPlan",
    "as_asked",
    "build",
    "plan_build",
    "record_build",
    "temporary_checkpoint",
    "usable",
]


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """The weight files that a build would write."""

    output: Path
    commit: str
    shards: tuple[Shard, ...]

    def to_json(self) -> dict[str, Any]:
        sizes = {shard.file: shard.nbytes for shard in self.shards}
        return {"dry_run": True, "output": str(self.output), "commit": self.commit, "sizes": sizes}


@dataclass(frozen=True, slots=True)
class Build:
    """A checkpoint that was written, or was there `already`.

    `recorded` is False where the registry cannot be written to. `baked` are the steering terms that are in the weights,
    `unbaked` says of the others why they are not; `notes` are both in words.
    """

    output: Path
    commit: str
    persona: Persona
    built: Built
    recorded: bool
    already: bool = False
    baked: tuple[str, ...] = ()
    unbaked: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        made = self.built
        return {
            "output": str(self.output),
            "commit": self.commit,
            "build": made.build,
            "weights": made.weights,
            "files": dict(made.files),
            "tensors": made.tensors,
            "touched": made.touched,
            "bytes": made.nbytes,
            "already_built": self.already,
            "resumed": made.resumed,
            "copied": made.copied,
            "baked": list(self.baked),
            "unbaked": dict(self.unbaked),
            "notes": list(self.notes),
        }


def plan_build(
    revision: Revision,
    output: Path,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    bake: bool = True,
) -> BuildPlan:
    """What `build` would write. Reads no weights; raises what can be known without them."""
    persona = revision.persona.with_output(dtype=dtype, rounding=rounding)
    folder = usable(output)
    try:
        check_free(folder.resolve(), force=force)
    except UsageError:
        if not _says_it_is(folder, persona):  # which `build` looks into, and leaves as it is
            raise
    with opened(revision.registry, revision.commit, [persona]):
        wanted = to_build(revision.registry, revision.commit, persona, bake=bake)
        return BuildPlan(folder, revision.commit, wanted.shards(revision.base, shard_bytes=shard_bytes))


def _says_it_is(folder: Path, persona: Persona) -> bool:
    try:
        return read_bounded(folder / RECIPE) == persona.recipe.to_bytes()
    except (OSError, FormatError):
        return False


def build(
    revision: Revision,
    output: Path,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    bake: bool = True,
    threads: int,
    progress: Report | None = None,
) -> Build:
    """Write the revision's checkpoint to a new folder, or find that it is there already.

    Steering terms are baked into it where that is exact, and listed where it is not; not `bake`: all are listed.
    Raises UsageError, MissingBase, IntegrityError.
    """
    registry, commit = revision.registry, revision.commit
    persona = revision.persona.with_output(dtype=dtype, rounding=rounding)
    folder = usable(output)
    wanted = to_build(registry, commit, persona, bake=bake)
    shards = wanted.shards(revision.base, shard_bytes=shard_bytes)
    baked = wanted.beside(shards)

    def already() -> Build | None:
        there = already_built(
            registry, commit, wanted.persona, revision.base, shards, folder, baked=baked, threads=threads,
            progress=progress,
        )  # fmt: skip
        return (
            None
            if there is None
            else as_asked(registry, folder, commit, persona, wanted, there, already=True)
        )

    if (found := already()) is not None:
        return found
    with opened(registry, commit, [persona]) as at:
        try:
            made = _written(
                registry,
                commit,
                wanted.persona,
                at,
                shards,
                folder,
                baked,
                threads,
                force,
                "building",
                progress,
            )
        except UsageError:
            if not _says_it_is(folder, persona):
                raise
            if (found := already()) is not None:  # another process was faster
                return found
            raise
        if not _is_scratch(folder):
            note_folder(registry, folder, wanted.persona, at.base.manifest, at.manifests, shards, made, baked)
    return as_asked(registry, folder, commit, persona, wanted, made)


def as_asked(
    registry: Registry,
    folder: Path,
    commit: str,
    persona: Persona,
    wanted: ToBuild,
    made: Built,
    *,
    already: bool = False,
) -> Build:
    """A build of `persona`, noted in the registry, with what became of its steering terms. Raises BaseMismatch."""
    recorded = record_build(registry, made, wanted.terms)
    return Build(folder, commit, persona, made, recorded, already, wanted.terms, wanted.unbaked, wanted.notes)


def _written(
    registry: Registry,
    commit: str,
    persona: Persona,
    at: Opened,
    shards: tuple[Shard, ...],
    folder: Path,
    baked: Baked,
    threads: int,
    force: bool,
    what: str,
    progress: Report | None,
) -> Built:
    """A build that copies what it can; `what` is done, in words."""
    settled = settle(persona, at.base, at.vectors, threads=threads, progress=trimming(persona, progress))
    with elsewhere(registry, persona, at.base.manifest, at.manifests, shards, folder, baked) as placed:
        return write_build(
            settled,
            at.base,
            at.vectors,
            folder,
            side_files=registry.base_files(commit),
            shards=shards,
            threads=threads,
            force=force,
            progress=stage(progress, what),
            elsewhere=placed,
            baked=baked,
        )


def _is_scratch(folder: Path) -> bool:
    """Whether it will be gone soon, as a push's is."""
    return any(above.name.endswith(TMP_SUFFIX) for above in folder.resolve().parents)


def usable(folder: Path) -> Path:
    """`folder`, if it can be made: nothing above it is a file, a link to itself, or a registry. Raises UsageError."""
    try:
        real = folder.resolve()
    except (OSError, RuntimeError):  # which of the two depends on Python's version
        raise UsageError(f"{folder}: its symbolic links form a loop", hint="name another with -o") from None
    for above in (real, *real.parents):
        if above.name.endswith(TMP_SUFFIX):  # scratch, as a push has it in there
            break
        if above.name == layout.FOLDER and (above / "history.git").is_dir():
            raise UsageError(f"{folder} is inside the registry {above}", hint="name a folder outside with -o")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder", hint="name a new folder with -o")
    for above in folder.parents:
        if above.exists() and not above.is_dir():
            raise UsageError(
                f"{above} is a file, so nothing can be in it", hint="name another folder with -o"
            )
    return folder


@contextmanager
def temporary_checkpoint(
    registry: Registry,
    commit: str,
    persona: Persona,
    *,
    what: str = "",
    threads: int = 2,
    progress: Report | None = None,
    packs: PackStore | None = None,
) -> Iterator[Path]:
    """A folder that holds the persona's checkpoint while the block runs. `packs`: see `opened`; `what` is built.

    A build that was kept is not made again. An empty persona whose base lies in a folder is that folder, once its
    bytes have been checked. Steering is not in it: whoever loads the model applies the terms.
    """
    persona = persona.unsteered
    with ExitStack() as held:
        folder = held.enter_context(registry.builds.using(build_id(persona)))
        if folder is None:
            folder = _made(registry, commit, persona, held, what, threads, progress, packs)
        yield folder


def _made(
    registry: Registry,
    commit: str,
    persona: Persona,
    held: ExitStack,
    what: str,
    threads: int,
    progress: Report | None,
    packs: PackStore | None,
) -> Path:
    """The folder of a checkpoint that was not there; `held` keeps it."""
    making = held.enter_context(registry.builds.making(build_id(persona)))
    with opened(registry, commit, [persona], packs=packs) as at:
        origin = at.base.checkpoint
        # Beside the weights of a hub, or where a base has moved to, lies what nobody has looked at.
        local = origin is not None and at.base.manifest.origin.get("path") == str(origin.path)
        plain = not persona.behaviours and persona.output.dtype == "base"
        if plain and local and origin is not None and origin.path.is_dir():
            update = stage(progress, "checking the base")
            table = fingerprint(origin, threads=threads, progress=update)
            if table == dict(at.base.manifest.tensors):
                return origin.path

        shards = plan_shards(persona, at.base.manifest)

        def write() -> Built:
            words = f"building {what}".rstrip()
            return _written(
                registry, commit, persona, at, shards, making.folder, NOTHING, threads, False, words, progress
            )

        try:
            made = write()
        except StorageError:  # a full disk, perhaps of builds that were kept
            if not registry.builds.clear():
                raise
            made = write()
        record_build(registry, made)
        if packs is None and making.keep(made.weights):  # packs hold what may never be committed
            note_folder(registry, making.folder, persona, at.base.manifest, at.manifests, shards, made)
    return making.folder


def record_build(registry: Registry, made: Built, baked: Sequence[str] = ()) -> bool:
    """Note the weights' id under the build id; False where the registry cannot be written to.

    Raises BaseMismatch if an earlier build gave others, with the same steering terms `baked` into it: another pv may
    know more places for biases.
    """
    record = registry.record(made.build)
    known, before = record.get("weights"), record.get("baked", [])
    if isinstance(known, str) and known != made.weights and before == list(baked):
        raise BaseMismatch(
            f"build {made.build[:12]} gave weights {made.weights[:12]}, an earlier one gave {known[:12]}",
            hint=f"delete {registry.record_path(made.build)} and build again, or, of a folder that is built, "
            "`pv verify DIR --recompute`; if it comes back, report it",
        )
    if known != made.weights:
        try:
            more = {"baked": list(baked)} if baked or before else {}
            registry.update_record(made.build, {"weights": made.weights, **more})
        except StorageError:  # the build is whole all the same, and a record can be made again
            return False
    return True
