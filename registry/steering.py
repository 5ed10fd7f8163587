"""Steering terms of a persona: what is added to a model's activations, where, and what is known of its effect.

    {"rule": "add",
     "terms": {"formal": {"coefficient": 1, "vector": "<id>", "sites": ["model.layers.14"], "positions": "all",
                          "when": null, "evidence": {}, "retired_by": null}}}

A term is a coefficient times a steering vector. `sites` None: at all of the vector's. With `when`, only in replies to
prompts whose mean activation at a site, without that of the first token, has a cosine above a number with a direction.
A term that is `retired_by` a behaviour is kept, and not applied: the behaviour does in the weights what the term did in
the activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pv.registry import canonical, ids
from pv.registry.combine import json_number
from pv.registry.disk.safetensors import is_usable_name
from pv.registry.errors import FormatError, UsageError
from pv.registry.fields import check_name, read_number, read_object, shown

__all__ = [
    "EVIDENCE",
    "MAX_SITES",
    "POSITIONS",
    "RULES",
    "Condition",
    "Steering",
    "SteeringTerm",
    "check_rule",
    "is_site",
]

RULES = ("add", "preserve-norm")
POSITIONS = ("all", "prompt", "reply")
EVIDENCE = ("tested", "trained", "verified")
MAX_TERMS = 1_000
MAX_SITES = 10_000  # of all terms together, and of one vector
MAX_SITE_CHARS = 256
MAX_EVIDENCE = 1 << 16  # bytes of canonical JSON, of one term


def is_site(name: object) -> bool:
    """Whether a place in a model may have this name: docs/FORMAT.md, Steering."""
    return isinstance(name, str) and 0 < len(name) <= MAX_SITE_CHARS and is_usable_name(name)


def check_rule(rule: str) -> str:
    """`rule` if terms can be applied by it. Raises UsageError."""
    if rule not in RULES:
        raise UsageError(f"no steering rule {shown(rule)}", hint=f"there are: {', '.join(RULES)}")
    return rule


@dataclass(frozen=True, slots=True)
class Condition:
    """A prompt's mean activation at `site`, but for its first token's, has a cosine `above` this with the direction."""

    vector: str
    site: str
    above: float

    def to_json(self) -> dict[str, Any]:
        return {"vector": self.vector, "site": self.site, "above": json_number(self.above)}

    @staticmethod
    def from_json(value: Any, what: str = "when") -> Condition:
        """Raises FormatError that names the field."""
        doc = read_object(value, {"vector", "site", "above"}, what)
        if not is_site(doc["site"]):
            raise FormatError(f"{what}: {shown(doc['site'])} cannot be a site")
        above = read_number(doc["above"], f"{what}: above")
        if not -1 <= above <= 1:
            raise FormatError(f"{what}: above is a cosine, from -1 to 1, not {shown(above)}")
        return Condition(ids.check_id(doc["vector"], f"{what}: vector"), doc["site"], above)


@dataclass(frozen=True, slots=True)
class SteeringTerm:
    """`evidence` says what is known of the term as it is: {"tested" | "verified" | "trained": an object}."""

    coefficient: float
    vector: str
    sites: tuple[str, ...] | None = None
    positions: str = "all"
    when: Condition | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    retired_by: str | None = None

    @property
    def vectors(self) -> frozenset[str]:
        """Ids of the vector that is added, and of the one that its condition looks at."""
        return frozenset({self.vector} if self.when is None else {self.vector, self.when.vector})

    def changed(self, **values: Any) -> SteeringTerm:
        """With other values; what was known of the term goes if something else would be applied now."""
        new = replace(self, **values)
        if new.sites is not None:
            new = replace(new, sites=tuple(sorted(set(new.sites))))
        applied = [(t.coefficient, t.vector, t.sites, t.positions, t.when) for t in (self, new)]
        return new if applied[0] == applied[1] else replace(new, evidence={})

    def to_json(self) -> dict[str, Any]:
        return {
            "coefficient": json_number(self.coefficient),
            "vector": self.vector,
            "sites": None if self.sites is None else list(self.sites),
            "positions": self.positions,
            "when": None if self.when is None else self.when.to_json(),
            "evidence": dict(self.evidence),
            "retired_by": self.retired_by,
        }

    @staticmethod
    def from_json(value: Any, what: str = "term") -> SteeringTerm:
        """Raises FormatError that names the field."""
        keys = {"coefficient", "vector", "sites", "positions", "when", "evidence", "retired_by"}
        doc = read_object(value, keys, what)
        if doc["positions"] not in POSITIONS:
            raise FormatError(
                f"{what}: positions {shown(doc['positions'])} is not one of {', '.join(POSITIONS)}"
            )
        if doc["retired_by"] is not None and not isinstance(doc["retired_by"], str):
            raise FormatError(f"{what}: retired_by must be null or the name of a behaviour")
        if doc["when"] is not None and doc["positions"] != "reply":
            raise FormatError(
                f"{what}: what depends on the prompt steers the reply alone",
                hint='positions "reply" goes with a condition',
            )
        return SteeringTerm(
            read_number(doc["coefficient"], f"{what}: coefficient"),
            ids.check_id(doc["vector"], f"{what}: vector"),
            _sites(doc["sites"], what),
            doc["positions"],
            None if doc["when"] is None else Condition.from_json(doc["when"], f"{what}: when"),
            _evidence(doc["evidence"], what),
            doc["retired_by"],
        )


@dataclass(frozen=True, slots=True)
class Steering:
    """The terms by name, and the rule by which they are applied together. With no terms it is nothing: `Steering()`."""

    rule: str = "add"
    terms: Mapping[str, SteeringTerm] = field(default_factory=dict)

    @property
    def active(self) -> dict[str, SteeringTerm]:
        """The terms that are applied, by name, sorted."""
        return {
            name: term
            for name, term in sorted(self.terms.items())
            if term.retired_by is None and term.coefficient
        }

    @property
    def vectors(self) -> frozenset[str]:
        return frozenset().union(*(term.vectors for term in self.terms.values()))

    @property
    def recipe(self) -> Steering:
        """The same without what changes nothing that is applied: evidence, and terms that are retired."""
        kept = {n: replace(t, evidence={}) for n, t in self.terms.items() if t.retired_by is None}
        return self.of(self.rule, kept)

    @staticmethod
    def of(rule: str, terms: Mapping[str, SteeringTerm]) -> Steering:
        """The one spelling: without terms there is no rule."""
        return Steering(rule, MappingProxyType(dict(terms))) if terms else Steering()

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "terms": {name: term.to_json() for name, term in self.terms.items()}}

    @staticmethod
    def from_json(value: Any, what: str = "steering") -> Steering:
        """Raises FormatError that names the field."""
        doc = read_object(value, {"rule", "terms"}, what)
        if doc["rule"] not in RULES:
            raise FormatError(f"{what}: rule {shown(doc['rule'])} is not one of {', '.join(RULES)}")
        if not isinstance(doc["terms"], dict) or not doc["terms"]:
            raise FormatError(f"{what}: terms must be an object with at least one term")
        if len(doc["terms"]) > MAX_TERMS:
            raise FormatError(f"{what}: {len(doc['terms'])} terms are more than {MAX_TERMS}")
        terms = {}
        for name, term in doc["terms"].items():
            try:
                check_name(name, "steering term")
            except UsageError as error:
                raise FormatError(f"{what}: {error}", hint=error.hint) from error
            terms[name] = SteeringTerm.from_json(term, f"{what}: term {name!r}")
        if (sites := sum(len(term.sites or ()) for term in terms.values())) > MAX_SITES:
            raise FormatError(f"{what}: {sites} sites are more than {MAX_SITES}")
        return Steering.of(doc["rule"], terms)


def _sites(value: Any, what: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(is_site(site) for site in value):
        raise FormatError(
            f"{what}: sites must be null or a list of names, each up to {MAX_SITE_CHARS} characters"
        )
    if value != sorted(set(value)):
        raise FormatError(f"{what}: sites must be sorted, each once")
    return tuple(value)


def _evidence(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not value.keys() <= set(EVIDENCE):
        raise FormatError(f"{what}: evidence must be an object with no keys but {', '.join(EVIDENCE)}")
    if not all(isinstance(one, dict) for one in value.values()):
        raise FormatError(f"{what}: evidence must have an object under each key")
    if len(canonical.dumps(value)) > MAX_EVIDENCE:
        raise FormatError(f"{what}: evidence is larger than {MAX_EVIDENCE} bytes")
    return MappingProxyType(value)
