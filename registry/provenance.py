"""Where a vector came from: trained, captured, derived from another, or merged from several.

It is kept beside the manifest, and not in the id.

    trained    {"kind", "data": {"name", "id", "rows", "kept"}, "options", "settings", "loss": [first, last],
                "tokens", "packs", "held_out"?}
    captured   {"kind", "source", "adapter"?, "on"?: {"commit", "persona"}}
    derived    {"kind", "derived_from", "encoding", "error": {"max_abs", "relative_l2"}, "measured"?, "original",
                "original_vector"?}
    merged     {"kind", "method", "of": [[[coefficient, vector], ...], ...], "said", "encoding",
                "error": {"max_abs", "relative_l2"}, "norm", "sum_norm", "adapter"?,
                "settings"?}
    extracted, imported         of a steering vector: registry/steering_origin.py

This is, with that, the one place that writes these documents and reads them. Anybody may have written one: what does
not have the form is `Unknown`, and loses nobody a command; keys of a later pv are handed on (`extra`). `packs` are
further packs that gc keeps for the vector.

One vector may have come about in several ways, as several behaviours: nothing that was known of it is written over.
The first is the document, and it lists the others, whose packs are among its own:

    also        [{"as": the behaviour, "origin": a document as above}, ...]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pv.registry import canonical, ids
from pv.registry.combine import json_number
from pv.registry.errors import FormatError
from pv.registry.origin_fields import extra_of, mapping_of, number_of, optional_of, packs_of, text_of
from pv.registry.steering_origin import Extracted, Imported, Pairs

__all__ = [
    "Also",
    "Captured",
    "Derived",
    "Extracted",
    "Imported",
    "Merged",
    "Pairs",
    "Provenance",
    "Trained",
    "TrainedOn",
    "TrainingData",
    "Unknown",
    "checked",
    "from_bytes",
    "read",
]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A document of another form, as it is."""

    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def packs(self) -> tuple[str, ...]:
        return packs_of(self.document)

    def to_json(self) -> dict[str, Any]:
        return dict(self.document)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The rows: the file's name, the rows' id, how many, and whether the registry keeps them."""

    name: str
    id: str
    rows: int
    kept: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "id": self.id, "rows": self.rows, "kept": self.kept}


@dataclass(frozen=True, slots=True)
class Trained:
    """`options` is what was asked for, `settings` what was run, `held_out` the score on held-out rows.

    `on`: trained from the build of that commit, and the vector is the difference from it. `adapter` as in Captured.
    `sketches` are of the vector and of the gradient that it began with: what a forecast needs.
    """

    data: TrainingData
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    loss: tuple[float, float] | None
    tokens: int
    packs: tuple[str, ...] = ()
    held_out: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    on: TrainedOn | None = None
    adapter: Mapping[str, Any] | None = None
    sketches: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            **self.extra,
            "kind": "trained",
            "data": self.data.to_json(),
            "options": dict(self.options),
            "loss": None if self.loss is None else list(self.loss),
            "tokens": self.tokens,
            "settings": dict(self.settings),
            "packs": list(self.packs),
        }
        if self.on is not None:
            document["on"] = self.on.to_json()
        if self.adapter is not None:
            document["adapter"] = dict(self.adapter)
        if self.sketches is not None:
            document["sketches"] = dict(self.sketches)
        return document if self.held_out is None else {**document, "held_out": dict(self.held_out)}


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """The commit whose build a checkpoint was fine-tuned from, and the id of its persona."""

    commit: str
    persona: str

    def to_json(self) -> dict[str, Any]:
        return {"commit": self.commit, "persona": self.persona}


@dataclass(frozen=True, slots=True)
class Captured:
    """`source` is the name of the folder or file; `adapter` is what is needed to write an adapter out again.

    `on`: the vector is the whole difference from the base; what that persona holds is in it too.
    """

    source: str
    adapter: Mapping[str, Any] | None = None
    packs: tuple[str, ...] = ()
    on: TrainedOn | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {**self.extra, "kind": "captured", "source": self.source}
        if self.adapter is not None:
            document["adapter"] = dict(self.adapter)
        if self.on is not None:
            document["on"] = self.on.to_json()
        return document if not self.packs else {**document, "packs": list(self.packs)}


@dataclass(frozen=True, slots=True)
class Derived:
    """`relative_l2` and `max_abs`: what re-encoding did to tau. `original` is where the first vector came from, whose
    id is `original_vector` (None: not noted), and `measured` what this vector does in this encoding."""

    derived_from: str
    encoding: str
    relative_l2: float
    max_abs: float
    original: Provenance = field(default_factory=Unknown)
    measured: Mapping[str, Any] | None = None
    packs: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    original_vector: str | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            **self.extra,
            "kind": "derived",
            "derived_from": self.derived_from,
            "encoding": self.encoding,
            "error": {"max_abs": self.max_abs, "relative_l2": self.relative_l2},
        }
        if self.measured is not None:
            document["measured"] = dict(self.measured)
        document["original"] = self.original.to_json()
        if self.original_vector is not None:
            document["original_vector"] = self.original_vector
        return document if not self.packs else {**document, "packs": list(self.packs)}


@dataclass(frozen=True, slots=True)
class Merged:
    """`method` made it of several sums `of` (coefficient, vector), which a person wrote as `said`.

    `norm` is that of the result before it was encoded, `sum_norm` that of the plain sum of the operands; `relative_l2`
    and `max_abs` what encoding did to it. `settings` are the numbers that the method was given, or has by default.
    `adapter` is as in `Captured`, where the result is an adapter too.
    """

    method: str
    of: tuple[tuple[tuple[float, str], ...], ...]
    said: str
    encoding: str
    relative_l2: float
    max_abs: float
    norm: float
    sum_norm: float
    adapter: Mapping[str, Any] | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    packs: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vectors(self) -> tuple[str, ...]:
        """Those that it was made of, each once."""
        return tuple(dict.fromkeys(vector for terms in self.of for _, vector in terms))

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            **self.extra,
            "kind": "merged",
            "method": self.method,
            "of": [[[json_number(share), vector] for share, vector in terms] for terms in self.of],
            "said": self.said,
            "encoding": self.encoding,
            "error": {"max_abs": self.max_abs, "relative_l2": self.relative_l2},
            "norm": self.norm,
            "sum_norm": self.sum_norm,
        }
        if self.settings:
            document["settings"] = {name: json_number(value) for name, value in self.settings.items()}
        if self.adapter is not None:
            document["adapter"] = dict(self.adapter)
        return document if not self.packs else {**document, "packs": list(self.packs)}


Provenance = Trained | Captured | Derived | Merged | Extracted | Imported | Unknown


@dataclass(frozen=True, slots=True)
class Also:
    """Another way in which the same vector came about, and the behaviour as which it was committed then."""

    origin: Provenance
    behaviour: str | None = None

    def to_json(self) -> dict[str, Any]:
        said = {} if self.behaviour is None else {"as": self.behaviour}
        return {**said, "origin": self.origin.to_json()}


def read(document: Mapping[str, Any]) -> Provenance:
    """What a document says. Raises nothing."""
    packs = packs_of(document)
    try:
        match document.get("kind"):
            case "trained":
                return _trained(document, packs)
            case "captured":
                source, adapter = text_of(document["source"]), optional_of(document.get("adapter"))
                on = None if document.get("on") is None else _trained_on(document["on"])
                return Captured(source, adapter, packs, on, extra_of(document, "source", "adapter", "on"))
            case "derived":
                return _derived(document, packs)
            case "merged":
                return _merged(document, packs)
            case "extracted":
                return Extracted.of_json(document)
            case "imported":
                return Imported.of_json(document)
    except (LookupError, TypeError, ValueError, RecursionError, FormatError):
        pass
    return Unknown(document)


def from_bytes(data: bytes, what: str) -> Provenance:
    """Raises FormatError if it is no JSON object."""
    return read(_object(data, what))


def checked(data: bytes, what: str) -> Provenance:
    """The same, for gc and fsck: raises FormatError also for `packs` that are not all ids."""
    document = _object(data, what)
    listed = document.get("packs", [])
    if not isinstance(listed, list) or not all(ids.is_id(pack_id) for pack_id in listed):
        raise FormatError(f"{what}: packs must be a list of ids")
    return read(document)


def _object(data: bytes, what: str) -> dict[str, Any]:
    document = canonical.loads(data, what=what)
    if not isinstance(document, dict):
        raise FormatError(f"{what} is not a JSON object")
    return document


def _trained(document: Mapping[str, Any], packs: tuple[str, ...]) -> Trained:
    data, loss = document["data"], document.get("loss")
    rows = data["rows"]
    if isinstance(rows, bool) or not isinstance(rows, int):
        raise ValueError("rows is no number")
    return Trained(
        TrainingData(text_of(data["name"]), text_of(data.get("id", "")), rows, data.get("kept") is True),
        mapping_of(document.get("options", {})),
        mapping_of(document.get("settings", {})),
        None if loss is None else (number_of(loss[0]), number_of(loss[1])),
        int(number_of(document.get("tokens", 0))),
        packs,
        optional_of(document.get("held_out")),
        extra_of(
            document, "data", "options", "settings", "loss", "tokens", "held_out", "on", "adapter", "sketches"
        ),
        None if (on := document.get("on")) is None else _trained_on(mapping_of(on)),
        optional_of(document.get("adapter")),
        optional_of(document.get("sketches")),
    )


def _trained_on(document: Mapping[str, Any]) -> TrainedOn:
    commit, persona = text_of(document["commit"]), ids.check_id(document["persona"], "on: persona")
    if re.fullmatch(r"[0-9a-f]{40}", commit) is None or document.keys() != {"commit", "persona"}:
        raise ValueError("no commit and persona")
    return TrainedOn(commit, persona)


def _derived(document: Mapping[str, Any], packs: tuple[str, ...]) -> Derived:
    error, first = document["error"], document.get("original_vector")
    return Derived(
        ids.check_id(document["derived_from"], "derived_from"),
        text_of(document["encoding"]),
        number_of(error["relative_l2"]),
        number_of(error["max_abs"]),
        read(mapping_of(document.get("original", {}))),
        optional_of(document.get("measured")),
        packs,
        extra_of(document, "derived_from", "encoding", "error", "original", "measured", "original_vector"),
        None if first is None else ids.check_id(first, "original_vector"),
    )


def _merged(document: Mapping[str, Any], packs: tuple[str, ...]) -> Merged:
    error, of = document["error"], document["of"]
    return Merged(
        text_of(document["method"]),
        tuple(
            tuple((number_of(share), ids.check_id(vector, "of")) for share, vector in terms) for terms in of
        ),
        text_of(document["said"]),
        text_of(document["encoding"]),
        number_of(error["relative_l2"]),
        number_of(error["max_abs"]),
        number_of(document["norm"]),
        number_of(document["sum_norm"]),
        optional_of(document.get("adapter")),
        {name: number_of(value) for name, value in (optional_of(document.get("settings")) or {}).items()},
        packs,
        extra_of(
            document, "method", "of", "said", "encoding", "error", "norm", "sum_norm", "adapter", "settings"
        ),
    )
