"""Packs from the inside: parts, chunks, and the codecs that make them small."""
