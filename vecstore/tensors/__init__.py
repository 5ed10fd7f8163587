"""Arrays of bits, and the engine: the arithmetic that gives the same bytes on every machine."""
