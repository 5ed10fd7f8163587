"""Steering terms that a build lists beside its weights, applied to the model that was loaded from them.

with listed(model, "persona"):
    model.generate(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry import canonical
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.safetensors import TensorFile
from pv.registry.errors import FormatError, NotFoundError
from pv.vecstore.activations.hooks import POSITIONS, RULES
from pv.vecstore.activations.steering import Condition, Term, steering
from pv.vecstore.checkpoints.side_files import STEERING, STEERING_WEIGHTS

if TYPE_CHECKING:
    from torch import nn

    from pv.vecstore.tensors.array import F32

__all__ = ["SCHEMA", "USE", "listed", "listed_terms"]

SCHEMA = 1
USE = (
    "from pv.vecstore.activations.listed import listed",
    "with listed(model, FOLDER): reply = model.generate(**prompt)",
)
"""What steering.json says of how it is applied."""


@contextmanager
def listed(model: nn.Module, folder: str | Path) -> Iterator[None]:
    """Inside, the model is steered by what the folder lists. Raises NotFoundError if it lists nothing, FormatError."""
    terms, rule = listed_terms(Path(folder))
    with steering(model, list(terms.values()), rule):
        yield


def listed_terms(folder: Path) -> tuple[dict[str, Term], Any]:
    """The terms by name, their coefficient in the directions already, and the rule. Raises as `listed`."""
    try:
        document = canonical.loads(read_bounded(folder / STEERING), what=STEERING)
        file = TensorFile(folder / STEERING_WEIGHTS)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{folder} lists no steering terms",
            hint="what the persona steers is in the weights, or it steers nothing",
        ) from error
    with file:
        match document:
            case {"schema": 1, "rule": str(rule), "terms": dict(terms)} if rule in RULES:
                return {name: _term(file, name, one) for name, one in terms.items()}, rule
    raise FormatError(f"{folder / STEERING} is not a list of steering terms", hint="build the folder again")


def _term(file: TensorFile, name: str, said: Any) -> Term:
    match said:
        case {"sites": [*sites], "positions": positions, "when": when} if positions in POSITIONS:
            directions = {str(site): _direction(file, f"{name}/{site}") for site in sites}
            return Term(directions, 1.0, positions, _condition(file, name, when))
    raise FormatError(f"{STEERING}: {name[:80]!r} is not a steering term", hint="build the folder again")


def _condition(file: TensorFile, name: str, said: Any) -> Condition | None:
    match said:
        case None:
            return None
        case {"site": str(site), "above": (int() | float()) as above}:
            return Condition(site, _direction(file, f"{name} when {site}"), float(above))
    raise FormatError(f"{STEERING}: {name[:80]!r} has no condition that can be read")


def _direction(file: TensorFile, name: str) -> F32:
    entry = file.entries.get(name)
    if entry is None or entry.dtype != "F32":
        raise FormatError(f"{STEERING_WEIGHTS} has no direction {name[:80]!r}", hint="build the folder again")
    return np.frombuffer(file.read(name), "<f4").reshape(entry.shape).astype(np.float32)
