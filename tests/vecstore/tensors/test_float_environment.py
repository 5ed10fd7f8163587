"""The engine refuses to compute in a thread whose floating point is not plain IEEE."""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.merging import combine

from pv.registry.combine import Combine
from pv.registry.errors import PvError
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import apply, scaled_sum

X = np.ones(4, np.float32)
ENTRIES: list[Callable[[], object]] = [
    float_environment.check,
    lambda: scaled_sum([(1.0, X)]),
    lambda: combine(Combine.of("add"), [(1.0, X)]),
    lambda: combine(Combine.of("ties"), [(1.0, X)]),
    lambda: apply(X, X),
]


@contextmanager
def _flushing() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no flush-to-zero mode")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("entry", ENTRIES)
def test_flush_to_zero_is_refused(entry: Callable[[], object]) -> None:
    entry()
    with _flushing(), pytest.raises(PvError, match="flushes subnormal numbers") as caught:
        entry()
    assert "fresh process" in (caught.value.hint or "")
    entry()


def test_the_thread_that_computes_is_the_one_that_is_checked() -> None:
    caught: list[PvError] = []

    def work() -> None:
        with _flushing():
            try:
                apply(X, X)
            except PvError as error:
                caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1
    apply(X, X)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or sys.platform == "win32",
    reason="the rounding modes' numbers are those of x86",
)
@pytest.mark.parametrize("mode", [0x400, 0x800, 0xC00], ids=["down", "up", "towards zero"])
def test_another_rounding_mode_is_refused(mode: int) -> None:
    libm = ctypes.CDLL(None)
    assert libm.fesetround(mode) == 0
    try:
        with pytest.raises(PvError, match="round to nearest"):
            float_environment.check()
    finally:
        libm.fesetround(0)
    float_environment.check()
