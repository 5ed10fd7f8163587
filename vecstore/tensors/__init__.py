"""Arrays of bits, and engine 1: the arithmetic that gives the same bytes on every machine."""
