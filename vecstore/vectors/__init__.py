"""Task vectors: measured from a base, in an encoding, captured, trained or derived."""
