"""The one table of number formats. To add a dtype is to add a row: everything else follows from it.

name        what safetensors calls it
bits        of an element
exponent    bits of the exponent; 0 for what is not a float with fields of that kind
mantissa    bits of the mantissa
in_fp32     every value is an fp32 value, so the engine computes with it and a vector can move it
infinity    whether the top exponent is kept for infinity and NaN (E4M3 has one NaN and no infinity)
output      its spelling in persona.json and in `--dtype`, where builds may be written in it
torch       what PyTorch and config.json call it, where `output` is given
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DTYPES", "OUTPUTS", "OUTPUT_CHOICES", "DType", "output_name"]


@dataclass(frozen=True, slots=True)
class DType:
    name: str
    bits: int
    exponent: int = 0
    mantissa: int = 0
    in_fp32: bool = False
    infinity: bool = True
    output: str | None = None
    torch: str | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of an element. Those of less than a byte lie one in a byte when they are worked on."""
        return max(1, self.bits // 8)

    @property
    def storage(self) -> str:
        """numpy's name of the unsigned integer that holds an element: "<u2"."""
        return f"<u{self.itemsize}"

    @property
    def is_float(self) -> bool:
        return self.exponent > 0


_ROWS = (
    DType("BF16", 16, 8, 7, in_fp32=True, output="bf16", torch="bfloat16"),
    DType("F16", 16, 5, 10, in_fp32=True, output="fp16", torch="float16"),
    DType("F32", 32, 8, 23, in_fp32=True, output="fp32", torch="float32"),
    DType("F64", 64, 11, 52),
    DType("F8_E4M3", 8, 4, 3, in_fp32=True, infinity=False),
    DType("F8_E5M2", 8, 5, 2, in_fp32=True),
    DType("F8_E4M3FNUZ", 8, 4, 3, infinity=False),
    DType("F8_E5M2FNUZ", 8, 5, 2, infinity=False),
    DType("F8_E8M0", 8),
    DType("F4", 4),
    DType("F6_E2M3", 6),
    DType("F6_E3M2", 6),
    DType("BOOL", 8),
    DType("I8", 8),
    DType("U8", 8),
    DType("I16", 16),
    DType("U16", 16),
    DType("I32", 32),
    DType("U32", 32),
    DType("I64", 64),
    DType("U64", 64),
    DType("C64", 64),
)

DTYPES: Mapping[str, DType] = {row.name: row for row in _ROWS}

OUTPUTS: Mapping[str, DType] = {row.output: row for row in _ROWS if row.output is not None}
"""What a build can be written as, by the persona's spelling."""

_BY_TORCH = {row.torch: row.output for row in _ROWS if row.torch is not None}


def output_name(text: str) -> str:
    """The persona's spelling of an output dtype: `bfloat16` is `bf16`. What is no such name comes back as it is."""
    return _BY_TORCH.get(text) or text


OUTPUT_CHOICES = ("base", *OUTPUTS)
""" "base" keeps each tensor's own."""
