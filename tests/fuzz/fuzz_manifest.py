"""Personas, manifests, training rows, and the description of a pack. See README.md."""

from __future__ import annotations

from drive import drive, fuzzing

if __name__ == "__main__":
    drive(fuzzing.document, fuzzing.document_seeds())
