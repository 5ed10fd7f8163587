"""The header of a safetensors file. See README.md."""

from __future__ import annotations

from drive import drive, fuzzing

if __name__ == "__main__":
    drive(fuzzing.header, fuzzing.header_seeds())
