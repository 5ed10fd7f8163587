"""config: the settings of a persona, by name: how behaviours are combined, and how builds are written."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pv.registry.changes import FIELDS, RULE, field
from pv.registry.combine import METHODS, Combine, Option
from pv.registry.errors import UsageError
from pv.registry.merge_methods import as_json
from pv.registry.persona import ENGINE, Persona
from pv.vecstore.repo.edit import Committed, commit_edit

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["Setting", "config", "setting", "settings"]

Setting = str | int | float

SWITCHES = tuple(dict.fromkeys(option.name for method in METHODS.values() for option in method.options))
KEYS = tuple(
    key
    for name in FIELDS
    if name != RULE  # `pv steer set --rule`: it is nothing where there are no terms
    for key in (("combine.method", *(f"combine.{one}" for one in SWITCHES)) if name == "combine" else (name,))
)


def settings(persona: Persona) -> dict[str, Setting]:
    """{key: value}; of the switches, those that the persona's merge method has."""
    return {key: value for key in KEYS if (value := _value(persona, key)) is not None}


def setting(persona: Persona, key: str) -> Setting:
    """One of them. Raises UsageError for a key that is none, or is none of this persona's."""
    value = _value(persona, _known(key))
    if value is None:
        raise _no_switch(persona.combine, key.removeprefix("combine."))
    return value


def config(repo: Repo, key: str, value: Setting, *, message: str | None = None) -> Committed:
    """Set one, in a commit. A text is read as the key needs it. Raises UsageError."""
    edit = _edit(_known(key), value)
    said = message or f"Set {key} to {value}"
    return commit_edit(repo, f"config {key} {value}", said, edit, already=f"{key} is {value} already")


def _known(key: str) -> str:
    if key in KEYS:
        return key
    begun = [known for known in KEYS if key and known.startswith(key)]
    close = begun or difflib.get_close_matches(key, KEYS, 1)
    hint = f"did you mean {close[0]}?" if len(close) == 1 else f"there are: {', '.join(close or KEYS)}"
    raise UsageError(f"no setting {key[:80]!r}", hint=hint)


def _value(persona: Persona, key: str) -> Setting | None:
    if key == "combine.method":
        return persona.combine.method
    if key.startswith("combine."):
        rule: Mapping[str, Any] = as_json(persona.combine.options)
        return rule.get(key.removeprefix("combine."))
    value: Setting = field(persona, key)
    return value


def _edit(key: str, value: Setting) -> Callable[[Persona], Persona]:
    """The change to a persona. Raises UsageError for a value that cannot be, some only when it is applied."""
    if key == "combine.method":
        return lambda persona: persona.with_combine(_of_method(persona.combine, str(value)))
    if key.startswith("combine."):
        return lambda persona: persona.with_combine(_switched(persona.combine, key[len("combine.") :], value))
    if key == "engine":
        number = _whole(key, value)
        return lambda persona: persona.with_engine(number)
    name = key.removeprefix("output.")
    given: dict[str, Any] = {name: _whole(key, value) if name == "seed" else str(value)}
    return lambda persona: persona.with_output(**given)


def _of_method(now: Combine, method: str) -> Combine:
    """The method with its defaults, unless it is in use already: then with the switches that it has."""
    return now if now.method == method else Combine.of(method)


def _switched(now: Combine, name: str, value: Setting) -> Combine:
    option = next((option for option in METHODS[now.method].options if option.name == name), None)
    if option is None:
        raise _no_switch(now, name, value)
    return Combine.of(now.method, **{**now.options, name: _read(name, option, value)})


def _no_switch(now: Combine, name: str, value: Setting | None = None) -> UsageError:
    method, option = next((m, o) for m in METHODS.values() for o in m.options if o.name == name)
    given = option.default if value is None else value
    try:
        option.check(method.name, _read(name, option, given))
    except UsageError:  # that method would not take it either
        given = option.default
    return UsageError(
        f"the combine method is {now.method}, which has no {name}",
        hint=f"use one that has: pv combine {method.name} --set {name}={given}",
    )


def _read(name: str, option: Option, value: Setting) -> Setting:
    """A switch's value from a text, which may be that of a number. Raises UsageError."""
    if not isinstance(value, str) or option.choices:
        return value
    try:
        return float(value)
    except ValueError:
        raise UsageError(
            f"combine.{name} must be a number, not {value[:40]!r}",
            hint=f"for example: `pv config combine.{name} {option.default}`",
        ) from None


def _whole(key: str, value: Setting) -> int:
    try:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError
        return int(value)
    except (ValueError, OverflowError):
        example = ENGINE if key == "engine" else 0
        raise UsageError(
            f"{key} must be a whole number, not {str(value)[:40]!r}",
            hint=f"for example: `pv config {key} {example}`",
        ) from None
