"""The study: nets are trained that are not there yet, then section after section is measured, each kept when done."""

from __future__ import annotations

import ast
import hashlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from examples.experiments.cells import Cells
from examples.maze import algebra, effects, layers
from examples.maze import family as all_regions
from examples.maze.bench import Bench, Plan
from examples.maze.net import Policy
from examples.maze.train import Recipe, trained, trained_in
from pv.vecstore.activations import hooks, sites

__all__ = ["SECTIONS", "Study"]

SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "gates": effects.gates,
    "identity": effects.identity,
    "cheese": effects.cheese,
    "corner": effects.corner,
    "sweep": effects.sweep,
    "asymmetry": effects.asymmetry,
    "composition": algebra.composition,
    "transfer": algebra.transfer,
    "layers": layers.layers,
    "nonlinearity": layers.nonlinearity,
    "probe": layers.probe,
    "family": all_regions.family,
}


@dataclass(frozen=True, slots=True)
class Study:
    """`cache` keeps nets and sections; `workers` processes of one thread each train."""

    plan: Plan
    cache: Path
    workers: int = 2
    _cpu: dict[str, float] = field(default_factory=dict)

    def bench(self) -> Bench:
        """With all nets, trained where they are not there."""
        recipes = self.plan.recipes()
        todo = [one for one in recipes.values() if not (self._nets / f"{one.name}.safetensors").is_file()]
        if todo:
            _say(f"{len(recipes)} nets, {len(recipes) - len(todo)} of them trained before")
            self._train(todo)
        nets: dict[int, Policy] = {region: trained(one, self._nets) for region, one in recipes.items()}
        return Bench(self.plan, nets)

    def found(self, bench: Bench) -> dict[str, Any]:
        """Every section's results. A stop loses the one that was being measured."""
        common = {
            "code": CODE,
            "recipes": [one.name for one in self.plan.recipes().values()],
        }
        cells = Cells(self.cache / "sections", common)
        results: dict[str, Any] = {}
        for name, measure in SECTIONS.items():
            decides = {"section": name, "plan": asdict(self.plan), "site": bench.site}
            known = cells.get(decides)
            if known is None:
                began, spent = time.monotonic(), time.process_time()
                measured = measure(bench)
                cells.put(decides, {"measured": measured, "cpu_s": time.process_time() - spent})
                known = cells.get(decides) or {}  # as JSON gives it back, measured now or before
                _say(f"  {name}: {time.monotonic() - began:.0f} s")
            results[name] = known["measured"]
            self._cpu[name] = known["cpu_s"]
        return results

    def spent(self) -> dict[str, Any]:
        """Seconds of one core, whenever it was that they were spent."""
        nets = {str(region): trained_in(one, self._nets) for region, one in self.plan.recipes().items()}
        return {"training_cpu_s": sum(nets.values()), "measuring_cpu_s": sum(self._cpu.values()),
                "nets": nets, "sections": dict(self._cpu)}  # fmt: skip

    @property
    def _nets(self) -> Path:
        return self.cache / "nets"

    def _train(self, todo: list[Recipe]) -> None:
        if self.workers < 2 or len(todo) < 2:
            for recipe in todo:
                _one(recipe, self._nets)
            return
        with get_context("spawn").Pool(self.workers, _deaf) as pool:  # however this ends, they end with it
            for _ in pool.imap_unordered(partial(_one, folder=self._nets), todo):
                pass


def _deaf() -> None:
    """Ctrl-C is for the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _one(recipe: Recipe, folder: Path) -> None:
    """In a process of its own, or in this one, which has one thread as well."""
    torch.set_num_threads(1)
    began = time.monotonic()

    def said(step: int, loss: float) -> None:
        if step % 500 == 0:
            left = (time.monotonic() - began) / step * (recipe.steps - step)
            _say(f"  region {recipe.region}: step {step}/{recipe.steps}, loss {loss:.3f}, {left:.0f} s left")

    trained(recipe, folder, said)
    _say(f"  region {recipe.region}: trained in {time.monotonic() - began:.0f} s")


def _code() -> str:
    """Of everything that measures, here and in the hooks: comments and layout have no part in it."""
    digest = hashlib.sha256()
    drawn = {"page.py", "chapters.py", "pictures.py", "__main__.py", "tables.py", "study.py"}
    files = [file for file in sorted(Path(__file__).parent.glob("*.py")) if file.name not in drawn]
    for file in (*files, *(Path(str(one.__file__)) for one in (hooks, sites))):
        digest.update(ast.dump(ast.parse(file.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:16]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


CODE = _code()  # of what is imported now, whatever becomes of the files
