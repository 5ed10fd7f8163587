"""Where a steering vector came from: extracted from the activations of pairs of texts, or imported from a file.

    extracted  {"kind", "method", "read", "pairs": {"data", "data_id", "n"}, "quality", "settings", "packs"?}
    imported   {"kind", "format", "source", "packs"?}

`registry/provenance` reads them with the others. `quality` and `settings` may hold any JSON, of 64 KiB at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pv.registry.origin_fields import bounded, extra_of, mapping_of, packs_of, text_of

__all__ = ["Extracted", "Imported", "Pairs"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The rows whose two sides were compared: the file's name, the rows' id, and how many pairs."""

    data: str
    data_id: str
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"data": self.data, "data_id": self.data_id, "n": self.n}


@dataclass(frozen=True, slots=True)
class Extracted:
    """`method` made the directions of what was `read` of each text; `quality` is what was measured of them then.

    Raises FormatError where `quality` or `settings` is no JSON, or too large.
    """

    method: str
    read: str
    pairs: Pairs
    quality: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    packs: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bounded(self.quality, "what was measured of an extracted vector")
        bounded(self.settings, "how a vector was extracted")

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            **self.extra,
            "kind": "extracted",
            "method": self.method,
            "read": self.read,
            "pairs": self.pairs.to_json(),
            "quality": dict(self.quality),
            "settings": dict(self.settings),
        }
        return document if not self.packs else {**document, "packs": list(self.packs)}

    @staticmethod
    def of_json(document: Mapping[str, Any]) -> Extracted:
        """Raises ValueError, LookupError, TypeError or FormatError for another form."""
        pairs = mapping_of(document["pairs"])
        if type(pairs["n"]) is not int or pairs.keys() != {"data", "data_id", "n"}:
            raise ValueError("no pairs")
        return Extracted(
            text_of(document["method"]),
            text_of(document["read"]),
            Pairs(text_of(pairs["data"]), text_of(pairs["data_id"]), pairs["n"]),
            mapping_of(document.get("quality", {})),
            mapping_of(document.get("settings", {})),
            packs_of(document),
            extra_of(document, "method", "read", "pairs", "quality", "settings"),
        )


@dataclass(frozen=True, slots=True)
class Imported:
    """Read from a file of a `format`; `source` is the file's name."""

    format: str
    source: str
    packs: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        document = {**self.extra, "kind": "imported", "format": self.format, "source": self.source}
        return document if not self.packs else {**document, "packs": list(self.packs)}

    @staticmethod
    def of_json(document: Mapping[str, Any]) -> Imported:
        """Raises ValueError or LookupError for another form."""
        return Imported(
            text_of(document["format"]),
            text_of(document["source"]),
            packs_of(document),
            extra_of(document, "format", "source"),
        )
