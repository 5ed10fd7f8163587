"""What a mergekit document comes to, tensor by tensor: from the document and the headers of the models alone.

Whatever can be wrong with a merge but the weights themselves is found here, before a byte of a weight is read. (Only a
head that a tied model saved apart is read, to see that it repeats the embedding.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry import canonical
from pv.registry.combine import Combine
from pv.registry.disk.ranges import Ranges
from pv.registry.dtypes import DTYPES
from pv.registry.errors import CheckpointRefused, NotFoundError, PvError, UsageError
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.vecstore.checkpoints.align import align
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.place import Place, find
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.merge.methods import check_weights
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, plan_shards
from pv.vecstore.merge.sources import VectorSource
from pv.vecstore.mergekit.document import Document, Level, Model
from pv.vecstore.mergekit.folders import NO_ID, BaseItself, FolderBase, FolderVector, Trimmed, unread
from pv.vecstore.mergekit.mixed import Mixed
from pv.vecstore.mergekit.rules import Rule, rule_of
from pv.vecstore.mergekit.same_model import Beside, compare
from pv.vecstore.mergekit.setting import shown
from pv.vecstore.mergekit.settings import Settings
from pv.vecstore.progress import Report
from pv.vecstore.tensors.formats import FLOATS

__all__ = ["Merge", "Merged", "opened"]

_LAYER = re.compile(r"(.*?\b(?:layers|h|blocks|block|layer)\.)(\d+)\..*")
ITSELF = "the base itself"
LAST_ID = "f" * 64


@dataclass(frozen=True, slots=True)
class Merged:
    """One model of a merge: where it is, the bytes of its tensors, and the least and the most weight that it gets."""

    name: str
    place: Place
    files: tuple[Ranges, ...]
    nbytes: int
    weights: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        commit = self.place.origin.get("revision")
        return {
            "model": self.name,
            "commit": commit,
            "bytes": self.nbytes,
            "weights": None if self.weights is None else list(self.weights),
        }


@dataclass(frozen=True)
class Merge:
    """A merge, planned: the persona of each tensor (those that are built alike share one), over opened models."""

    document: Document
    rule: Rule
    base: FolderBase
    vectors: Mapping[str, VectorSource]
    personas: Mapping[str, Persona]
    models: tuple[Merged, ...]
    side_files: Beside
    shards: tuple[Shard, ...]
    notes: tuple[str, ...]

    @property
    def output(self) -> Output:
        return next(iter(self.personas.values())).output

    @property
    def bytes_read(self) -> int:
        return sum(model.nbytes for model in self.models)


@contextmanager
def opened(
    document: Document,
    *,
    seen_from: Path | None = None,
    dtype: str | None = None,
    rounding: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Report | None = None,
) -> Iterator[Merge]:
    """The merge that a document describes, with its models open. Paths are `seen_from` a folder, the current one.

    Raises UsageError, NotFoundError, RemoteError, CheckpointRefused.
    """
    rule = rule_of(document.method)
    base, rest, of_base = _roles(document, rule)
    settings = Settings(document, rule, among=of_base is not None)
    output = Persona(NO_ID).with_output(dtype=dtype or document.dtype, rounding=rounding or "nearest").output
    places = {name: _find(name, seen_from, progress) for name in (base, *(m.name for m in rest))}
    _refuse_aliases(places)
    with ExitStack() as stack:
        named = {model.name: f"{model.path}.model" for model in document.models}
        checkpoints = {
            name: stack.enter_context(_open(name, place, named.get(name, "base_model")))
            for name, place in places.items()
        }
        start = FolderBase(
            base, unread(checkpoints[base].specs, str(checkpoints[base].where)), checkpoints[base]
        )
        _check_tensors(start)
        aligned = {
            model.name: FolderVector.of(
                model.name, f"{i:064x}", start, _aligned(model.name, checkpoints, start)
            )
            for i, model in enumerate(rest, 1)
        }
        beside = side_files(places[base].where)
        notes = [note for place in places.values() for note in place.notes]
        for model in rest:  # a tokenizer is megabytes: one model's at a time
            notes += compare(base, beside, model.name, side_files(places[model.name].where))
        depth = _depths(document, start, beside)
        mixed = settings.mixed(rest, of_base, {name: depth(name) for name in _floats(start)})
        notes += settings.notes(base)
        vectors = _vectors(rest, aligned, start, mixed)
        personas = _personas(rest, start, mixed, output)
        merged = [_merged(base, places[base], checkpoints[base], None)]
        merged += [
            _merged(m.name, places[m.name], checkpoints[m.name], [one.weights[i] for one in mixed.values()])
            for i, m in enumerate(rest)
        ]
        shards = plan_shards(next(iter(personas.values())), start.manifest, shard_bytes=shard_bytes)
        yield Merge(document, rule, start, vectors, personas, tuple(merged), beside, shards, tuple(notes))


def _roles(document: Document, rule: Rule) -> tuple[str, tuple[Model, ...], Model | None]:
    """The base's name, the models that are added to it, and the base where it has parameters as one of the models."""
    base = document.base
    if base is None and rule.base == "required":
        raise UsageError(f"base_model is missing: {rule.name} needs it", hint="base_model: ./DIR")
    among = rule.base == "among" or base is None
    if base is None:
        base = document.models[0].name
    rest = tuple(model for model in document.models if model.name != base)
    listed = None
    if among:
        found = (model for model in document.models if model.name == base)
        listed = next(found, Model(base, "base_model", Level("base_model", {})))
    count = len(rest) + among
    least, most = rule.models
    if count < least or (most is not None and count > most):
        wanted = str(least) if least == most else f"{least} or more"
        raise UsageError(
            f"{rule.name} merges {wanted} model{'' if wanted == '1' else 's'}"
            + ("" if among else " besides the base")
            + f", the document names {count}",
            hint="name the fine-tunes under `models`"
            if count < least
            else f"leave out all but {most}, or take a method for any number, such as task_arithmetic or linear",
        )
    return base, rest, listed


def _find(name: str, seen_from: Path | None, progress: Report | None) -> Place:
    if "+" in name and not ((seen_from or Path.cwd()) / name).exists():
        raise UsageError(
            f"{shown(name)}: a model and an adapter on it are not in the subset of mergekit that pv reads",
            hint="merge the adapter first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(DIR)",
        )
    return find(name, seen_from=seen_from, progress=progress)


def _refuse_aliases(places: Mapping[str, Place]) -> None:
    """One folder under two names would be merged with itself, and counted twice."""
    seen: dict[str, str] = {}
    for name, place in places.items():
        where = place.where.resolve() if isinstance(place.where, Path) else place.where
        first = seen.setdefault(str(where), name)
        if first != name:
            raise UsageError(
                f"{shown(first)} and {shown(name)} are the same checkpoint",
                hint="name it in one way throughout",
            )


def _open(name: str, place: Place, where: str) -> Checkpoint:
    """`where` it stands in the document."""
    try:
        checkpoint = Checkpoint(place.where)
    except NotFoundError as error:
        raise NotFoundError(f"{where}: {error}", hint=error.hint) from error
    except PvError as error:
        error.hint = error.hint or f"download {name} again, or leave it out"
        raise
    if not checkpoint.specs:
        checkpoint.close()
        raise CheckpointRefused(f"{name} holds no tensors", hint="name a checkpoint with weights")
    return checkpoint


def _aligned(name: str, checkpoints: Mapping[str, Checkpoint], base: FolderBase) -> Any:
    own = unread(base.checkpoint.specs, str(base.checkpoint.where), apart=True)
    try:
        return align(checkpoints[name], own)
    except CheckpointRefused as error:
        raise CheckpointRefused(  # of a base whose weights nobody has read no id is known
            str(error).replace(f" base {own.id[:12]}", f" the base, {base.model}"),
            hint="only models of one architecture and vocabulary can be merged: fine-tunes of one base",
        ) from error


def _floats(base: FolderBase) -> list[str]:
    return sorted(name for name, row in base.manifest.tensors.items() if row.dtype in FLOATS)


def _check_tensors(base: FolderBase) -> None:
    for name, row in base.manifest.tensors.items():
        if DTYPES[row.dtype].is_float and row.dtype not in FLOATS:
            raise CheckpointRefused(
                f"{base.model}: tensor {name!r} is {row.dtype}, which pv does not merge",
                hint="convert the checkpoint to BF16, F16 or F32 first",
            )


def _depths(document: Document, base: FolderBase, beside: Beside) -> Any:
    """name -> how deep a tensor lies, from 0 to 1: 0 for the first layer, and for what is in no layer."""
    places = {name: found for name in base.manifest.tensors if (found := _LAYER.fullmatch(name))}
    last: Counter[str] = Counter()
    for found in places.values():
        last[found[1]] = max(last[found[1]], int(found[2]))
    if document.layers is not None:
        config = canonical.loads(beside.get("config.json", b"{}"), what="config.json")
        count = config.get("num_hidden_layers") or (max(last.values(), default=-1) + 1)
        if document.layers != (0, count):
            raise UsageError(
                f"slices[0] has layers {list(document.layers)} of {count}: pv merges whole models",
                hint=f"write the models under `models`, or layer_range: [0, {count}]",
            )

    def depth(name: str) -> float:
        found = places.get(name)
        return int(found[2]) / last[found[1]] if found and last[found[1]] else 0.0

    return depth


def _vectors(
    models: Sequence[Model],
    aligned: Mapping[str, FolderVector],
    base: FolderBase,
    mixed: Mapping[str, Mixed],
) -> dict[str, VectorSource]:
    """By id: document order, so that sums run as it says. Those that are trimmed each by a density of its own."""
    found: dict[str, VectorSource] = {}
    trims = {name: one.trims for name, one in mixed.items() if one.trims is not None}
    for i, model in enumerate(models):
        vector = aligned[model.name]
        density = (
            {name: 1.0 if (own := trims.get(name)) is None else own[i] for name in mixed} if trims else {}
        )
        found[vector.id] = Trimmed(vector, density) if trims else vector
    found[NO_ID] = BaseItself.of(NO_ID, base, times=0)
    found[LAST_ID] = BaseItself.of(LAST_ID, base, times=1)
    return found


def _personas(
    models: Sequence[Model], base: FolderBase, mixed: Mapping[str, Mixed], output: Output
) -> dict[str, Persona]:
    """By tensor. Those that are not floats are nobody's: they stay as in the base."""
    made: dict[int, Persona] = {}
    nothing = Persona(NO_ID, {}, Combine(), output)
    for one in mixed.values():
        if id(one) not in made:
            behaviours = {
                model.name: Behaviour(weight, (Term(1.0, f"{i:064x}"),))
                for i, (model, weight) in enumerate(zip(models, one.weights, strict=False), 1)
            }
            if one.of_base:
                behaviours[base.model] = Behaviour(one.of_base, (Term(1.0, NO_ID),))
            check_weights(one.combine, {name: behaviour.weight for name, behaviour in behaviours.items()})
            if one.itself:
                behaviours[ITSELF] = Behaviour(one.itself, (Term(1.0, LAST_ID),))
            made[id(one)] = Persona(NO_ID, behaviours, one.combine, output)
    return {
        name: made[id(mixed[name])] if name in mixed else nothing for name in sorted(base.manifest.tensors)
    }


def _merged(name: str, place: Place, checkpoint: Checkpoint, weights: list[float] | None) -> Merged:
    nbytes = sum(spec.nbytes for spec in checkpoint.specs.values())
    found = None if weights is None else (min(weights), max(weights))
    return Merged(name, place, checkpoint.files, nbytes, found)
