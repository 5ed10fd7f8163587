"""The same YAML through mergekit itself and through pv: the same tensors.

mergekit is LGPL and no dependency: it runs in a process of its own, where it is installed, and is skipped elsewhere.

    pip install --no-deps --target DIR mergekit==0.1.5 immutables==0.21;  PYTHONPATH=DIR pytest tests/compat
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.commands import InProcess, isolate
from support.tiny import tiny_model, tiny_tokenizer

from pv.registry.combine import METHODS
from pv.vecstore.checkpoints.checkpoint import Checkpoint, read_raw
from pv.vecstore.mergekit.rules import RULES
from pv.vecstore.repo.from_mergekit import build_from_mergekit
from pv.vecstore.tensors.formats import to_f32

VERSION = "0.1.5"
_RUN = """
import json, sys
from mergekit.scripts.run_yaml import main
for document, out in json.load(open(sys.argv[1])):
    main([document, out, "--quiet"], standalone_mode=False)
"""


def of(method: str, models: list[tuple[str, dict[str, Any]]], **more: Any) -> dict[str, Any]:
    base = {} if more.pop("no_base", False) else {"base_model": "./base"}
    listed = [{"model": f"./{name}", **({"parameters": own} if own else {})} for name, own in models]
    return {"merge_method": method, **base, "models": listed, "dtype": "float32", **more}


W = {"weight": 0.7}
BY_NAME = [{"filter": "self_attn", "value": 0.25}, {"filter": "mlp", "value": [0, 1]}, {"value": 0.75}]
CASES: Mapping[str, dict[str, Any]] = {
    "task_arithmetic": of("task_arithmetic", [("a", {"weight": 0.7}), ("b", {"weight": -0.4})]),
    "task_arithmetic-text": of("task_arithmetic", [("a", {"weight": "1e-1"})]),
    "task_arithmetic-gradient": of("task_arithmetic", [("a", {"weight": [0, 1, 0.5]}), ("b", W)]),
    "task_arithmetic-filters": of("task_arithmetic", [("a", {"weight": BY_NAME}), ("b", {"weight": 0.3})]),
    "task_arithmetic-levels": of(
        "task_arithmetic",
        [("a", {"weight": [{"filter": "mlp", "value": 0.1}]}), ("b", {})],
        parameters={"weight": [{"filter": "self_attn", "value": 0.2}, {"filter": "*", "value": 0.3}]},
    ),
    "task_arithmetic-normalized": of(
        "task_arithmetic",
        [("base", {}), ("a", {"weight": 0.5}), ("b", {"weight": 2})],
        parameters={"normalize": True, "lambda": 0.8, "int8_mask": True},
    ),
    "task_arithmetic-slices": {
        "merge_method": "task_arithmetic",
        "base_model": "./base",
        "slices": [
            {
                "sources": [
                    {"model": "./base", "layer_range": [0, 4]},
                    {"model": "./a", "layer_range": [0, 4], "parameters": {"weight": [0.2, 0.9]}},
                    {"model": "./b", "layer_range": [0, 4]},
                ],
                "parameters": {"weight": 0.35},
            }
        ],
        "dtype": "float32",
    },
    "linear": of("linear", [("a", {"weight": 1}), ("b", {"weight": 3}), ("c", {"weight": 0.5})], no_base=True),
    "linear-base": of("linear", [("base", {"weight": 1}), ("a", {"weight": 2}), ("b", {"weight": [0, 1]})]),
    "linear-unlisted-base": of("linear", [("a", {"weight": 2}), ("b", {})], parameters={"weight": 0.5}),
    "linear-plain-sum": of(
        "linear", [("a", {"weight": 0.6}), ("b", {"weight": 0.7})], no_base=True, parameters={"normalize": False}
    ),
    "passthrough": of("passthrough", [("a", {})], no_base=True),
    "ties": of("ties", [(n, {"weight": w, "density": 0.3}) for n, w in (("a", 1), ("b", 0.5), ("c", 2))]),
    "ties-default": of("ties", [("a", {"weight": 1}), ("b", {"weight": 0.5})]),
    "ties-densities": of(
        "ties",
        [("a", {"weight": 1, "density": [0.2, 0.9]}), ("b", {"weight": 0.5, "density": 0.5})],
        parameters={"lambda": 1.3},
    ),
    "ties-sum": of(
        "ties",
        [("a", {"weight": 0.9}), ("b", {"weight": -0.6}), ("c", {"weight": BY_NAME})],
        parameters={"normalize": False, "density": 0.4},
    ),
    # What draws by lot is compared where it keeps everything.
    "dare_linear": of("dare_linear", [("a", {"weight": 0.7}), ("b", {"weight": -0.4})]),
    "dare_ties": of("dare_ties", [("a", {"weight": 0.7}), ("b", {"weight": 0.4})], parameters={"normalize": True}),
    "della_linear": of("della_linear", [("a", {"weight": 0.7}), ("b", {"weight": -0.4})], parameters={"lambda": 0.5}),
    "della": of("della", [("a", {"weight": 0.7}), ("b", {"weight": 0.4})]),
    "breadcrumbs": of(
        "breadcrumbs", [("a", {"weight": 0.7}), ("b", {"weight": -0.4})], parameters={"density": 0.6, "gamma": 0.02}),
    "breadcrumbs_ties": of(
        "breadcrumbs_ties", [("a", {"weight": 0.7}), ("b", W)], parameters={"density": [0.3, 0.9], "lambda": 0.9}),
    "sce": of("sce", [("a", {}), ("b", {}), ("c", {})], parameters={"select_topk": 0.4}),
    "model_stock": of("model_stock", [("a", {}), ("b", {}), ("c", {})]),
    "slerp": of(
        "slerp", [("base", {}), ("far", {})], parameters={"t": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.3}]}),
    "nuslerp": of("nuslerp", [("a", {"weight": 0.7}), ("b", {"weight": 0.2})]),
    "nuslerp-models": of("nuslerp", [("far", {"weight": 0.7}), ("b", {"weight": 0.2})], no_base=True),
    "multislerp": of("multislerp", [("a", {"weight": 0.7}), ("b", {"weight": 0.2}), ("c", {"weight": 1})]),
    "multislerp-models": of("multislerp", [("far", {"weight": 0.7}), ("b", {"weight": 0.2})], no_base=True),
    "karcher": of("karcher", [("far", {}), ("b", {}), ("c", {})], no_base=True),
    "nearswap": of("nearswap", [("base", {}), ("a", {})], parameters={"t": 0.005}),
    "arcee_fusion": of("arcee_fusion", [("base", {}), ("a", {})]),
}  # fmt: skip
HALF = {
    f"{name}-bf16": {**CASES[name], "out_dtype": "bfloat16"} for name in ("task_arithmetic", "linear", "ties")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and four fine-tunes of it, in fp32: noise that they share, and their own."""
    import torch

    folder = tmp_path_factory.mktemp("models")
    for i, name in enumerate(("base", "a", "b", "c", "far")):
        model = tiny_model(layers=4)
        common, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(i)
        size = (0, 0.01, 0.01, 0.01, 0.1)[i]
        with torch.no_grad():
            for weight in model.parameters():
                shape = weight.shape
                weight += size * (torch.randn(shape, generator=common) + torch.randn(shape, generator=own))
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    return folder


EXPORTED = {
    "add": ["combine add"],
    "ties": ["combine ties --preset mergekit --density 0.4 --lambda 1.5"],
    "modules": ["combine add", "scale a 0.75 --module *.mlp.*=0.5"],
}


@pytest.fixture(scope="module")
def registry(folder: Path) -> Path:
    """A registry with a and b as behaviours, each exported to the folder that it came from; builds of it in fp32."""
    pv = InProcess(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder, monkeypatch)
        pv.ok("init", "--base", "base")
        pv.ok("commit", "a", "--as", "a", "--weight", "0.75")
        pv.ok("commit", "b", "--as", "b", "--weight", "0.5")
        for name, lines in EXPORTED.items():
            for line in lines:
                pv.ok(*line.split())
            pv.ok("export", "--mergekit", "-o", f"exported-{name}.yml")
            pv.ok("build", "-o", f"built/{name}", "--dtype", "fp32")
    return folder


def run_mergekit(folder: Path, jobs: list[tuple[str, str]]) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUN, "jobs.json"],
        cwd=folder, env=env, check=True, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def theirs(folder: Path, registry: Path) -> Path:
    """What mergekit makes of all documents, in one process."""
    if importlib.util.find_spec("mergekit") is None:
        pytest.skip(f"mergekit is not here: pip install --no-deps mergekit=={VERSION} immutables==0.21")
    jobs = []
    for name, document in {**CASES, **HALF}.items():
        (folder / f"{name}.yml").write_text(yaml.safe_dump(document, sort_keys=False))
        jobs.append((f"{name}.yml", f"theirs/{name}"))
    jobs += [(f"exported-{name}.yml", f"theirs/exported-{name}") for name in EXPORTED]
    run_mergekit(folder, jobs)
    return folder / "theirs"


def tensors(folder: Path) -> dict[str, tuple[str, Any]]:
    with Checkpoint(folder) as found:
        return {name: (spec.dtype, np.array(read_raw(found, name))) for name, spec in found.specs.items()}


@pytest.mark.parametrize("name", CASES)
def test_fp32_is_the_same(folder: Path, theirs: Path, name: str) -> None:
    if RULES[CASES[name]["merge_method"]].method not in METHODS:
        pytest.skip("pv has no such method yet")
    out = folder / "ours" / name
    build_from_mergekit(folder / f"{name}.yml", out, seen_from=folder, threads=1)
    hold(out, theirs / name, besides=500 if name == "arcee_fusion" else None)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_persona_that_was_exported_is_the_same(registry: Path, theirs: Path, name: str) -> None:
    hold(registry / "built" / name, theirs / f"exported-{name}")


def hold(out: Path, theirs: Path, *, besides: int | None = None) -> None:
    """The same numbers, but for one in `besides`: mergekit's importances of arcee_fusion are in fp32."""
    expected, found = tensors(theirs), tensors(out)
    assert found.keys() == expected.keys()
    for tensor, (dtype, raw) in expected.items():
        ours = to_f32(found[tensor][1], found[tensor][0])
        mine = to_f32(raw, dtype)
        largest = np.abs(mine).max()  # where terms cancel, the last bit is that of the terms
        differ = ~np.isclose(ours, mine, rtol=1e-6, atol=3e-7 * largest)
        assert np.count_nonzero(differ) <= (differ.size // besides if besides else 0), tensor


@pytest.mark.parametrize("name", HALF)
def test_bf16_is_at_most_one_step_apart(folder: Path, theirs: Path, name: str) -> None:
    out = folder / "ours" / name
    build_from_mergekit(folder / f"{name}.yml", out, seen_from=folder, threads=1)
    found = tensors(out)
    for tensor, (dtype, raw) in tensors(theirs / name).items():
        assert found[tensor][0] == dtype == "BF16"
        steps = np.abs(_order(found[tensor][1]) - _order(raw))
        assert steps.max() <= 1, tensor
        assert np.count_nonzero(steps) <= 1 + steps.size // 1000, tensor


def _order(raw: Any) -> Any:
    """bf16 codes as integers in the order of their values."""
    signed = raw.astype(np.int64)
    return np.where(signed & 0x8000, 0x8000 - signed, signed)
