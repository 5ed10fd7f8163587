"""Experiments on how behaviours are trained and combined.

    python -m examples.experiments number_of_examples   how many examples change behaviour?
    python -m examples.experiments learning_rate        at which learning rate?
    python -m examples.experiments general_data         what does general data do against forgetting?
    python -m examples.experiments rank                 what rank does a behaviour need?
    python -m examples.experiments construction         which construction composes?
    python -m examples.experiments sparsity             does sparse training compose better than plain?

Each prints its table and writes NAME.md, NAME.png and NAME.html. A run that was stopped goes on where it was; one that
is done is there at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from examples.experiments.experiment import Experiment, Plan, Table
from examples.experiments.run import Run
from pv.registry.errors import PvError

NAMES = ("number_of_examples", "learning_rate", "general_data", "rank", "construction", "sparsity")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personavec"


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    names = NAMES if "all" in asked.names else asked.names
    plan = Plan(seeds=asked.seeds or (1 if asked.quick else 3), quick=asked.quick)
    for name in names:
        try:
            _one(name, plan, asked)
        except KeyboardInterrupt:
            print(f"stopped; what was measured is kept: {_command(name, plan)} goes on", file=sys.stderr)
            return 130
        except PvError as error:
            print(f"error: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
            return 1
    return 0


def _one(name: str, plan: Plan, asked: argparse.Namespace) -> None:
    experiment: Experiment = importlib.import_module(f"examples.experiments.{name}")
    found = Run(name, experiment, plan, asked.base, asked.cache / "experiments").found()
    from examples.experiments.page import Page
    from examples.experiments.plots import render

    table = experiment.table(found)
    for note in found.notes:
        print(note, file=sys.stderr)
    _show(experiment.TITLE, table)
    facts = (
        f"{asked.base.name}, {plan.seeds} seed{'s' if plan.seeds > 1 else ''}, computed in bf16 over fp32 weights; "
        f"intervals are of 95 %, over rows, each a mean over seeds."
        + (
            " A quick run: two steps on a few rows, which shows that it works and nothing else."
            if plan.quick
            else ""
        )
    )
    plots = render(lambda figure: experiment.draw(figure, found))
    page = Page(f"{name}.quick" if plan.quick else name, experiment, table, plots, found.notes,
                _command(name, plan), facts)  # fmt: skip
    print(f"{', '.join(str(file) for file in page.write(asked.out))}", file=sys.stderr)


def _show(title: str, table: Table) -> None:
    """Never cut: a line that is too long for a terminal can be scrolled, a number that is missing cannot."""
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    print(f"\n{title}\n")
    for row in (table.columns, *table.rows):
        first, *others = (cell.ljust(w) if not at else cell.rjust(w) for at, (cell, w) in
                          enumerate(zip(row, widths, strict=True)))  # fmt: skip
        print("  ".join([first, *others]))
    print(flush=True)


def _command(name: str, plan: Plan) -> str:
    quick = " --quick" if plan.quick else ""
    seeds = f" --seeds {plan.seeds}" if plan.seeds != (1 if plan.quick else 3) else ""
    return f"python -m examples.experiments {name}{seeds}{quick}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.experiments",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME", choices=(*NAMES, "all"), help="an experiment, or all"
    )
    parser.add_argument("--seeds", type=_count, metavar="N", help="trained so often (3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="two steps on a few rows: whether it works here")
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="a checkpoint (what `make base` fetched)",
        default=Path(os.environ.get("PV_TEST_BASE") or CACHE / "SmolLM2-135M-Instruct"),
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("experiments"), help="(experiments)")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", default=CACHE, help="what was measured and trained"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no number of seeds from 1 to 100")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
