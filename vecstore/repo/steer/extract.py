"""extract: a steering vector out of contrast pairs, read in the base, and committed as a term."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry.errors import UsageError
from pv.registry.manifest import VectorManifest
from pv.registry.persona import Persona
from pv.registry.provenance import Extracted as ExtractedOrigin
from pv.registry.steering import SteeringTerm
from pv.registry.steering_origin import Pairs
from pv.vecstore.activations.directions import METHODS, Quality
from pv.vecstore.activations.extract import extract as read_pairs
from pv.vecstore.activations.extract import pairs_of
from pv.vecstore.activations.neighbours import NEURON, REDUNDANT, Neuron, nearest, neuron, redundancy
from pv.vecstore.activations.reading import Read
from pv.vecstore.activations.sites import attention_outputs, blocks, sites_of
from pv.vecstore.data.kept_rows import store_rows
from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.long_work import LongWork, long_work
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import open_steering, write_steering

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pv.vecstore.repo.repo import Repo

__all__ = ["Extraction", "Place", "extract", "land_term"]


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of the direction at one site. `near`: cosines with other terms' directions there.

    `redundancy`: the share of it that those explain together.
    """

    quality: Quality
    neuron: Neuron | None
    near: Mapping[str, float]
    redundancy: float

    @property
    def warnings(self) -> tuple[str, ...]:
        said = list(self.quality.warnings)
        if self.neuron and abs(self.neuron.cosine) > NEURON:
            said.append(
                f"it is all but one neuron: {self.neuron.index} of {self.neuron.module} "
                f"(cosine {self.neuron.cosine:+.2f})"
            )
        if self.redundancy > REDUNDANT:
            said.append(
                f"other terms explain {self.redundancy:.0%} of it together: {', '.join(list(self.near)[:3])}"
            )
        return tuple(said)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.quality.to_json(),
            "neuron": None if self.neuron is None else self.neuron.to_json(),
            "near": dict(self.near),
            "redundancy": self.redundancy,
        }


@dataclass(frozen=True, slots=True)
class Extraction:
    """A steering vector that was extracted: its commit, the sites it is applied at, and what is known of each site."""

    commit: str
    branch: str
    name: str
    vector: str
    term: SteeringTerm
    method: str
    read: str
    pairs: int
    left_out: int
    places: Mapping[str, Place]
    notes: tuple[str, ...]

    @property
    def applied_at(self) -> tuple[str, ...]:
        return self.term.sites if self.term.sites is not None else tuple(self.places)

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "branch": self.branch,
            "name": self.name,
            "vector": self.vector,
            "term": self.term.to_json(),
            "method": self.method,
            "read": self.read,
            "pairs": self.pairs,
            "left_out": self.left_out,
            "quality": {site: place.to_json() for site, place in self.places.items()},
            "notes": list(self.notes),
        }


def extract(
    repo: Repo,
    rows: Rows | str | PathLike[str],
    *,
    name: str,
    layers: Sequence[int] | None = None,
    at: Sequence[str] = (),
    heads: bool = False,
    read: str = "answer",
    method: str = "mean",
    coefficient: float | None = None,
    positions: str | None = None,
    same_token: bool = False,
    keep_rows: bool = True,
    message: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Extraction:
    """Directions at every layer, of which the middle one is applied; or at `layers`, sites `at` or `heads`, at all.

    Raises DataError for pairs that do not differ, UsageError where every text has the same token that is read.
    """
    data, where = as_rows(rows), Read.parse(read)
    if method not in METHODS:
        raise UsageError(f"no method {method!r}", hint=f"there are: {', '.join(METHODS)}")
    if coefficient is not None and not math.isfinite(coefficient):
        raise UsageError(f"a coefficient is a finite number, not {coefficient}")
    told: dict[str, Any] = {
        key: value
        for key, value in (("coefficient", coefficient), ("positions", positions))
        if value is not None
    }
    with long_work(repo) as work:
        # Refused before any work: a name, a coefficient or positions that no term can have.
        work.persona.with_steering(
            name, SteeringTerm(**{"coefficient": 1.0, **told}, vector="0" * 64)
        ).checked()
        with _base(work, threads, progress) as (model, tokenizer):
            sites = _sites(model, layers, at, heads)
            pairs = pairs_of(model, tokenizer, data)
            update = stage(progress, f"reading {len(sites)} sites", "texts", 2 * len(pairs))
            found = read_pairs(
                model, pairs, sites, read=where, method=method, same_token=same_token, progress=update
            )
            places = _places(work, name, model, found.directions, found.quality)
            middle = None if layers is not None or at or heads else _middle(model)
        manifest = write_steering(found.directions, work.persona.base, work.registry.packs)
        packs = (store_rows(data, work.registry.packs),) if keep_rows else ()
        used = len(pairs) - found.left_out
        origin = ExtractedOrigin(
            method, str(where), Pairs(Path(data.source).name, data.id, used),
            _kept({site: place.to_json() for site, place in places.items()}),
            {"same_token": same_token, "left_out": found.left_out}, packs,
        )  # fmt: skip
        term = SteeringTerm(**{"coefficient": 1.0, **told}, vector=manifest.id, sites=middle)
        command = repo.command(f"steer extract {data.source} --as {name}")
        commit, landed = land_term(
            work, command, message or f"Extract {name}", name, term, manifest, origin, told
        )
    notes = [*data.notes]
    if found.left_out:
        notes.append(f"{found.left_out} of {len(pairs)} pairs were left out: their texts are the same tokens")
    return Extraction(
        commit,
        work.branch,
        name,
        manifest.id,
        landed,
        method,
        str(where),
        used,
        found.left_out,
        places,
        tuple(notes),
    )


def land_term(
    work: LongWork,
    command: str,
    message: str,
    name: str,
    term: SteeringTerm,
    manifest: VectorManifest,
    origin: Any,
    told: Mapping[str, Any] | None = None,
) -> tuple[str, SteeringTerm]:
    """Commit a term, or the next version of it: then it keeps its coefficient, positions and condition.

    What of those was `told` of the next version too is as it was told.
    """
    landed: list[SteeringTerm] = []

    def edit(persona: Persona) -> Persona:
        known = persona.steering.terms.get(name)
        made = term
        if known is not None:
            made = known.changed(vector=term.vector, sites=term.sites, retired_by=None, **(told or {}))
        landed[:] = [made]
        return persona.with_steering(name, made)

    commit = work.land(command, message, edit, {manifest.id: (manifest, origin)})
    return commit, landed[0]


@contextmanager
def _base(
    work: LongWork, threads: int, progress: Report | None
) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    plain = work.persona.without_behaviours().with_output(dtype="base")
    with (
        torch_threads(threads),
        temporary_checkpoint(
            work.registry, work.commit, plain, what="the base", threads=threads, progress=progress
        ) as folder,
    ):
        said(progress, "loading the model")
        yield load(folder)


def _sites(model: PreTrainedModel, layers: Sequence[int] | None, at: Sequence[str], heads: bool) -> list[str]:
    if not heads:
        return sites_of(model, at, layers)
    if at:
        raise UsageError("--heads is every head of the layers, --at names sites", hint="give one of the two")
    count = int(model.config.get_text_config().num_attention_heads)
    outputs = attention_outputs(model)
    if not outputs:
        raise UsageError(
            "this model has no attention whose heads are known here",
            hint="name sites: --at MODULE:input[3/9]",
        )
    chosen = range(len(outputs)) if layers is None else sorted(set(layers))
    if any(not 0 <= layer < len(outputs) for layer in chosen):
        raise UsageError(f"attention is in layers 0 to {len(outputs) - 1} of this model")
    return [f"{outputs[layer]}:input[{head}/{count}]" for layer in chosen for head in range(count)]


def _middle(model: PreTrainedModel) -> tuple[str, ...]:
    names = blocks(model)
    return (names[len(names) // 2],)


def _places(
    work: LongWork,
    name: str,
    model: PreTrainedModel,
    directions: Mapping[str, F32],
    quality: Mapping[str, Quality],
) -> dict[str, Place]:
    known: dict[str, Mapping[str, F32]] = {}
    for other, term in work.persona.steering.terms.items():
        if other != name and work.registry.packs.has(term.vector):
            known[other] = open_steering(term.vector, work.persona.base, work.registry.packs)
    places = {}
    for site, one in directions.items():
        here = {other: found[site] for other, found in known.items() if site in found}
        share = redundancy(one, here) if here else 0.0
        places[site] = Place(quality[site], neuron(model, site, one), nearest(one, here), share)
    return places


def _kept(quality: dict[str, Any]) -> dict[str, Any]:
    """To four digits, and of many sites less of it: provenance has room for 64 KiB."""

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: short(one) for key, one in value.items()}
        return (
            float(np.format_float_positional(value, 4, fractional=False))
            if isinstance(value, float)
            else value
        )

    if len(quality) <= 64:
        return {site: short(one) for site, one in quality.items()}
    return {site: short({k: one[k] for k in ("agreement", "norm")}) for site, one in quality.items()}
