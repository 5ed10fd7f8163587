"""The header of a safetensors file. See README.md."""

from __future__ import annotations

from drive import drive, fuzz_kit

if __name__ == "__main__":
    drive(fuzz_kit.header, fuzz_kit.header_seeds())
