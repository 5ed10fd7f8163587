"""verify: is a checkpoint on disk a revision's build, bit for bit, and nothing beside it that would change it?

Of the weights, the id of the tensor table is compared, so shards and file names do not matter. If the build was made
here before, its record tells the id; otherwise, and to name the tensors that differ, every tensor is computed again
and none is written. Of the files beside them, bytes are compared (`checkpoints.beside`).

Without a revision it is looked for: among the builds that were recorded, then by the persona.json beside the weights,
then HEAD. A folder that `pv export` wrote is held against that export.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.disk.bounded import read_bounded
from pv.registry.dtypes import DTYPES
from pv.registry.errors import FormatError, NotFoundError, UnknownRevision, UsageError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.beside import beside
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.compare import Difference, differences
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id
from pv.vecstore.merge.build import build_id, files_beside, table
from pv.vecstore.merge.model_trim import settle, trimming
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.bake import ToBuild, says_baked, to_build
from pv.vecstore.repo.commits import named_history
from pv.vecstore.repo.exported import Captured, Exported, alone, captured
from pv.vecstore.repo.known_builds import KnownBuild, build_ids, known_builds, same_recipe
from pv.vecstore.repo.opening import opened
from pv.vecstore.vectors.origin import base_in_words

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Verdict", "find_and_verify", "verify"]

RECIPE = "persona.json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `revision` (`commit`) builds to, against what is there. `found` and `expected` are ids of tensor tables.

    `recorded`: the expected one was known, not computed. `differing` says of each tensor that is not the same what it
    is, `files` the same of the files beside the weights (None: they were not compared). `known` are the revisions
    whose build these weights are, `base` is set if they are the base's; `dtype` is the output dtype that would
    explain every difference. `export` is set if it says that it is an export of a behaviour, and was held against that.
    """

    commit: str
    revision: str
    build: str
    found: str
    expected: str
    recorded: bool
    tensors: int
    differing: tuple[Difference, ...]
    files: tuple[Difference, ...] | None
    known: tuple[KnownBuild, ...]
    base: str | None = None
    dtype: str | None = None
    export: Exported | None = None

    @property
    def weights_same(self) -> bool:
        return self.found == self.expected

    @property
    def same(self) -> bool:
        return self.weights_same and not self.files

    def to_json(self) -> dict[str, Any]:
        files = None if self.files is None else [{"file": one.name, "what": one.what} for one in self.files]
        return {
            "commit": self.commit,
            "revision": self.revision,
            "same": self.same,
            "weights_same": self.weights_same,
            "is_base": self.base is not None,
            "export": None if self.export is None else self.export.to_json(),
            "known": [one.to_json() for one in self.known],
            "build": self.build,
            "found": self.found,
            "expected": self.expected,
            "recorded": self.recorded,
            "tensors": self.tensors,
            "differing": [{"tensor": one.name, "what": one.what} for one in self.differing],
            "files": files,
            "side_files": [one.name for one in self.files or ()],
        }


def find_and_verify(registry: Registry, checkpoint: Path, revision: str | None, **settings: Any) -> Verdict:
    """`verify` against a revision by name, or against the one that is found. Raises UsageError if they are swapped."""
    from pv.vecstore.repo.revision import Revision

    if revision is None:
        return verify(registry, checkpoint, None, **settings)
    try:
        commit = registry.resolve(revision)
    except UnknownRevision as error:
        folder = checkpoint.parent / Path(revision).expanduser()
        if checkpoint.exists() or not folder.exists():
            raise error
        raise UsageError(
            f"{revision} is a {'folder' if folder.is_dir() else 'file'}, not a revision: the checkpoint comes first",
            hint=f"pv verify {revision} {_revision_in(registry, checkpoint.name)}".rstrip(),
        ) from error
    return verify(registry, checkpoint, Revision(registry, commit, revision), **settings)


def _revision_in(registry: Registry, name: str) -> str:
    try:
        registry.resolve(name)
    except NotFoundError:
        return ""
    return name


def verify(
    registry: Registry,
    checkpoint: Path,
    revision: Revision | None,
    *,
    weights_only: bool = False,
    recompute: bool = False,
    dtype: str | None = None,
    rounding: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Verdict:
    """Compare a checkpoint with a revision's build; with None, with that of the revision that it is found to be.

    Of a weight file that is named by itself, the weights alone are compared. `recompute` believes no record of what
    the build gave. Raises NotFoundError, MissingBase, and
    what is wrong with the checkpoint or the packs.
    """
    if not checkpoint.exists() and _revision_in(registry, checkpoint.name):
        raise NotFoundError(f"no checkpoint at {checkpoint}", hint=f"pv verify DIR {checkpoint.name}")
    with Checkpoint(checkpoint) as weights:
        ours = fingerprint(weights, threads=threads, progress=stage(progress, "hashing the checkpoint"))
        found, recipe = table_id(ours), _recipe(checkpoint)
        known = known_builds(registry, found, recipe)
        export = None
        if revision is not None:
            at = KnownBuild(revision.commit, revision.name, revision.persona, revision.persona.output)
        elif not known and (one := captured(registry, checkpoint)) is not None:
            return _as_export(weights, ours, found, one, weights_only=weights_only)
        else:
            at, export = _sought(registry, known, recipe, dtype, rounding)
        asked = at.persona.with_output(dtype=dtype, rounding=rounding)
        bake = says_baked(checkpoint if checkpoint.is_dir() else checkpoint.parent)
        wanted = to_build(registry, at.commit, asked, bake=bake)
        persona, compared = wanted.persona, None
        if not weights_only and checkpoint.is_dir():
            compared = tuple(_beside(registry, weights, at.commit, asked, wanted))
    build = build_id(persona)
    recorded = registry.record(build).get("weights")
    base = registry.base(at.commit)
    is_base = base_in_words(base) if found == base.id else None
    said = (at.commit, at.revision, build, found)
    if recorded == found and not recompute:
        return Verdict(*said, found, True, len(ours), (), compared, known, is_base, export=export)
    with opened(registry, at.commit, [persona]) as here:
        trim = trimming(persona, progress)
        settled = settle(persona, here.base, here.vectors, threads=threads, progress=trim)
        update = stage(progress, "computing the build")
        expected = table(
            settled, here.base, here.vectors, threads=threads, progress=update, baked=wanted.baked
        )
    if recompute:  # nor that it is the build of another
        sure = table_id(expected) == found
        known = tuple(one for one in known if sure and build in build_ids(one.persona))
    differing = tuple(differences(expected, ours, owner="the build"))
    explained = _dtype(expected, ours, [one.name for one in differing])
    return Verdict(
        *said, table_id(expected), False, len(ours), differing, compared, known, is_base, explained, export
    )


def _as_export(
    weights: Checkpoint, ours: Mapping[str, TensorRow], found: str, one: Captured, *, weights_only: bool
) -> Verdict:
    """Held against the captured checkpoint, whose table the vector's manifest has: nothing is computed."""
    (name, *_), at = one.export.behaviours, one.at
    compared = None
    if not weights_only and weights.path.is_dir():
        compared = tuple(beside(weights, one.files))
    differing = tuple(differences(one.tensors, ours, owner="the export"))
    said = (at.commit, at.revision, build_id(at.persona.alone(name)), found, table_id(one.tensors))
    return Verdict(*said, True, len(ours), differing, compared, (), export=one.export)


def _sought(
    registry: Registry,
    known: Sequence[KnownBuild],
    recipe: Persona | None,
    dtype: str | None,
    rounding: str | None,
) -> tuple[KnownBuild, Exported | None]:
    """What to compare with, where no revision was given; and of what behaviour that is an export, if it is one."""
    for one in known:
        if recipe is not None and same_recipe(one.persona, recipe):
            exported = alone(
                registry, recipe
            )  # the same files are both, and nothing tells which was asked for
            return replace(one, persona=recipe), exported and exported[1]
    for one in known:
        if one.persona == one.persona.with_output(dtype=dtype, rounding=rounding):
            return one, None
    for commit, name, persona in named_history(registry) if recipe is not None else ():
        if recipe is not None and same_recipe(persona, recipe):
            return KnownBuild(commit, name, recipe, persona.output), None
    if recipe is not None and (found := alone(registry, recipe)) is not None:
        return found
    head = registry.resolve("HEAD")
    persona = registry.persona(head)
    return KnownBuild(head, "HEAD", persona, persona.output), None


def _recipe(checkpoint: Path) -> Persona | None:
    """The persona beside the weights, if there is one that can be read."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    try:
        return Persona.from_bytes(read_bounded(folder / RECIPE))
    except (OSError, FormatError):
        return None


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


def _beside(
    registry: Registry, weights: Checkpoint, commit: str, persona: Persona, wanted: ToBuild
) -> Iterator[Difference]:
    """What is other beside the weights than a build puts there. Of a persona.json, whose it is."""
    expected = files_beside(wanted.persona, registry.base_files(commit), wanted.baked)
    for one in beside(weights, expected, may_lack=[RECIPE]):
        yield replace(one, what=_whose(registry, weights.path, persona)) if one.name == RECIPE else one


def _whose(registry: Registry, folder: Path, wanted: Persona) -> str:
    recipe = _recipe(folder)
    if recipe is None:
        return "is not a persona"
    if same_recipe(recipe, wanted):
        return "is this persona's, with other output settings (dtype, rounding or seed)"
    names = (name for _, name, persona in named_history(registry) if same_recipe(persona, recipe))
    owner = next(names, None)
    return f"is the persona of {owner}" if owner else "is the persona of no revision here"
