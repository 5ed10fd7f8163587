"""How often the verdict on heads is wrong: what it said of fine-tunes of which it is known where they are.

The table is measured, not chosen: `MEASURED_BY` is the command, `MODEL` what it ran on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pv.vecstore.evaluate.statistics import Interval, share
from pv.vecstore.probe.verdict import Kind

__all__ = ["CALIBRATION", "Calibration", "error_rate_words"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """`counts`: of each planted kind, how many runs got which verdict."""

    model: str
    measured_by: str
    counts: Mapping[Kind, Mapping[Kind, int]]

    @property
    def runs(self) -> int:
        return sum(sum(said.values()) for said in self.counts.values())

    @property
    def error_rate(self) -> Interval | None:
        """Verdicts other than what was planted, of all that were not inconclusive; None if there are none."""
        said = [(planted, found, n) for planted, one in self.counts.items() for found, n in one.items()]
        settled = sum(n for _, found, n in said if found != "inconclusive")
        wrong = sum(n for planted, found, n in said if found not in ("inconclusive", planted))
        return share(wrong, settled) if settled else None

    @property
    def inconclusive(self) -> int:
        return sum(said.get("inconclusive", 0) for said in self.counts.values())


CALIBRATION = Calibration(
    model="SmolLM2-135M-Instruct",
    measured_by="python -m benchmarks probe_calibration",
    counts=MappingProxyType({
        "mostly MLP": {"mostly MLP": 7},
        "localized": {"localized": 7},
        "hierarchically distributed": {"hierarchically distributed": 7},
        "distributed": {"distributed": 7},
        "inconclusive": {"inconclusive": 7},
    }),
)  # fmt: skip
"""35 runs of 2026-11-22; docs/log.md has them."""


def error_rate_words(of: Calibration = CALIBRATION) -> str:
    """The line that goes with every verdict."""
    rate = of.error_rate
    if rate is None:
        return "error rate: not calibrated"
    return (
        f"error rate: {round(rate.mean * rate.n)} of {rate.n} verdicts on planted fine-tunes of {of.model} were wrong "
        f"(95 % interval {100 * rate.low:.0f} to {100 * rate.high:.0f} %), {of.inconclusive} of {of.runs} inconclusive"
    )
