"""The registry that the benchmarks of probes measure in: the three example behaviours, trained with pv's defaults.

Branch main has them with seed 0; seed1 is the same again with another seed; shuffled has them trained on rows of which
half have chosen and rejected swapped: as much training, and nothing to learn. It is kept in the cache.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.kit import BASE, CACHE, ROWS
from pv.vecstore.data.rows import Rows, read_rows
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo

__all__ = ["BEHAVIOURS", "FOLDER", "lab", "main"]

BEHAVIOURS = ("listening", "concise", "pirate")
BRANCHES = {"main": 0, "seed1": 1, "shuffled": 0}
FOLDER = CACHE / "probes" / "registry"


@contextmanager
def lab(*branches: str) -> Iterator[Repo]:
    """Opened on main; what these branches (none: all) have not trained yet is trained first: about a minute each."""
    if not (FOLDER / ".pv").is_dir():
        init(FOLDER, BASE, threads=2)
    with Repo.open(FOLDER) as repo:
        begin = repo.log(limit=None)[-1].id
        for branch, seed in BRANCHES.items():
            if branches and branch not in branches:
                continue
            if branch not in repo.branches():
                repo.branch(branch, begin)
            for name in BEHAVIOURS:
                if name not in repo.at(branch).persona.behaviours:
                    repo.switch(branch)
                    rows = read_rows(ROWS / f"{name}.jsonl")
                    print(f"training {name} on {branch}", flush=True)
                    repo.train(
                        _shuffled(rows) if branch == "shuffled" else rows,
                        name=name,
                        held_out=ROWS / f"{name}.heldout.jsonl",
                        seed=seed,
                        threads=int(os.environ.get("OMP_NUM_THREADS", "2")),
                    )
        repo.switch("main")
        yield repo


def _shuffled(rows: Rows) -> Rows:
    half = set(random.Random(0).sample(range(len(rows)), len(rows) // 2))
    turned = tuple(
        replace(row, chosen=row.rejected, rejected=row.chosen) if i in half else row
        for i, row in enumerate(rows)
    )
    return Rows(turned, f"shuffled {rows.source}")


def main() -> bool:
    with lab() as repo:
        print(f"{', '.join(repo.branches())} in {FOLDER}")
    return True


if __name__ == "__main__":
    main()
