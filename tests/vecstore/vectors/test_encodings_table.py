"""The two tables of encodings are one, and what a person may ask for is what an encoding can make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vectors import decoded, delta

from pv.registry.errors import UsageError
from pv.registry.manifest import ENCODINGS, STEERING
from pv.vecstore.vectors import encodings
from pv.vecstore.vectors.derive import EncodingSpec

SHAPE = (6, 10)
ASKED = [(name, text) for name, module in encodings.MADE.items() for text in module.EXAMPLES]


def test_the_tables_are_equal_and_files_are_called_as_encodings_are() -> None:
    assert {*encodings.ALL, STEERING} == set(ENCODINGS)
    for name, module in encodings.ALL.items():
        assert Path(module.__file__ or "").stem in (name, f"{name}s")


@pytest.mark.parametrize(("name", "text"), ASKED)
def test_an_example_can_be_asked_for_and_made(name: str, text: str) -> None:
    spec = EncodingSpec.parse(text)
    assert (spec.encoding, spec.text) == (name, text)
    tau = delta(SHAPE)
    options: dict[str, Any] = dict(spec.options)
    parts = encodings.by_name(name).encode(tau, SHAPE, **options)
    found = decoded(name, parts, SHAPE)
    assert found.dtype == np.float32 and found.shape == tau.shape and np.isfinite(found).all()


@pytest.mark.parametrize(
    "text", ["", "exact", "lora:4", "nothing", "int8:4", "lowrank", "lowrank:x", "sparse:2"]
)
def test_what_cannot_be_made_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        EncodingSpec.parse(text)
