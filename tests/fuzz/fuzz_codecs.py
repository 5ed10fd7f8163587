"""Chunks of packs: planes, deltas, rANS, zstd frames. See README.md."""

from __future__ import annotations

from drive import drive, fuzzing

if __name__ == "__main__":
    drive(fuzzing.chunk, fuzzing.chunk_seeds())
