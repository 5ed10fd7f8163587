"""A base and its place in words. A stranger's manifest may say anything: what would not print is spelled out."""

from __future__ import annotations

from collections.abc import Mapping

from pv.registry.manifest import BaseManifest

__all__ = ["base_in_words", "origin_in_words", "place_in_words"]


def origin_in_words(manifest: BaseManifest) -> str:
    """Where it came from."""
    return place_in_words(manifest.origin)


def place_in_words(origin: Mapping[str, str]) -> str:
    if origin.get("kind") == "hub":
        return f"hf://{origin.get('repo')}@{origin.get('revision')}"
    return _printable(origin.get("path", "unknown"))


def base_in_words(manifest: BaseManifest) -> str:
    """`SmolLM2-135M-Instruct (1fa69c1ae151)`"""
    return f"{_printable(manifest.name)} ({manifest.id[:12]})"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)
