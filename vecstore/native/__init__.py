"""The engine's inner loops, compiled. Where there is no compiled library, numpy computes the same bits."""
