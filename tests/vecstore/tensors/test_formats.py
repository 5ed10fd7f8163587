"""Widening to fp32, against torch on every bit pattern there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pv.registry.errors import UsageError
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import FLOATS, to_f32

TORCH = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def _every_code(dtype: str) -> np.ndarray:
    storage = storage_dtype(dtype)
    return np.arange(1 << (8 * storage.itemsize), dtype=np.uint32).astype(storage)


@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_every_code_widens_as_in_torch(dtype: str) -> None:
    codes = _every_code(dtype)
    ours = to_f32(codes, dtype)
    theirs = torch.from_numpy(codes.copy()).view(TORCH[dtype]).to(torch.float32).numpy()
    nan = np.isnan(theirs)
    assert np.array_equal(np.isnan(ours), nan)
    assert np.array_equal(ours.view(np.uint32)[~nan], theirs.view(np.uint32)[~nan])


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E5M2"])
def test_a_nan_keeps_sign_payload_and_quietness(dtype: str) -> None:
    codes = _every_code(dtype)
    wide = to_f32(codes, dtype).view(np.uint32)
    nan = np.isnan(wide.view(np.float32))
    assert nan.sum() == {"BF16": 254, "F16": 2046, "F8_E5M2": 6}[dtype]
    assert len(np.unique(wide[nan])) == nan.sum()
    mantissa_bits = {"BF16": 7, "F16": 10, "F8_E5M2": 2}[dtype]
    quiet = (codes[nan] >> (mantissa_bits - 1)) & 1
    assert np.array_equal((wide[nan] >> 22) & 1, quiet)


def test_f32_is_a_view_and_shapes_are_kept() -> None:
    raw = np.arange(6, dtype=np.uint32).reshape(2, 3)
    assert np.shares_memory(to_f32(raw, "F32"), raw)
    half = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert to_f32(half, "F16").shape == (3, 4)
    transposed = to_f32(half.T, "BF16")
    assert np.array_equal(transposed, to_f32(half, "BF16").T)
    assert to_f32(np.empty(0, np.uint8), "F8_E4M3").shape == (0,)


def test_what_fp32_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="F64") as caught:
        to_f32(np.zeros(2, np.uint64), "F64")
    assert caught.value.hint is not None
    with pytest.raises(UsageError, match="I32"):
        to_f32(np.zeros(2, np.uint32), "I32")
    with pytest.raises(UsageError, match="uint16"):
        to_f32(np.zeros(2, np.uint32), "BF16")
    assert "F64" not in FLOATS


def test_storage() -> None:
    kinds = {"F8_E5M2": "u1", "BOOL": "u1", "BF16": "u2", "F32": "u4", "F64": "u8", "I64": "u8"}
    assert {dtype: storage_dtype(dtype).str[1:] for dtype in kinds} == kinds
    with pytest.raises(UsageError, match="whole bytes"):
        storage_dtype("F4")
    with pytest.raises(UsageError):
        storage_dtype("NOPE")
