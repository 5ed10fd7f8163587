"""Steering a maze agent: nets are trained to fetch cheese, then vectors are added to their activations.

    python -m examples.maze              trains five nets and measures them; minutes on two cores
    python -m examples.maze --quick      a net of a few weights, hardly trained: whether it works here, in seconds

Writes results.json, a PNG a figure, and maze.html, which needs nothing beside it. A net that was trained, and a section
that was measured, is kept: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from examples.maze.bench import Plan
from pv.registry.errors import PvError

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "personavec" / "maze"


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    command = "python -m examples.maze" + (" --quick" if asked.quick else "")
    try:
        return _run(asked, command)
    except KeyboardInterrupt:
        print(f"stopped; nets and sections that were done are kept: {command} goes on", file=sys.stderr)
        return 130
    except PvError as error:
        print(f"error: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return 1


def _run(asked: argparse.Namespace, command: str) -> int:
    from examples.maze.study import Study

    torch.set_num_threads(1)  # of small tensors: two threads would wait for one another
    study = Study(Plan.small() if asked.quick else Plan(), asked.cache, asked.workers)
    bench = study.bench()
    found = study.found(bench)
    from examples.maze.page import write

    spent = study.spent()
    facts = (
        f"Net R = {bench.plan.main}, {sum(one.numel() for one in bench.net.parameters()):,} weights, steered at "
        f"{bench.site}. Training took {spent['training_cpu_s']:.0f} s of one core for {len(bench.nets)} nets, "
        f"measuring {spent['measuring_cpu_s']:.0f} s. Intervals are of 95 %: bootstrap over mazes, paired where two "
        "policies are compared; Wilson's for shares."
        + (
            " A quick run: nets that know nothing, which shows that it works and nothing else."
            if asked.quick
            else ""
        )
    )
    results = {"command": command, "spent": spent, "site": bench.site, "found": found}
    files, verdicts = write(asked.out, results, bench, facts, command)
    for bar in verdicts:
        print(f"{'shown ' if bar.met else 'not so'}  {bar.claim}\n        {bar.measured}")
    print(f"{', '.join(str(file) for file in files)}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.maze", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds: whether it works here")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("experiments/maze"), help="(experiments/maze)"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", default=CACHE, help="nets, and what was measured"
    )
    parser.add_argument("--workers", type=_count, default=2, metavar="N", help="nets trained at a time (2)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text} is no number of processes from 1 to 64")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
