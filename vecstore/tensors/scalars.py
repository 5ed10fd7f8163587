"""sin, cos and acos of single numbers, to 40 decimal digits: the same on every machine, as no math library's are.

Decimal arithmetic is exactly specified. What comes out is rounded to a double, or to fp32, once, by whoever uses it.
"""

from __future__ import annotations

from decimal import Context, Decimal, localcontext

__all__ = ["DIGITS", "EXACT", "acos", "cos", "sin"]

DIGITS = 40
EXACT = Context(prec=DIGITS)
"""The context to calculate in: `with localcontext(EXACT)`."""

_PI = Decimal("3.1415926535897932384626433832795028841971693993751")
_ONE = Decimal(1)


def sin(x: Decimal) -> Decimal:
    """Of an angle from 0 to π."""
    return _series(x, 1)


def cos(x: Decimal) -> Decimal:
    """Of an angle from 0 to π."""
    return _series(x, 0)


def acos(x: Decimal) -> Decimal:
    """From 0 to π; of a cosine that rounding left outside -1 to 1, as of the nearest there."""
    with localcontext(EXACT):
        if x >= 1:
            return Decimal(0)
        if x <= -1:
            return +_PI
        tangent = ((1 - x) / (1 + x)).sqrt()  # of half the angle
        return 2 * _atan(tangent) if tangent <= 1 else _PI - 2 * _atan(1 / tangent)


def _series(x: Decimal, power: int) -> Decimal:
    """x^p/p! - x^(p+2)/(p+2)! + ..."""
    with localcontext(EXACT):
        term = x if power else _ONE
        total, square = term, x * x
        while True:
            term = -term * square / ((power + 1) * (power + 2))
            power += 2
            if total + term == total and power > 8:
                return total
            total += term


def _atan(x: Decimal) -> Decimal:
    """Of 0 to 1: the angle is halved until the series is quick."""
    halvings = 5
    for _ in range(halvings):
        x = x / (1 + (1 + x * x).sqrt())
    total, power, square, n = x, x, x * x, 1
    while power:
        power, n = -power * square, n + 2
        if total + power / n == total:
            break
        total += power / n
    return total * Decimal(2**halvings)
