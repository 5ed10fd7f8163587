"""A steering term in words, for the terminal, notebooks and cards alike."""

from __future__ import annotations

from collections.abc import Sequence

from pv.registry.combine import json_number
from pv.registry.steering import SteeringTerm

__all__ = ["site_words", "state_words", "steering_differences", "steering_line", "steering_words"]

MOST_SITES = 3  # in a line


def steering_words(term: SteeringTerm) -> str:
    """`2 × vector 1a2b3c4d at model.layers.14, all positions`"""
    words = f"{json_number(term.coefficient)} × vector {term.vector[:8]} at {site_words(term.sites)}, {_where(term)}"
    if term.when is not None:
        words += f", {_when(term)}"
    return words + (f", retired by {term.retired_by}" if term.retired_by is not None else "")


def steering_line(name: str, term: SteeringTerm) -> str:
    """`steering formal  2 × vector 1a2b3c4d at model.layers.14, all positions`"""
    return f"steering {name}  {steering_words(term)}"


def site_words(sites: Sequence[str] | None, most: int | None = MOST_SITES) -> str:
    """`model.layers.14`; `all its sites`; of many the first, and how many more."""
    if sites is None:
        return "all its sites"
    if most is None or len(sites) <= most:
        return ", ".join(sites)
    return f"{', '.join(sites[:most])} and {len(sites) - most} more"


def state_words(term: SteeringTerm) -> str:
    """`retired by NAME`, `verified`, `tested` or `extracted`; of a coefficient of 0 `off`."""
    if term.retired_by is not None:
        return f"retired by {term.retired_by}"
    if not term.coefficient:
        return "off"
    return next((gate for gate in ("verified", "tested") if gate in term.evidence), "extracted")


def steering_differences(before: SteeringTerm, after: SteeringTerm) -> list[str]:
    """`coefficient 1 -> 2`, for each thing that differs."""
    found = []
    if before.coefficient != after.coefficient:
        found.append(f"coefficient {json_number(before.coefficient)} -> {json_number(after.coefficient)}")
    if before.vector != after.vector:
        found.append(f"vector {before.vector[:8]} -> {after.vector[:8]}")
    if before.sites != after.sites:
        found.append(f"at {site_words(before.sites)} -> {site_words(after.sites)}")
    if before.positions != after.positions:
        found.append(f"{_where(before)} -> {_where(after)}")
    if before.when != after.when:
        found.append(f"{_when(before)} -> {_when(after)}")
    if before.retired_by != after.retired_by:
        back, by = f"no longer retired by {before.retired_by}", f"retired by {after.retired_by}"
        found.append(back if after.retired_by is None else by)
    if before.evidence != after.evidence:
        found.append(_known(before, after))
    return found


def _where(term: SteeringTerm) -> str:
    return {"all": "all positions", "prompt": "the prompt", "reply": "the reply"}[term.positions]


def _when(term: SteeringTerm) -> str:
    if term.when is None:
        return "for every prompt"
    return f"if the cosine with {term.when.vector[:8]} at {term.when.site} is above {json_number(term.when.above)}"


def _known(before: SteeringTerm, after: SteeringTerm) -> str:
    new = sorted(key for key, one in after.evidence.items() if before.evidence.get(key) != one)
    return (
        ", ".join(new)
        if new
        else "no longer " + ", ".join(sorted(before.evidence.keys() - after.evidence.keys()))
    )
