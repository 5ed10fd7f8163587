"""A mergekit document: the subset of its YAML that pv merges, read and checked by itself.

Whatever is not in the subset is refused by its place in the document: a key that is passed over silently would make
another model than its author meant. docs/mergekit.md lists the subset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry.disk.bounded import read_bounded
from pv.registry.dtypes import OUTPUTS, output_name
from pv.registry.errors import DataError, NotFoundError, PvError, UsageError
from pv.vecstore.mergekit.rules import PARAMETERS
from pv.vecstore.mergekit.setting import shown

__all__ = ["Document", "Level", "Model", "read_document"]

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 16
MAX_MODELS = 1_000
_TOP = (
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source",
)  # fmt: skip
_ELSEWHERE = {
    "modules": "merge the parts of such a model one document at a time",
    "tokenizer": "leave it out: the result has the base's tokenizer",
    "chat_template": "leave it out, and put a chat_template.jinja into the result afterwards",
    "input_model_parameters": "write the parameters under each of `models`",
}


@dataclass(frozen=True, slots=True)
class Level:
    """Parameters as they stand at one place of the document."""

    path: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is merged: its name as written, where it stands, and its own parameters."""

    name: str
    path: str
    own: Level


@dataclass(frozen=True, slots=True)
class Document:
    """`shared` are the levels of parameters for all models, nearest first. `layers` is a slice's layer range."""

    text: bytes
    config: Mapping[str, Any]
    method: str
    base: str | None
    models: tuple[Model, ...]
    shared: tuple[Level, ...]
    dtype: str | None
    layers: tuple[int, int] | None = None


def read_document(path: Path) -> Document:
    """Read a mergekit YAML file. Raises NotFoundError, DataError, UsageError."""
    try:
        text = read_bounded(path, MAX_BYTES)
    except FileNotFoundError:
        raise NotFoundError(f"no file {path}", hint="name mergekit's YAML file") from None
    except (OSError, PvError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{path} cannot be read: {why}", hint="name mergekit's YAML file") from error
    return parse_document(text, str(path))


def parse_document(text: bytes, what: str) -> Document:
    """The document that a YAML text is. Raises DataError, UsageError."""
    config = _load(text, what)
    if not isinstance(config, dict):
        raise DataError(
            f"{what} is not a mergekit document" if text.strip() else f"{what} is empty",
            hint="a mergekit document has the keys merge_method, models and base_model",
        )
    for key in config:
        if key in _ELSEWHERE:
            raise UsageError(f"{key} is not in the subset of mergekit that pv reads", hint=_ELSEWHERE[key])
    _only(config, _TOP, "")
    method = config.get("merge_method")
    if not isinstance(method, str):
        raise UsageError("merge_method is missing", hint="for example: merge_method: task_arithmetic")
    source = config.get("tokenizer_source", "base")
    if source != "base":
        raise UsageError(
            f"tokenizer_source: {shown(source)} is not in the subset of mergekit that pv reads",
            hint="leave it out: the models must have one vocabulary, and the result has the base's tokenizer",
        )
    base = config.get("base_model")
    shared = _level(config, "parameters")
    if ("models" in config) == ("slices" in config):
        raise UsageError("a document has either models or slices", hint="name the models under `models`")
    layers = None
    if "models" in config:
        models = _models(config["models"], "models", {"model", "parameters"})
        levels: tuple[Level, ...] = (shared,)
    else:
        models, layers, own = _slice(config["slices"])
        levels = (own, shared)
    _twice(models)
    return Document(
        text,
        config,
        method,
        None if base is None else _model_name(base, "base_model"),
        models,
        levels,
        _dtype(config),
        layers,
    )


def _models(value: Any, path: str, keys: set[str]) -> tuple[Model, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{path} must be a list of models", hint=f"{path}: [{{model: ./DIR}}, ...]")
    if len(value) > MAX_MODELS:
        raise UsageError(f"{path} has {len(value)} models", hint=f"at most {MAX_MODELS} are merged at a time")
    models = []
    for i, one in enumerate(value):
        at = f"{path}[{i}]"
        if not isinstance(one, Mapping) or "model" not in one:
            raise UsageError(f"{at} must have a key model", hint=f"- model: ./DIR, under {path}")
        _only(one, keys, f"{at}.")
        models.append(Model(_model_name(one["model"], f"{at}.model"), at, _level(one, f"{at}.parameters")))
    return tuple(models)


def _slice(value: Any) -> tuple[tuple[Model, ...], tuple[int, int], Level]:
    """One slice in which all models have the same layers: the same as `models`."""
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], Mapping):
        raise UsageError(
            "slices must be a list with one slice: pv does not put layers of several slices on top of each other",
            hint="merge whole models, under `models`",
        )
    _only(value[0], {"sources", "parameters"}, "slices[0].")
    models = _models(value[0].get("sources"), "slices[0].sources", {"model", "layer_range", "parameters"})
    ranges = []
    for model, source in zip(models, value[0]["sources"], strict=True):
        match source.get("layer_range"):
            case [int(low), int(high)] if not isinstance(low, bool) and not isinstance(high, bool):
                ranges.append((low, high))
            case other:
                raise UsageError(
                    f"{model.path}.layer_range must be [0, NUMBER_OF_LAYERS], not {shown(other)}",
                    hint="merge whole models, under `models`",
                )
        if ranges[-1] != ranges[0]:
            raise UsageError(
                f"{model.path}.layer_range differs from that of {models[0].path}: pv does not move layers",
                hint="merge whole models, under `models`",
            )
    return models, ranges[0], _level(value[0], "slices[0].parameters")


def _twice(models: Iterable[Model]) -> None:
    seen: dict[str, Model] = {}
    for model in models:
        if model.name in seen:
            raise UsageError(
                f"{model.path} is {shown(model.name)} again: it is {seen[model.name].path} already",
                hint="name a model once, with the sum of its weights",
            )
        seen[model.name] = model


def _model_name(value: Any, path: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(
            f"{path} must be a folder or a Hub id, not {shown(value)}",
            hint=f"{path}: ./DIR, or user/name@commit",
        )
    return value


def _level(config: Mapping[str, Any], path: str) -> Level:
    values = config.get("parameters")
    if values is None:
        return Level(path, {})
    if not isinstance(values, Mapping):
        raise UsageError(
            f"{path} must be a table of parameters, not {shown(values)}", hint=f"{path}: {{weight: 0.5}}"
        )
    return Level(path, values)


def _dtype(config: Mapping[str, Any]) -> str | None:
    """What the result is written in: `out_dtype`, or else `dtype`; None for the base's own."""
    names = {}
    for key in ("dtype", "out_dtype"):
        if (value := config.get(key)) is not None:
            names[key] = output_name(value) if isinstance(value, str) else ""
            if names[key] not in OUTPUTS:
                known = ", ".join(str(row.torch) for row in OUTPUTS.values())
                raise UsageError(f"{key} cannot be {shown(value)}", hint=f"there are: {known}")
    return names.get("out_dtype", names.get("dtype"))


def _only(config: Mapping[str, Any], known: Iterable[str], at: str) -> None:
    known = list(known)
    for key in config:
        if key not in known:
            where = f"{at}parameters" if key in PARAMETERS else None
            raise UsageError(
                f"{at}{str(key)[:80]} is not in the subset of mergekit that pv reads",
                hint=f"{key} is a parameter: write it under {where}"
                if where
                else f"there are: {', '.join(sorted(known))}",
            )


def _load(text: bytes, what: str) -> Any:
    """The values of a YAML text: nothing but tables, lists, texts, finite numbers, true, false and null."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Refuses a key that is there twice; the last would win."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if key.value in seen and isinstance(key.value, str):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value[:40]!r} appears twice", key.start_mark
                    )
                if isinstance(key.value, str):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        value = yaml.load(text, Loader)
    except yaml.reader.ReaderError as error:
        raise DataError(
            f"{what} is not UTF-8 text: byte {error.position + 1} cannot be in it",
            hint="name mergekit's YAML file, or save it as UTF-8",
        ) from error
    except RecursionError as error:
        raise DataError(
            f"{what}: too deep for a mergekit document", hint="take lists out of lists"
        ) from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        if why == "but found another document":
            why = "a second document begins there"
        raise DataError(
            f"{what}{line}: not YAML that can be read: {str(why)[:200]}", hint="correct the file"
        ) from error
    _check(value, what, "", MAX_DEPTH, [MAX_VALUES])
    return value


def _check(value: Any, what: str, path: str, depth: int, left: list[int]) -> None:
    """Aliases may make a small text stand for a large document, and YAML has values that JSON lacks."""
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise DataError(
            f"{what}: too large or too deep for a mergekit document", hint="take aliases out of it"
        )
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise DataError(
                    f"{what}: the key {shown(key)} under {path or 'the top'} is not a text",
                    hint="correct the file",
                )
            _check(inner, what, f"{path}.{key}".lstrip("."), depth - 1, left)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check(inner, what, f"{path}[{i}]", depth - 1, left)
    elif value is not None and not isinstance(value, str | bool | int | float):
        raise DataError(
            f"{what}: {path} is a {type(value).__name__}, which no parameter is", hint="put it in quotes"
        )
    elif isinstance(value, int | float) and not abs(value) < 1 << 53:  # so put, NaN is refused too
        why = (
            "larger than any parameter"
            if isinstance(value, int) or math.isfinite(value)
            else "not a finite number"
        )
        raise DataError(
            f"{what}: {path} is {why}", hint=f"write a number, as in {path.rpartition('.')[2]}: 0.5"
        )
