"""What a noted probe found, as the value that measuring it gives."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pv.registry.errors import FormatError, NotFoundError
from pv.vecstore.repo.probe.known import KnownProbe

__all__ = ["malformed", "result"]

CLASSES = {
    "heads": "Heads",
    "neurons": "Neurons",
    "concept": "Concept",
    "edit": "Edits",
    "sparsity": "Sparsity",
}


def result(known: KnownProbe) -> Any:
    """A `Heads`, `Neurons`, `Concept`, `Edits` or `Sparsity`.

    Raises NotFoundError for a probe that was stopped, FormatError for a record that is not in the form written here.
    """
    if known.found is None:
        raise NotFoundError(
            f"the probe {known.id[:12]} was stopped before its end",
            hint=f"the same `pv probe {known.kind}` goes on with the rest",
        )
    module = import_module(f"pv.vecstore.repo.probe.{known.kind}")
    try:
        return getattr(module, CLASSES[known.kind]).from_json(known.found)
    except FormatError as error:
        raise malformed(known) from error


def malformed(known: KnownProbe) -> FormatError:
    return FormatError(
        f"what is noted of the probe {known.id[:12]} is not in the form that this pv writes",
        hint="the same command writes it anew",
    )
