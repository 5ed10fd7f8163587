"""Packs as files: what one says that it holds, and the store of them. Nothing is decoded here."""
