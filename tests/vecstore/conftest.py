"""Tiny checkpoints that every test here may read, made once; and properties that are never timed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tiny import tiny_checkpoint

# A busy machine is no defect.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bf16 Llama checkpoint with tied embeddings. Read it only."""
    return tiny_checkpoint(tmp_path_factory.mktemp("tied") / "base")


@pytest.fixture(scope="session")
def tiny_untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an output matrix of its own. Read it only."""
    return tiny_checkpoint(tmp_path_factory.mktemp("untied") / "base", tied=False)
