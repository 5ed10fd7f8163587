"""Every merge method on three folders of the base: seconds and peak memory, beside mergekit where it has the method.

Whole processes in pairs, as in `merge`, whose folders and mergekit these are. `consensus` is no method of mergekit, and
has no document: it is built from a registry. PV_BENCH_RUNS is how often.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.kit import BASE, base_tensors, pv
from benchmarks.merge import MERGEKIT, PV, RUNS, Run, models, ours, theirs, timed
from pv.vecstore.mergekit.rules import RULES

EACH: Mapping[str, dict[str, float]] = {
    "ties": {"density": 0.2}, "dare_linear": {"density": 0.2}, "dare_ties": {"density": 0.2},
    "della": {"density": 0.5}, "della_linear": {"density": 0.5},
    "breadcrumbs": {"density": 0.2}, "breadcrumbs_ties": {"density": 0.2},
}  # fmt: skip
WHOLE: Mapping[str, dict[str, Any]] = {
    "slerp": {"t": 0.5}, "nearswap": {"t": 0.001}, "sce": {"select_topk": 0.5}
}  # fmt: skip


def main() -> bool:
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp) / "small"
        names = models(folder, {name: raw.reshape(-1) for name, raw in base_tensors().items()}, BASE)
        print(f"{'method':<18} {'pv':>20} {'mergekit':>20} {'ratios':>16}")
        for method in RULES:
            config = _document(folder, method, names)
            pairs = [(ours(folder, config, "nearest"), _peer(folder, config)) for _ in range(RUNS)]
            _say(method, [mine for mine, _ in pairs], [its for _, its in pairs if its])
        _say("consensus", [_consensus(folder, names) for _ in range(RUNS)], [])
    return True


def _document(folder: Path, method: str, names: list[str]) -> Path:
    rule = RULES[method]
    most = rule.models[1] or len(names)
    parameters = {**({"weight": 0.5} if "weight" in rule.each else {}), **EACH.get(method, {})}
    models_ = [
        {"model": str(folder / name), **({"parameters": parameters} if parameters else {})}
        for name in names[:most]
    ]
    document: dict[str, Any] = {"merge_method": method, "models": models_, "dtype": "bfloat16"}
    if method not in ("passthrough", "linear", "karcher"):
        document["base_model"] = str(folder / "base")
    if method in WHOLE:
        document["parameters"] = WHOLE[method]
    path = folder / f"{method}.yml"
    path.write_text(json.dumps(document))
    return path


def _peer(folder: Path, config: Path) -> Run | None:
    if not MERGEKIT:
        return None
    try:
        return theirs(folder, config)
    except SystemExit as error:  # a document that only pv takes
        print(f"        mergekit: {str(error).strip().splitlines()[-1][:90]}")
        return None


def _consensus(folder: Path, names: list[str]) -> Run:
    registry = folder / "registry"
    if not registry.exists():
        registry.mkdir()
        pv("init", "--base", str(folder / "base"), "--reference", cwd=registry)
        for name in names:
            pv("commit", str(folder / name), "--as", name, "--weight", "0.5", cwd=registry)
        pv("combine", "consensus", cwd=registry)
    shutil.rmtree(registry / "built", ignore_errors=True)
    return timed([*PV, "build", "-o", "built", "--rounding", "nearest"], registry)


def _say(method: str, mine: list[Run], its: list[Run]) -> None:
    def words(runs: list[Run]) -> str:
        seconds, mib = (
            statistics.median(one) for one in zip(*((r.seconds, r.mib) for r in runs), strict=True)
        )
        return f"{seconds:.2f} s {mib:.0f} MiB"

    ratios = ""
    if its:
        pairs = list(zip(mine, its, strict=True))
        time_ratio = statistics.median(a.seconds / b.seconds for a, b in pairs)
        memory_ratio = statistics.median(a.mib / b.mib for a, b in pairs)
        ratios = f"{time_ratio:.2f}, {memory_ratio:.2f}"
    print(f"{method:<18} {words(mine):>20} {words(its) if its else '-':>20} {ratios:>16}", flush=True)
