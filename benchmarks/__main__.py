"""Run benchmarks by name, all by default."""

from __future__ import annotations

import importlib
import os
import sys
import time

from benchmarks.kit import BASE, ORIGIN

NAMES = (
    "startup",
    "chat",
    "behaviour",
    "replies",
    "storage",
    "commit",
    "diff",
    "rebuild",
    "compress",
    "exact",
    "merge",
    "merge_methods",
    "loops",
    "drift",
    "composition",
    "composition_cost",
    "persona_sets",
    "forecast",
    "steering",
    "probe_heads",
    "probe_calibration",
    "probe_neurons",
    "probe_concept",
    "probe_edit",
    "probe_sparsity",
    "probe_stops",
    "training_speed",
    "optimizer",
    "optimizer_quality",
)


def main() -> int:
    names = sys.argv[1:] or NAMES
    print(f"base: {BASE.name}, {ORIGIN}" if not os.environ.get("PV_TEST_BASE") else f"base: {BASE}")
    failed = []
    for name in names:
        if name not in NAMES:
            print(f"no benchmark {name!r}; there are: {', '.join(NAMES)}")
            return 2
        print(f"\n## {name}\n", flush=True)
        started = time.monotonic()
        if not importlib.import_module(f"benchmarks.{name}").main():
            failed.append(name)
        print(f"\n({time.monotonic() - started:.0f} s)")
    if failed:
        print(f"\nbars missed in: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
