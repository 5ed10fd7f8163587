"""A persona: base + behaviours + one combine rule + output options, as canonical JSON.

    {"schema": 1, "engine": 2, "base": "<base id>",
     "behaviours": {"listening": {"weight": 1, "terms": [[1, "<vector id>"]], "modules": null}},
     "combine": {"method": "add"},
     "output": {"dtype": "base", "rounding": "stochastic", "seed": 0}}

With steering terms it is schema 2, and has one more key, "steering": registry/steering.py. Without any it is schema 1,
as it ever was: a persona has one spelling, and so one id.

A persona is a value: every change makes a new one. Numbers are finite doubles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pv.registry import canonical, ids
from pv.registry.combine import Combine, json_number
from pv.registry.dtypes import OUTPUT_CHOICES, output_name
from pv.registry.errors import FormatError, NotFoundError, UnknownBehaviour, UsageError
from pv.registry.fields import check_name, read_number, read_object, shown
from pv.registry.steering import Steering, SteeringTerm, check_rule

__all__ = [
    "ENGINE",
    "ENGINES",
    "ROUNDINGS",
    "Behaviour",
    "Output",
    "Persona",
    "Term",
    "as_written",
    "check_name",
]

SCHEMA = 1
SCHEMA_STEERING = 2
ENGINES: tuple[int, ...] = (1, 2)  # versions of the rules that a build follows: docs/FORMAT.md, Builds
ENGINE = 2  # of a persona that is new; those that there are keep theirs
KEYS = {"schema", "engine", "base", "behaviours", "combine", "output"}
MAX_BEHAVIOURS = 10_000
MAX_TERMS = 100_000  # of all behaviours together
MAX_PATTERN_CHARS = 256
MAX_PATTERNS = 16_384  # of all behaviours together; each is held against every tensor of the base
MAX_PATTERNS_CHARS = 1 << 20
ROUNDINGS = ("stochastic", "nearest")
LARGEST_PRODUCT = 1e300  # no sum of as many terms leaves the doubles


def as_written(persona: Persona) -> Iterator[Persona]:
    """The persona, then the same in every output that `pv build` can write it in."""
    yield persona
    for dtype in OUTPUT_CHOICES:
        for rounding in ROUNDINGS:
            yield persona.with_output(dtype=dtype, rounding=rounding)


@dataclass(frozen=True, slots=True)
class Term:
    coefficient: float
    vector: str


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A weight, and the terms whose sum it scales. `modules` maps a pattern of tensor names to a factor."""

    weight: float
    terms: tuple[Term, ...]
    modules: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "weight": json_number(self.weight),
            "terms": [[json_number(term.coefficient), term.vector] for term in self.terms],
            "modules": None if self.modules is None else {k: json_number(v) for k, v in self.modules.items()},
        }


@dataclass(frozen=True, slots=True)
class Output:
    """How the result is written: `dtype` is "base" (each tensor's own) or bf16, fp16, fp32."""

    dtype: str = "base"
    rounding: str = "stochastic"
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "rounding": self.rounding, "seed": self.seed}


@dataclass(frozen=True)
class Persona:
    base: str
    behaviours: Mapping[str, Behaviour] = field(default_factory=dict)
    combine: Combine = field(default_factory=Combine)
    output: Output = field(default_factory=Output)
    engine: int = ENGINE
    steering: Steering = field(default_factory=Steering)

    @cached_property
    def id(self) -> str:
        return ids.persona_id(self.to_json())

    @cached_property
    def vectors(self) -> tuple[str, ...]:
        """Ids of every vector named, of behaviours and of steering, sorted, each once."""
        return tuple(sorted({*self.task_vectors, *self.steering_vectors}))

    @cached_property
    def task_vectors(self) -> tuple[str, ...]:
        """Those of the behaviours: what a build is made from."""
        return tuple(sorted({term.vector for b in self.behaviours.values() for term in b.terms}))

    @cached_property
    def steering_vectors(self) -> tuple[str, ...]:
        """Those of the steering terms, retired ones too, and of their conditions."""
        return tuple(sorted(self.steering.vectors))

    @cached_property
    def recipe(self) -> Persona:
        """What decides what is built and applied: the same without evidence, and without terms that are retired."""
        return replace(self, steering=self.steering.recipe) if self.steering.terms else self

    @property
    def is_base(self) -> bool:
        """True if no behaviour has a weight: a build has the base's weights."""
        return not any(behaviour.weight for behaviour in self.behaviours.values())

    @property
    def is_plain(self) -> bool:
        """True if besides nothing is steered: it answers as its base does."""
        return self.is_base and not self.steering.active

    @property
    def unsteered(self) -> Persona:
        """The same without its steering terms: what its weights alone are."""
        return replace(self, steering=Steering())

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schema": SCHEMA_STEERING if self.steering.terms else SCHEMA,
            "engine": self.engine,
            "base": self.base,
            "behaviours": {name: b.to_json() for name, b in self.behaviours.items()},
            "combine": self.combine.to_json(),
            "output": self.output.to_json(),
        }
        return {**document, "steering": self.steering.to_json()} if self.steering.terms else document

    def to_bytes(self) -> bytes:
        """The canonical JSON that a commit's tree holds as persona.json."""
        return canonical.dumps(self.to_json())

    def behaviour(self, name: str, *, of: str = "this persona") -> Behaviour:
        """One of them; `of` is whose in words. Raises UnknownBehaviour."""
        try:
            return self.behaviours[name]
        except KeyError:
            known = f"it has: {', '.join(sorted(self.behaviours)) or 'none'}"
            hint = (
                f"{name} is a steering term: `pv steer` has its commands"
                if name in self.steering.terms
                else known
            )
            raise UnknownBehaviour(f"no behaviour {name[:80]!r} in {of[:80]}", hint=hint) from None

    def with_behaviour(self, name: str, behaviour: Behaviour) -> Persona:
        """With one more, or another of that name. Raises UsageError for a name that none may be given."""
        if name == "HEAD" and name not in self.behaviours:  # an earlier pv let one be called that
            raise UsageError(
                "'HEAD' cannot name a behaviour: it is the current commit", hint="choose another name"
            )
        return replace(self, behaviours=MappingProxyType({**self.behaviours, check_name(name): behaviour}))

    def without(self, name: str) -> Persona:
        """Without a behaviour. Raises UnknownBehaviour, and UsageError if it has retired a steering term."""
        self.behaviour(name)
        retired = sorted(n for n, term in self.steering.terms.items() if term.retired_by == name)
        if retired:
            raise UsageError(
                f"{name} has retired the steering term {retired[0]}: without it, nothing does what that did",
                hint=f"bring the term back first: pv steer unretire {retired[0]}; "
                f"or take it out: pv steer drop {retired[0]}",
            )
        rest = {k: v for k, v in self.behaviours.items() if k != name}
        return replace(self, behaviours=MappingProxyType(rest))

    def renamed(self, old: str, new: str) -> Persona:
        """With a behaviour under another name, which no other has. Raises as `with_behaviour` and `without`."""
        terms = {
            name: replace(term, retired_by=new) if term.retired_by == old else term
            for name, term in self.steering.terms.items()
        }
        moved = replace(self.with_behaviour(new, self.behaviour(old)), steering=self._steering(terms))
        return moved.without(old)

    def with_terms(self, name: str, terms: tuple[Term, ...], weight: float | None = None) -> Persona:
        """The next version of a behaviour, or its first: other terms, and what it had of weight and modules."""
        known = self.behaviours.get(name, Behaviour(1.0, ()))
        kept = known.weight if weight is None else weight
        return self.with_behaviour(name, Behaviour(kept, terms, known.modules))

    def steering_term(self, name: str, *, of: str = "this persona") -> SteeringTerm:
        """One of them; `of` is whose in words. Raises NotFoundError."""
        if name not in self.steering.terms:
            known = f"it has: {', '.join(sorted(self.steering.terms)) or 'none'}"
            hint = f"{name} is a behaviour: it is in the weights" if name in self.behaviours else known
            raise NotFoundError(f"no steering term {name[:80]!r} in {of[:80]}", hint=hint)
        return self.steering.terms[name]

    def with_steering(self, name: str, term: SteeringTerm) -> Persona:
        """With one more steering term, or another of that name. Raises UsageError for a name that none may have."""
        check_name(name, "steering term")
        if term.sites is not None:
            term = replace(term, sites=tuple(sorted(set(term.sites))))
        return replace(self, steering=self._steering({**self.steering.terms, name: term}))

    def without_steering(self, name: str) -> Persona:
        """Without a steering term. Raises NotFoundError."""
        self.steering_term(name)
        rest = {n: term for n, term in self.steering.terms.items() if n != name}
        return replace(self, steering=self._steering(rest))

    def with_steering_rule(self, rule: str) -> Persona:
        """Terms applied together by another rule: what was known of them was of something else. Raises UsageError."""
        if check_rule(rule) == self.steering.rule:
            return self
        if not self.steering.terms:
            raise UsageError(
                "there is no steering term here for a rule to be of",
                hint="`pv steer list` shows what there is",
            )
        terms = {name: replace(term, evidence={}) for name, term in self.steering.terms.items()}
        return replace(self, steering=Steering.of(rule, terms))

    def _steering(self, terms: Mapping[str, SteeringTerm]) -> Steering:
        return Steering.of(self.steering.rule, terms)

    def with_combine(self, combine: Combine) -> Persona:
        return replace(self, combine=combine)

    def with_engine(self, engine: int) -> Persona:
        """The same, built by other rules. Raises UsageError."""
        if engine not in ENGINES or isinstance(engine, bool):
            raise UsageError(f"no engine {shown(engine)}", hint=f"there are: {', '.join(map(str, ENGINES))}")
        return replace(self, engine=engine)

    def with_output(
        self, *, dtype: str | None = None, rounding: str | None = None, seed: int | None = None
    ) -> Persona:
        """The same, written otherwise; None leaves as it is. Raises UsageError."""
        dtype = None if dtype is None else output_name(dtype)
        for what, value, known in (("dtype", dtype, OUTPUT_CHOICES), ("rounding", rounding, ROUNDINGS)):
            if value is not None and value not in known:
                raise UsageError(f"no {what} {shown(value)}", hint=f"there are: {', '.join(known)}")
        if seed is not None and (
            isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 53
        ):
            raise UsageError(
                f"the seed must be a whole number from 0 to 2^53 - 1, not {shown(seed)}",
                hint="`pv config output.seed 0` sets it",
            )
        given = {"dtype": dtype, "rounding": rounding, "seed": seed}
        changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return replace(self, output=replace(self.output, **changed))

    def without_behaviours(self) -> Persona:
        """The base, written as this persona is: what effects are measured against, whatever the merge method."""
        return replace(self, behaviours=MappingProxyType({}), combine=Combine(), steering=Steering())

    def alone(self, name: str) -> Persona:
        """A behaviour by itself at weight 1 in every module, written as this persona is. Raises UnknownBehaviour."""
        whole = Behaviour(1.0, self.behaviour(name).terms)
        return replace(self.without_behaviours(), behaviours=MappingProxyType({name: whole}))

    def checked(self) -> Persona:
        """Itself, if it can be read again once it is written. Raises UsageError that names the field."""
        try:
            return Persona.from_bytes(self.to_bytes(), "the persona")
        except FormatError as error:
            raise UsageError(str(error), hint=error.hint) from error

    @staticmethod
    def from_bytes(data: bytes, what: str = "persona.json") -> Persona:
        return Persona.from_json(canonical.loads(data, what=what), what)

    @staticmethod
    def from_json(document: Any, what: str = "persona.json") -> Persona:
        """Validate a document. Raises FormatError that names the field."""
        doc = _document(document, what)
        if doc["engine"] not in ENGINES or doc["engine"] is True:
            raise FormatError(
                f"{what}: engine {shown(doc['engine'])} is not known here",
                hint="a newer pv wrote it: upgrade",
            )
        if not isinstance(doc["behaviours"], dict):
            raise FormatError(f"{what}: behaviours must be an object")
        if len(doc["behaviours"]) > MAX_BEHAVIOURS:
            raise FormatError(f"{what}: {len(doc['behaviours'])} behaviours are more than {MAX_BEHAVIOURS}")
        try:
            behaviours = {
                check_name(name): _behaviour(value, f"{what}: behaviour {name!r}")
                for name, value in doc["behaviours"].items()
            }
            _check_work(behaviours.values(), what)
            combine = _combine(doc["combine"], what)
        except UsageError as error:
            raise FormatError(f"{what}: {error}", hint=error.hint) from error
        return Persona(
            base=ids.check_id(doc["base"], f"{what}: base"),
            behaviours=MappingProxyType(behaviours),
            combine=combine,
            output=_output(doc["output"], what),
            engine=int(doc["engine"]),
            steering=_steering(doc["steering"], behaviours, what) if "steering" in doc else Steering(),
        )


def _document(document: Any, what: str) -> dict[str, Any]:
    """An object with the keys that its schema has."""
    schema = document.get("schema") if isinstance(document, dict) else SCHEMA
    if schema not in (SCHEMA, SCHEMA_STEERING) or schema is True:
        raise FormatError(
            f"{what}: schema {shown(schema)} is not known here", hint="a newer pv wrote it: upgrade"
        )
    more = {"steering"} if schema == SCHEMA_STEERING else set()
    return read_object(document, KEYS | more, what)


def _steering(value: Any, behaviours: Mapping[str, Behaviour], what: str) -> Steering:
    steering = Steering.from_json(value, f"{what}: steering")
    for name, term in steering.terms.items():
        if term.retired_by is not None and term.retired_by not in behaviours:
            raise FormatError(
                f"{what}: steering: term {name!r} is retired by {shown(term.retired_by)}, which is no behaviour here"
            )
    return steering


def _behaviour(value: Any, what: str) -> Behaviour:
    doc = read_object(value, {"weight", "terms", "modules"}, what)
    if not isinstance(doc["terms"], list) or not doc["terms"]:
        raise FormatError(f"{what}: terms must be a list with at least one term")
    terms = []
    for term in doc["terms"]:
        if not isinstance(term, list) or len(term) != 2:
            raise FormatError(f"{what}: a term is [coefficient, vector id]")
        terms.append(
            Term(read_number(term[0], f"{what}: coefficient"), ids.check_id(term[1], f"{what}: vector"))
        )
    modules = doc["modules"]
    if modules is not None:
        if not isinstance(modules, dict):
            raise FormatError(f"{what}: modules must be null or an object")
        modules = MappingProxyType({k: read_number(v, f"{what}: modules") for k, v in modules.items()})
    behaviour = Behaviour(read_number(doc["weight"], f"{what}: weight"), tuple(terms), modules)
    if not _reach(behaviour) <= LARGEST_PRODUCT:
        raise FormatError(f"{what}: weight, coefficients and module factors multiply to more than 1e300")
    return behaviour


def _reach(behaviour: Behaviour) -> float:
    """The largest number that the behaviour's own can multiply to, whatever patterns match."""
    factors = [behaviour.weight, *(behaviour.modules or {}).values()]
    largest = max(abs(term.coefficient) for term in behaviour.terms)
    return math.prod(max(1.0, abs(factor)) for factor in factors) * max(1.0, largest)


def _check_work(behaviours: Iterable[Behaviour], what: str) -> None:
    """A build holds every pattern against every tensor: a stranger's persona may not ask for days of it."""
    terms = sum(len(behaviour.terms) for behaviour in behaviours)
    patterns = [pattern for behaviour in behaviours for pattern in behaviour.modules or ()]
    if terms > MAX_TERMS:
        raise FormatError(f"{what}: {terms} terms are more than {MAX_TERMS}")
    if len(patterns) > MAX_PATTERNS or sum(map(len, patterns)) > MAX_PATTERNS_CHARS:
        raise FormatError(f"{what}: {len(patterns)} module patterns are more than a build can be asked for")
    if any(len(pattern) > MAX_PATTERN_CHARS for pattern in patterns):
        raise FormatError(f"{what}: a module pattern is longer than {MAX_PATTERN_CHARS} characters")


def _combine(value: Any, what: str) -> Combine:
    if not isinstance(value, dict) or not isinstance(value.get("method"), str):
        raise FormatError(f"{what}: combine must be an object with a method")
    return Combine.from_json(value)


def _output(value: Any, what: str) -> Output:
    doc = read_object(value, {"dtype", "rounding", "seed"}, f"{what}: output")
    if doc["dtype"] not in OUTPUT_CHOICES:
        known = ", ".join(OUTPUT_CHOICES)
        raise FormatError(f"{what}: output dtype {shown(doc['dtype'])} is not one of {known}")
    if doc["rounding"] not in ROUNDINGS:
        raise FormatError(f"{what}: output rounding {shown(doc['rounding'])} is not stochastic or nearest")
    seed = doc["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 53:
        raise FormatError(f"{what}: output seed must be an integer from 0 to 2^53 - 1")
    return Output(doc["dtype"], doc["rounding"], seed)
