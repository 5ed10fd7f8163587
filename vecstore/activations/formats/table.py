"""The formats of steering vectors. To add one is to add a file, a row here, and a row to docs/steering-formats.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry.errors import FormatError, UsageError
from pv.vecstore.activations.formats import gguf, lm_eval, persona_vectors, safetensors, svec
from pv.vecstore.activations.formats.values import Directions, Model, Read, file_bytes

__all__ = ["FORMATS", "Format", "format_of", "named"]


@dataclass(frozen=True, slots=True)
class Format:
    """Its name, the endings of its files, and its functions.

    `conventions`: how its numbers of layers may be read, the first by default; empty: there is one way. `holds`: the
    sites that it has room for; `coefficient`: whether a file has one (else the directions are scaled by it);
    `by_name`: sites stand in it as they are called, so that nothing of the model is asked for to write one.
    """

    name: str
    suffixes: tuple[str, ...]
    recognise: Callable[[Path], bool]
    holds: str
    reader: Callable[..., Read]
    writer: Callable[..., None]
    conventions: tuple[str, ...] = ()
    coefficient: bool = False
    by_name: bool = False

    def read(self, path: Path, model: Model, *, convention: str | None = None) -> Read:
        """Raises FormatError, BaseMismatch, NotFoundError, UsageError."""
        return self.reader(path, model, **self._settings(convention))

    def write(
        self,
        path: Path,
        directions: Directions,
        model: Model,
        *,
        coefficient: float = 1.0,
        convention: str | None = None,
    ) -> None:
        """Replaces what is there. Raises UsageError for a site that the format has no room for, StorageError."""
        self.writer(path, directions, model, coefficient=coefficient, **self._settings(convention))

    def check_convention(self, convention: str | None) -> None:
        """Raises UsageError for one that the format does not know."""
        if convention is not None and convention not in self.conventions:
            known = ", ".join(self.conventions)
            raise UsageError(
                f"{self.name} knows no convention {convention!r}",
                hint=f"one of {known}" if known else "its layers can be read in one way only: leave it out",
            )

    def _settings(self, convention: str | None) -> dict[str, Any]:
        self.check_convention(convention)
        return {} if convention is None else {"convention": convention}


FORMATS = (
    Format("gguf", (".gguf",), gguf.recognise, "outputs of blocks, but the first's", gguf.read, gguf.write,
           conventions=gguf.CONVENTIONS),
    Format("lm-eval", (".pt", ".pth"), lm_eval.recognise, "outputs of modules", lm_eval.read, lm_eval.write,
           coefficient=True),
    Format("persona-vectors", (".pt",), persona_vectors.recognise, "outputs of blocks", persona_vectors.read,
           persona_vectors.write),
    Format("svec", (".svec",), svec.recognise, "inputs of blocks", svec.read, svec.write,
           conventions=svec.CONVENTIONS),
    Format("safetensors", (".safetensors",), safetensors.recognise, "every site", safetensors.read, safetensors.write,
           coefficient=True, by_name=True),
)  # fmt: skip


def named(name: str) -> Format:
    """Raises UsageError."""
    for one in FORMATS:
        if one.name == name:
            return one
    raise UsageError(
        f"no format {name[:40]!r} of steering vectors",
        hint=f"one of {', '.join(one.name for one in FORMATS)}",
    )


def format_of(path: Path) -> Format:
    """The format of a file, by what is in it. Raises FormatError if it is none of them or broken, NotFoundError."""
    file_bytes(path)
    for one in FORMATS:
        if one.recognise(path):
            return one
    raise FormatError(
        f"{path} is no steering vector in a format that pv knows",
        hint=f"it reads {', '.join(one.name for one in FORMATS)}: docs/steering-formats.md",
    )
