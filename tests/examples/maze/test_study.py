"""The study, end to end, on nets of a few weights."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    where = ["--out", str(folder / "out"), "--cache", str(folder / "cache"), "--quick"]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "examples.maze", *where, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.slow
def test_it_runs_to_its_end_goes_on_after_ctrl_c_and_is_there_when_asked_again(tmp_path: Path) -> None:
    process = start(tmp_path, "--workers", "2")
    assert process.stderr is not None
    for line in process.stderr:
        if "region 1: trained" in line:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "goes on" in err and "Traceback" not in err
    kept = list((tmp_path / "cache" / "nets").iterdir())
    assert kept and all(file.suffix == ".safetensors" for file in kept)

    code, table, err = run(tmp_path, "--workers", "1")
    assert code == 0, err
    assert "region 1: trained" not in err
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    pngs = {name for name in first if name.endswith(".png")}
    assert len(pngs) == 9 and all(first[name].startswith(b"\x89PNG") for name in pngs)
    assert set(first) - pngs == {"maze.html", "results.json"}
    results = json.loads(first["results.json"])
    assert results["found"]["identity"]["start_largest"] < 1e-5
    assert len(results["bars"]) == table.count("\n") // 2
    html = first["maze.html"].decode()
    assert re.findall(r'(?:src|srcset)="(?!data:)|href="(?!#)', html) == []
    assert not re.search(r"@import|url\(|<script|<link", html)

    code, again, err = run(tmp_path, "--workers", "1")
    assert (code, again) == (0, table), err
    assert "trained in" not in err and "gates:" not in err  # nothing was trained or measured
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first


def test_what_it_cannot_do_it_says(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "--workers", "0")
    assert code == 2 and "no number of processes" in err
