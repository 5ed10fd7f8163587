"""One seed for what a test here trains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def same_numbers() -> Iterator[None]:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield
