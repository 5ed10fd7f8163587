"""The merge engine: deltas and weights in, the bytes of a checkpoint out, the same on every machine.

Engine 1 is made of separate IEEE single-precision operations (add, subtract, multiply, divide, compare) and
of integer operations, in a fixed order. Nothing here fuses a multiply with an add, calls BLAS, sums with a
library reduction or evaluates a transcendental function, so the result depends neither on the number of
threads, nor on how the elements are cut into pieces, nor on the instruction set.

    environment   refuses a thread in which floating point is not plain IEEE
    philox        random bits as a function of (seed, name, index)
    formats       raw storage to fp32, exactly
    rounding      fp32 to raw storage: the one rounding of a build
    combine       the deltas of several behaviours to one, and that one onto the base
"""

from __future__ import annotations

from pv.registry.persona import ENGINE

__all__ = ["ENGINE"]
