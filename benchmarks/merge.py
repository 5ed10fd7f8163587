"""Merging checkpoint folders: pv beside mergekit on the same YAML, and beside `cat` and a synced write.

Whole processes, in pairs, one after the other; memory is the peak resident set, which counts mapped files too.
mergekit 0.1.5 is looked for where PV_MERGEKIT says, a folder made by `make mergekit`; without it only the floor is
measured. The 1.1 B model has TinyLlama's shapes and random weights; PV_BENCH_LARGE=0 leaves it out.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.kit import BASE, Bars, base_tensors, pv, write_checkpoint
from pv.vecstore.tensors.array import Raw
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.rounding import round_to

MERGEKIT = os.environ.get("PV_MERGEKIT", "")
RUNS = int(os.environ.get("PV_BENCH_RUNS", "5"))
LARGE = os.environ.get("PV_BENCH_LARGE", "1") != "0"
PV = [sys.executable, "-m", "pv.cli.main"]
MODELS = 3
LAUNCH = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class Run:
    """One process: wall seconds, and its peak resident set in MiB."""

    seconds: float
    mib: float


def main() -> bool:
    bars = Bars()
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp)
        _small(folder / "small", bars)
        shutil.rmtree(folder / "small")
        if LARGE:
            _large(folder / "large", bars)
    return bars.all_hold


def _small(folder: Path, bars: Bars) -> None:
    print("135M: SmolLM2-135M-Instruct and three folders of its weights with noise of 1e-3, bf16")
    names = models(folder, {name: raw.reshape(-1) for name, raw in base_tensors().items()}, BASE)
    _against(folder, "ties", names, bars, time_bar=1 / 10, memory_bar=1 / 4, runs=RUNS)
    _against(folder, "task_arithmetic", names, bars, time_bar=1 / 4, memory_bar=1 / 5, runs=RUNS)
    _memory(folder, names, bars)
    _registry(folder, names, bars)


def _memory(folder: Path, names: Sequence[str], bars: Bars) -> None:
    """Peak memory with 2 models and with 16: links to the three, which is nothing to how they are read."""
    many = []
    for number in range(16):
        link = folder / f"link{number}"
        link.mkdir()
        for file in (folder / names[number % len(names)]).iterdir():
            os.link(file, link / file.name)
        many.append(link.name)
    for method in ("ties", "task_arithmetic"):
        few, all_ = (
            statistics.median(ours(folder, _config(folder, method, some), "nearest").mib for _ in range(3))
            for some in (many[:2], many)
        )
        value = f"{few:.0f} and {all_:.0f} MiB"
        bars.say(f"{method}, peak memory with 2 and 16 models", value, "flat: <= 1.25", all_ <= 1.25 * few)


def _large(folder: Path, bars: Bars) -> None:
    print("1.1 B: TinyLlama's shapes, random weights, three folders, bf16")
    names = models(folder, None, BASE)
    _against(folder, "ties", names, bars, time_bar=1 / 12, memory_mib=1024, runs=1)
    _against(folder, "task_arithmetic", names, bars, runs=1)
    floor = _floor(folder, names)
    for rounding, bar in (("nearest", 2.5), ("stochastic", None)):
        config = _config(folder, "task_arithmetic", names)
        runs = [ours(folder, config, rounding) for _ in range(3)]
        taken = statistics.median(run.seconds for run in runs)
        what = f"add, 1.1 B, {rounding}, beside cat and a synced write"
        value = f"{taken / floor:.2f} of {floor:.1f} s, {runs[0].mib:.0f} MiB"
        bars.say(what, value, "<= 2.5" if bar else "", bar is None or taken <= bar * floor)
    a, b = folder / names[0], folder / names[1]
    cat = statistics.median(_cat([a, b]) for _ in range(3))
    runs = [timed([*PV, "diff", str(a), str(b), "--json"], folder) for _ in range(3)]
    taken = statistics.median(run.seconds for run in runs)
    bars.say(
        "pv diff of two folders, beside cat of both",
        f"{taken / cat:.2f} of {cat:.1f} s, {runs[0].mib:.0f} MiB",
        "<= 3",
        taken <= 3 * cat,
    )


def _against(
    folder: Path,
    method: str,
    names: Sequence[str],
    bars: Bars,
    *,
    runs: int,
    time_bar: float | None = None,
    memory_bar: float | None = None,
    memory_mib: float | None = None,
) -> None:
    """The same YAML through both, in pairs."""
    config = _config(folder, method, names)
    own, peers = [], []
    for _ in range(runs):
        own.append(ours(folder, config, "nearest"))
        if MERGEKIT:
            peers.append(theirs(folder, config))
    seconds = statistics.median(run.seconds for run in own)
    mib = statistics.median(run.mib for run in own)
    if not peers:
        print(f"        {method}: {seconds:.2f} s, {mib:.0f} MiB (no mergekit beside it: PV_MERGEKIT)")
        return
    time_ratio = statistics.median(a.seconds / b.seconds for a, b in zip(own, peers, strict=True))
    memory_ratio = statistics.median(a.mib / b.mib for a, b in zip(own, peers, strict=True))
    peer = statistics.median(run.seconds for run in peers), statistics.median(run.mib for run in peers)
    bars.say(
        f"{method}, time beside mergekit",
        f"{seconds:.2f} s, {time_ratio:.3f} of {peer[0]:.1f} s",
        "" if time_bar is None else f"<= {time_bar:.3f}",
        time_bar is None or time_ratio <= time_bar,
    )
    bar = f"<= {memory_bar:.2f}" if memory_bar else f"<= {memory_mib} MiB" if memory_mib else ""
    holds = memory_ratio <= memory_bar if memory_bar else memory_mib is None or mib <= memory_mib
    value = f"{mib:.0f} MiB, {memory_ratio:.3f} of {peer[1]:.0f} MiB"
    bars.say(f"{method}, peak memory beside mergekit", value, bar, holds)


def _registry(folder: Path, names: Sequence[str], bars: Bars) -> None:
    """The same three, committed, built from their packs: decoded and verified."""
    pv("init", "--base", str(folder / "base"), "--reference", cwd=folder)
    for name in names:
        pv("commit", str(folder / name), "--as", name, "--weight", "0.5", cwd=folder)
    for method, given in (("ties", ["ties", "--density", "0.2"]), ("add", ["add"])):
        pv("combine", *given, cwd=folder)
        config = _config(folder, "ties" if method == "ties" else "task_arithmetic", names)
        ratios, times = [], []
        for _ in range(RUNS):
            shutil.rmtree(folder / "built", ignore_errors=True)
            built = timed([*PV, "build", "-o", "built", "--rounding", "nearest"], folder)
            ratios.append(built.seconds / ours(folder, config, "nearest").seconds)
            times.append(built)
        ratio, seconds = statistics.median(ratios), statistics.median(run.seconds for run in times)
        value = f"{seconds:.2f} s, {ratio:.2f}, {times[0].mib:.0f} MiB"
        bars.say(f"{method} from a registry, beside the folders", value, "<= 2", ratio <= 2)


def models(folder: Path, tensors: Mapping[str, Raw] | None, files: Path) -> list[str]:
    """`base` and three models of it in folders; returns the models' names."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    if tensors is None:
        tensors = {
            name: round_to(
                draw.standard_normal(rows * columns, np.float32) * np.float32(0.02),
                "BF16", "nearest", seed=0, name="", start=0,
            )
            for name, (rows, columns) in _tinyllama().items()
        }  # fmt: skip
        shapes = {name: (r, c) if r > 1 else (c,) for name, (r, c) in _tinyllama().items()}
        _write(folder / "base", tensors, shapes, _tinyllama_config())
    else:
        shapes = None
        write_checkpoint(folder / "base", dict(tensors))
    _beside(files, folder / "base", own_config=shapes is None)
    names = [f"model{n}" for n in range(MODELS)]
    for number, name in enumerate(names):
        noise = np.random.default_rng(number + 1)
        moved = {
            key: round_to(
                to_f32(raw, "BF16") + noise.standard_normal(raw.size, np.float32) * np.float32(1e-3),
                "BF16", "nearest", seed=0, name="", start=0,
            )
            for key, raw in tensors.items()
        }  # fmt: skip
        if shapes is None:
            write_checkpoint(folder / name, moved)
        else:
            _write(folder / name, moved, shapes, _tinyllama_config())
        _beside(files, folder / name, own_config=shapes is None)
    return names


def _write(
    folder: Path,
    tensors: Mapping[str, Raw],
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, object],
) -> None:
    from pv.registry.disk.safetensors import header_bytes

    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        header = {name: ("BF16", shapes[name], raw.nbytes) for name, raw in tensors.items()}
        file.write(header_bytes(header, {"format": "pt"}))
        for raw in tensors.values():
            file.write(raw.data)
    (folder / "config.json").write_text(json.dumps(config))


def _beside(files: Path, folder: Path, *, own_config: bool) -> None:
    for file in files.iterdir():
        is_config = file.name in ("config.json", "generation_config.json")
        wanted = file.suffix in (".json", ".txt", ".jinja", ".model") and (own_config or not is_config)
        if wanted and not (folder / file.name).exists():
            shutil.copy(file, folder)


def _tinyllama() -> dict[str, tuple[int, int]]:
    shapes = {"lm_head.weight": (32000, 2048), "model.embed_tokens.weight": (32000, 2048)}
    for layer in range(22):
        at = f"model.layers.{layer}"
        for name, shape in {
            "self_attn.q_proj": (2048, 2048), "self_attn.k_proj": (256, 2048), "self_attn.v_proj": (256, 2048),
            "self_attn.o_proj": (2048, 2048), "mlp.gate_proj": (5632, 2048), "mlp.up_proj": (5632, 2048),
            "mlp.down_proj": (2048, 5632), "input_layernorm": (1, 2048), "post_attention_layernorm": (1, 2048),
        }.items():  # fmt: skip
            shapes[f"{at}.{name}.weight"] = shape
    return {**shapes, "model.norm.weight": (1, 2048)}


def _tinyllama_config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
        "tie_word_embeddings": False, "dtype": "bfloat16", "rms_norm_eps": 1e-5, "max_position_embeddings": 2048,
    }  # fmt: skip


def _config(folder: Path, method: str, names: Sequence[str]) -> Path:
    """mergekit's YAML (which JSON is): weights 0.5, and a density of 0.2 for ties."""
    own: dict[str, float] = {"weight": 0.5, **({"density": 0.2} if method == "ties" else {})}
    document = {
        "merge_method": method,
        "base_model": str(folder / "base"),
        "models": [{"model": str(folder / name), "parameters": own} for name in names],
        "dtype": "bfloat16",
    }
    path = folder / f"{method}.yml"
    path.write_text(json.dumps(document))
    return path


def ours(folder: Path, config: Path, rounding: str) -> Run:
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [*PV, "build", "--from-mergekit", str(config), "-o", "out", "--rounding", rounding]
    return timed(command, folder)


def theirs(folder: Path, config: Path) -> Run:
    shutil.rmtree(folder / "theirs", ignore_errors=True)
    command = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(config), "theirs", "--quiet"]
    run = timed(command, folder, PYTHONPATH=MERGEKIT)
    shutil.rmtree(folder / "theirs", ignore_errors=True)
    return run


def timed(command: Sequence[str], cwd: Path, **more: str) -> Run:
    """Started by a process of its own, since a child's peak counts what its parent had."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, *command],
        cwd=cwd,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    seconds, kib = done.stdout.split()[-2:]
    return Run(float(seconds), int(kib) / 1024)


def _floor(folder: Path, names: Sequence[str]) -> float:
    """`cat` of the inputs, and a synced write of as many bytes as the output has."""
    taken = []
    for _ in range(3):
        started = _cat([folder / name for name in ("base", *names)])
        copy = [
            "dd",
            f"if={folder / 'base' / 'model.safetensors'}",
            f"of={folder / 'copy'}",
            "bs=4M",
            "conv=fsync",
        ]
        taken.append(started + timed(copy, folder).seconds)
        (folder / "copy").unlink()
    return statistics.median(taken)


def _cat(folders: Sequence[Path]) -> float:
    files = [str(folder / "model.safetensors") for folder in folders]
    started = time.perf_counter()
    with Path("/dev/null").open("wb") as nowhere:
        subprocess.run(["cat", *files], stdout=nowhere, check=True)
    return time.perf_counter() - started
