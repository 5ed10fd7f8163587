"""A probe that is killed half way and goes on, beside one that is not: the same numbers, on SmolLM2 itself.

Each kind is asked in two copies of the registry of probe_lab.py, of few rows and draws, so that it takes a few
minutes: in one from beginning to end, in the other killed (SIGKILL) when half of its parts are noted, and asked again.
PV_BENCH_PROBES names some of the kinds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.kit import ROWS, Bars
from benchmarks.probe_lab import FOLDER, lab
from pv.registry.registry import Registry

BEHAVIOUR = "pirate"
FEW = 16  # rows: the fewest that `pv probe heads` takes
ASKED = {
    "heads": ("--draws", "2", "--noise", "2"),
    "neurons": ("--draws", "1", "--steps", "1"),
    "concept": ("--layers", "15", "--no-length"),
    "edit": ("--neighbours", str(ROWS / "neighbours.jsonl"), "--noise", "1"),
    "sparsity": ("--neighbours", str(ROWS / "neighbours.jsonl"), "--strength", "0.3"),
}
OFTEN = 0.2  # seconds between two looks at what is noted


def main() -> bool:
    kinds = [kind for kind in os.environ.get("PV_BENCH_PROBES", "").split(",") if kind] or list(ASKED)
    bars = Bars()
    with lab("main"):
        pass  # trained, if it was not yet
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp)
        lines = (ROWS / f"{BEHAVIOUR}.heldout.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "rows.jsonl").write_text("".join(lines[:FEW]), encoding="utf-8")
        for kind in kinds:
            _measure(kind, folder, bars)
    return bars.all_hold


def _measure(kind: str, folder: Path, bars: Bars) -> None:
    straight, stopped = (_copy(folder / f"{kind}-{name}") for name in ("straight", "stopped"))
    whole = _ask(straight, kind, folder)
    every = _parts(straight)
    kept = _killed(stopped, kind, folder, len(every) // 2)
    same = all(every.get(key) == value for key, value in kept.items())
    resumed = _ask(stopped, kind, folder)
    bars.say(
        f"{kind}: parts noted when killed, the same as without",
        f"{len(kept)} of {len(every)}", "some, not all", same and 0 < len(kept) < len(every),
    )  # fmt: skip
    words = "the same" if resumed == whole else "others"
    bars.say(f"{kind}: what it found, gone on with", words, "the same", resumed == whole)


def _copy(to: Path) -> Path:
    shutil.copytree(FOLDER, to)
    with Registry.find(to) as registry:  # what earlier probes noted is not known here
        for identity in list(registry.record_ids()):
            if "probe" in registry.record(identity):
                registry.update_record(identity, {"probe": None, "parts": None, "time": None, "found": None})
    return to


def _command(registry: Path, kind: str, folder: Path) -> list[str]:
    asked = (f"main:{BEHAVIOUR}", "--data", str(folder / "rows.jsonl"), *ASKED[kind], "--json")
    return [sys.executable, "-m", "pv", "-q", "-C", str(registry), "probe", kind, *asked]


def _ask(registry: Path, kind: str, folder: Path) -> Any:
    began = time.monotonic()
    said = subprocess.run(_command(registry, kind, folder), check=True, stdout=subprocess.PIPE).stdout
    print(f"        {kind}: {time.monotonic() - began:.0f} s", flush=True)
    return json.loads(said)


def _killed(registry: Path, kind: str, folder: Path, half: int) -> dict[str, Any]:
    """Killed as soon as half of its parts are noted. Returns those that are."""
    running = subprocess.Popen(_command(registry, kind, folder), stdout=subprocess.DEVNULL)
    while running.poll() is None and len(_parts(registry)) < max(1, half):
        time.sleep(OFTEN)
    running.kill()
    running.wait()
    return _parts(registry)


def _parts(registry: Path) -> dict[str, Any]:
    """Of the one probe that was asked there."""
    with Registry.find(registry) as opened:
        for identity in opened.record_ids():
            parts = opened.record(identity).get("parts")
            if isinstance(parts, dict) and parts:
                return parts
    return {}


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
