"""PEFT adapters: their configuration, their files, and what they do to a base."""
