"""Personas, manifests, training rows, and the description of a pack. See README.md."""

from __future__ import annotations

from drive import drive, fuzz_kit

if __name__ == "__main__":
    drive(fuzz_kit.document, fuzz_kit.document_seeds())
