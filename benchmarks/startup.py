"""How long the light commands take, as whole processes, beside a bare interpreter that imports click."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.kit import BASE, Bars, median_s, pv

LIMITS_S = {"--help": 0.1, "log": 0.2, "status": 0.2}


def main() -> bool:
    bars = Bars()
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp)
        pv("init", "--base", str(BASE), "--reference", cwd=folder)
        for number in range(5):
            pv("branch", f"b{number}", cwd=folder)
        peer = median_s([sys.executable, "-c", "import click"], folder)
        print(f"peer: python -c 'import click'  {peer:.3f} s")
        for command, limit in LIMITS_S.items():
            taken = median_s([str(Path(sys.executable).with_name("pv")), command], folder)
            value = f"{taken:.3f} s, {taken / peer:.2f} of the peer"
            bars.say(f"pv {command}", value, f"<= {limit} s", taken <= limit)
    return bars.all_hold
