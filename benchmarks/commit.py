"""Time and memory of capturing a checkpoint, beside hashing both files with hashlib in the same run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.kit import BASE, Bars, fine_tune, pv

TIMES, EXTRA_MIB = 10, 400

CHILD = """
import resource, sys
from pathlib import Path
import pv.vecstore.vector, pv.registry.registry, pv.vecstore.hub_base, git, rich.progress
if sys.argv[1:]:
    from pv.cli.main import run
    code = run(sys.argv[1:])
    assert code == 0, code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
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
        idle = _peak([], Path(tmp))
        busy = _peak(["commit", str(folder), "--as", "again"], Path(tmp))
        extra = (busy - idle) / 1024
        bars.say(
            "its peak memory above the imports", f"{extra:.0f} MiB", f"< {EXTRA_MIB} MiB", extra < EXTRA_MIB
        )
    return bars.all_hold


def _peak(arguments: list[str], cwd: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])
