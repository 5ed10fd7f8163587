"""Chunks of packs: planes, deltas, rANS, zstd frames. See README.md."""

from __future__ import annotations

from drive import drive, fuzz_kit

if __name__ == "__main__":
    drive(fuzz_kit.chunk, fuzz_kit.chunk_seeds())
