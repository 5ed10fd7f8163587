"""Time and memory of capturing a checkpoint, beside hashing both files with hashlib in the same run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.kit import BASE, Bars, fine_tune, pv
from pv.registry.disk.safetensors import header_bytes

TIMES, EXTRA_MIB = 10, 400

CHILD = """
import sys
from pathlib import Path
import pv.vecstore.vectors.vector, pv.registry.registry, pv.vecstore.checkpoints.download, git, rich.progress
if sys.argv[1:]:
    from pv.cli.main import run
    code = run(sys.argv[1:])
    assert code == 0, code
# not ru_maxrss: a child begins with its parent's
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def main() -> bool:
    bars = Bars()
    folder = fine_tune("concise", optimizer="apollo", lr=1e-4)
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        pv("init", "--base", str(BASE), "--reference", cwd=Path(tmp))
        ratios = []
        for number in range(3):
            started = time.perf_counter()
            for file in (BASE / "model.safetensors", folder / "model.safetensors"):
                with file.open("rb") as opened:
                    hashlib.file_digest(opened, "sha256")
            hashing = time.perf_counter() - started
            started = time.perf_counter()
            pv("commit", str(folder), "--as", f"b{number}", cwd=Path(tmp))
            for pack in (Path(tmp) / ".pv/packs").glob("*/*"):
                pack.unlink()
            ratios.append((time.perf_counter() - started) / hashing)
        ratio = sorted(ratios)[1]
        bars.say(
            "pv commit of 269 MB against SHA-256 of both files",
            f"{ratio:.1f} times",
            f"<= {TIMES}",
            ratio <= TIMES,
        )
        _memory(bars, "269 MB", folder, Path(tmp))
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        base, tuned = _large_pair(Path(tmp))
        pv("init", "--base", str(base), "--reference", cwd=Path(tmp))
        _memory(bars, "2.2 GB (1.1 B parameters, synthetic)", tuned, Path(tmp))
    return bars.all_hold


def _memory(bars: Bars, label: str, folder: Path, cwd: Path) -> None:
    extra = (_peak(["commit", str(folder), "--as", "again"], cwd) - _peak([], cwd)) / 1024
    holds = extra < EXTRA_MIB
    bars.say(f"peak memory above the imports, {label}", f"{extra:.0f} MiB", f"< {EXTRA_MIB} MiB", holds)


def _large_pair(folder: Path) -> tuple[Path, Path]:
    """A base of 1.1 B bf16 weights N(0, 0.02) and a fine-tune that moved a quarter of them by one step."""
    block = np.random.Generator(np.random.Philox(0)).standard_normal(11_534_336, dtype=np.float32)
    base = (block * np.float32(0.02)).view("<u4") >> 16
    tuned = base + (np.arange(len(base), dtype="<u4") % 4 == 0)
    names = [f"model.layers.{i}.mlp.weight" for i in range(96)]
    made = []
    for label, values in (("base", base), ("tuned", tuned)):
        target = folder / label / "model.safetensors"
        target.parent.mkdir()
        raw = values.astype("<u2").tobytes()
        with target.open("wb") as file:
            file.write(
                header_bytes(
                    {n: ("BF16", (len(raw) // 4096, 2048), len(raw)) for n in names}, {"format": "pt"}
                )
            )
            for _ in names:
                file.write(raw)
        made.append(target.parent)
    return made[0], made[1]


def _peak(arguments: list[str], cwd: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])
