"""The model that an adapter, or a checkpoint's config, says it was trained from, held against a base's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pv.registry import canonical
from pv.registry.errors import FormatError
from pv.registry.manifest import BaseManifest

__all__ = ["differs", "name_in_config", "names_of_base"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_CACHED = re.compile(r"(?:^|[\\/])models--([^\\/]+)--([^\\/]+)[\\/]snapshots[\\/]")
_QUANTISED = re.compile(r"([-_.](unsloth|bnb|[48]bit|int[48]|gptq|awq|fp8|nf4|hf|bf16|fp16))+$")


def names_of_base(base: BaseManifest, files: Mapping[str, bytes]) -> list[str]:
    """What the base is called: by its origin, and in its own config.json."""
    said = name_in_config(files.get("config.json", b""))
    return [base.name if "repo" in base.origin else base.origin.get("path", ""), *([said] if said else [])]


def name_in_config(data: bytes) -> str | None:
    """The Hub id that a config.json has under `_name_or_path`, if it is one."""
    try:
        config: Any = canonical.loads(data, what="config.json")
    except FormatError:
        return None
    said = config.get("_name_or_path") if isinstance(config, dict) else None
    return said if isinstance(said, str) and _HUB_ID.fullmatch(said) else None


def differs(said: str, names: list[str]) -> bool | None:
    """Whether `said` is another model than the base: None if it is a place on a disk, which says little.

    Only the last part counts, without regard to case: a copy of a model keeps that. `-bnb-4bit` and the like are the
    same model made smaller.
    """
    if _last(said) in {_last(name) for name in names}:
        return False
    return True if _HUB_ID.fullmatch(said) or _CACHED.search(said) else None


def _last(name: str) -> str:
    cached = _CACHED.search(name)
    last = cached[2] if cached else re.split(r"[\\/]+", name.rstrip("\\/"))[-1]
    return _QUANTISED.sub("", last.lower())
