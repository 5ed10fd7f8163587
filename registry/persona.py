"""A persona: base + behaviours + one combine rule + output options, as canonical JSON.

    {"schema": 1, "engine": 2, "base": "<base id>",
     "behaviours": {"listening": {"weight": 1, "terms": [[1, "<vector id>"]], "modules": null}},
     "combine": {"method": "add"},
     "output": {"dtype": "base", "rounding": "stochastic", "seed": 0}}

A persona is a value: every change makes a new one. Numbers are finite doubles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pv.registry import canonical, ids
from pv.registry.combine import Combine, json_number
from pv.registry.dtypes import OUTPUT_CHOICES, output_name
from pv.registry.errors import FormatError, UnknownBehaviour, UsageError

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
ENGINES: tuple[int, ...] = (1, 2)  # versions of the rules that a build follows: docs/FORMAT.md, Builds
ENGINE = 2  # of a persona that is new; those that there are keep theirs
MAX_BEHAVIOURS = 10_000
MAX_TERMS = 100_000  # of all behaviours together
MAX_PATTERN_CHARS = 256
MAX_PATTERNS = 16_384  # of all behaviours together; each is held against every tensor of the base
MAX_PATTERNS_CHARS = 1 << 20
ROUNDINGS = ("stochastic", "nearest")
LARGEST_PRODUCT = 1e300  # no sum of as many terms leaves the doubles
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def as_written(persona: Persona) -> Iterator[Persona]:
    """The persona, then the same in every output that `pv build` can write it in."""
    yield persona
    for dtype in OUTPUT_CHOICES:
        for rounding in ROUNDINGS:
            yield persona.with_output(dtype=dtype, rounding=rounding)


def check_name(name: str, what: str = "behaviour") -> str:
    """`name` if it may name a behaviour: letters, digits, `.`, `_`, `-`; raises UsageError."""
    if not _NAME.fullmatch(name) or name.endswith((".", ".lock")) or ".." in name:
        raise UsageError(
            f"{name[:80]!r} cannot name a {what}",
            hint="use up to 64 letters, digits, '.', '_' and '-', starting with a letter or digit",
        )
    return name


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

    @cached_property
    def id(self) -> str:
        return ids.persona_id(self.to_json())

    @cached_property
    def vectors(self) -> tuple[str, ...]:
        """Ids of every vector named, sorted, each once."""
        return tuple(sorted({term.vector for b in self.behaviours.values() for term in b.terms}))

    @property
    def is_base(self) -> bool:
        """True if no behaviour has a weight: a build has the base's weights."""
        return not any(behaviour.weight for behaviour in self.behaviours.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "engine": self.engine,
            "base": self.base,
            "behaviours": {name: b.to_json() for name, b in self.behaviours.items()},
            "combine": self.combine.to_json(),
            "output": self.output.to_json(),
        }

    def to_bytes(self) -> bytes:
        """The canonical JSON that a commit's tree holds as persona.json."""
        return canonical.dumps(self.to_json())

    def behaviour(self, name: str, *, of: str = "this persona") -> Behaviour:
        """One of them; `of` is whose in words. Raises UnknownBehaviour."""
        try:
            return self.behaviours[name]
        except KeyError:
            known = ", ".join(sorted(self.behaviours)) or "none"
            raise UnknownBehaviour(
                f"no behaviour {name[:80]!r} in {of[:80]}", hint=f"it has: {known}"
            ) from None

    def with_behaviour(self, name: str, behaviour: Behaviour) -> Persona:
        """With one more, or another of that name. Raises UsageError for a name that none may be given."""
        if name == "HEAD" and name not in self.behaviours:  # an earlier pv let one be called that
            raise UsageError(
                "'HEAD' cannot name a behaviour: it is the current commit", hint="choose another name"
            )
        return replace(self, behaviours=MappingProxyType({**self.behaviours, check_name(name): behaviour}))

    def without(self, name: str) -> Persona:
        self.behaviour(name)
        rest = {k: v for k, v in self.behaviours.items() if k != name}
        return replace(self, behaviours=MappingProxyType(rest))

    def with_terms(self, name: str, terms: tuple[Term, ...], weight: float | None = None) -> Persona:
        """The next version of a behaviour, or its first: other terms, and what it had of weight and modules."""
        known = self.behaviours.get(name, Behaviour(1.0, ()))
        kept = known.weight if weight is None else weight
        return self.with_behaviour(name, Behaviour(kept, terms, known.modules))

    def with_combine(self, combine: Combine) -> Persona:
        return replace(self, combine=combine)

    def with_engine(self, engine: int) -> Persona:
        """The same, built by other rules. Raises UsageError."""
        if engine not in ENGINES or isinstance(engine, bool):
            raise UsageError(f"no engine {_shown(engine)}", hint=f"there are: {', '.join(map(str, ENGINES))}")
        return replace(self, engine=engine)

    def with_output(
        self, *, dtype: str | None = None, rounding: str | None = None, seed: int | None = None
    ) -> Persona:
        """The same, written otherwise; None leaves as it is. Raises UsageError."""
        dtype = None if dtype is None else output_name(dtype)
        for what, value, known in (("dtype", dtype, OUTPUT_CHOICES), ("rounding", rounding, ROUNDINGS)):
            if value is not None and value not in known:
                raise UsageError(f"no {what} {_shown(value)}", hint=f"there are: {', '.join(known)}")
        if seed is not None and (
            isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 53
        ):
            raise UsageError(
                f"the seed must be a whole number from 0 to 2^53 - 1, not {_shown(seed)}",
                hint="`pv config output.seed 0` sets it",
            )
        given = {"dtype": dtype, "rounding": rounding, "seed": seed}
        changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return replace(self, output=replace(self.output, **changed))

    def without_behaviours(self) -> Persona:
        """The base, written as this persona is: what effects are measured against, whatever the merge method."""
        return replace(self, behaviours=MappingProxyType({}), combine=Combine())

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
        doc = _object(document, {"schema", "engine", "base", "behaviours", "combine", "output"}, what)
        if doc["schema"] != SCHEMA or doc["schema"] is True:
            raise FormatError(
                f"{what}: schema {_shown(doc['schema'])} is not known here",
                hint="a newer pv wrote it: upgrade",
            )
        if doc["engine"] not in ENGINES or doc["engine"] is True:
            raise FormatError(
                f"{what}: engine {_shown(doc['engine'])} is not known here",
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
        )


def _behaviour(value: Any, what: str) -> Behaviour:
    doc = _object(value, {"weight", "terms", "modules"}, what)
    if not isinstance(doc["terms"], list) or not doc["terms"]:
        raise FormatError(f"{what}: terms must be a list with at least one term")
    terms = []
    for term in doc["terms"]:
        if not isinstance(term, list) or len(term) != 2:
            raise FormatError(f"{what}: a term is [coefficient, vector id]")
        terms.append(
            Term(_read_number(term[0], f"{what}: coefficient"), ids.check_id(term[1], f"{what}: vector"))
        )
    modules = doc["modules"]
    if modules is not None:
        if not isinstance(modules, dict):
            raise FormatError(f"{what}: modules must be null or an object")
        modules = MappingProxyType({k: _read_number(v, f"{what}: modules") for k, v in modules.items()})
    behaviour = Behaviour(_read_number(doc["weight"], f"{what}: weight"), tuple(terms), modules)
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
    doc = _object(value, {"dtype", "rounding", "seed"}, f"{what}: output")
    if doc["dtype"] not in OUTPUT_CHOICES:
        known = ", ".join(OUTPUT_CHOICES)
        raise FormatError(f"{what}: output dtype {_shown(doc['dtype'])} is not one of {known}")
    if doc["rounding"] not in ROUNDINGS:
        raise FormatError(f"{what}: output rounding {_shown(doc['rounding'])} is not stochastic or nearest")
    seed = doc["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 53:
        raise FormatError(f"{what}: output seed must be an integer from 0 to 2^53 - 1")
    return Output(doc["dtype"], doc["rounding"], seed)


def _object(value: Any, keys: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        raise FormatError(f"{what} must be an object with exactly: {', '.join(sorted(keys))}")
    return value


def _read_number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e30:
        raise FormatError(f"{what} must be a number no larger than 1e30, not {_shown(value)}")
    return float(value) + 0.0  # -0.0 becomes 0.0: one spelling


def _shown(value: object) -> str:
    """A value in a message: a stranger's may be long."""
    return repr(value[:40] if isinstance(value, str) else value)[:60]
