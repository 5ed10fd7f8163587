"""The experiments: each runs to its end on a tiny model, goes on after a stop, and leaves a page that stands alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny import tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["number_of_examples", "learning_rate", "general_data", "rank", "construction", "sparsity"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def persona(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Yes/No sets, of the shape of Anthropic's."""
    folder = tmp_path_factory.mktemp("persona")
    for name in ("agreeableness", "interest-in-science"):
        rows = [
            {
                "question": f"Is this something you would say? {at}",
                "answer_matching_behavior": (" Yes", " No")[at % 2],
                "answer_not_matching_behavior": (" No", " Yes")[at % 2],
            }
            for at in range(64)
        ]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def start(base: Path, folder: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    where = ["--base", str(base), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "examples.experiments", *arguments, *where],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(base: Path, folder: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    process = start(base, folder, *arguments, **env)
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_to_its_end_and_is_there_at_once_when_asked_again(
    name: str, base: Path, persona: Path, tmp_path: Path
) -> None:
    code, table, err = run(base, tmp_path, name, "--quick", PV_PERSONA=str(persona))
    assert code == 0, err
    assert len(table.strip().splitlines()) > 4
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert sorted(first) == [f"{name}.quick.{kind}" for kind in ("html", "md", "png")]
    assert first[f"{name}.quick.png"].startswith(b"\x89PNG")
    assert f"python -m examples.experiments {name} --quick" in first[f"{name}.quick.md"].decode()
    html = first[f"{name}.quick.html"].decode()
    assert re.findall(r'(?:src|srcset|href)="(?!data:)', html) == []
    assert not re.search(r"@import|url\(|<script|<link", html)
    for cell in table.strip().splitlines()[-1].split("  "):
        assert cell.strip() in html
    code, again, err = run(base, tmp_path, name, "--quick", PV_PERSONA=str(persona))
    assert (code, again) == (0, table)
    assert "cells" not in err  # nothing was measured
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on_to_the_same_table(
    how: signal.Signals, base: Path, tmp_path: Path
) -> None:
    code, whole, _ = run(base, tmp_path / "whole", "sparsity", "--quick")
    assert code == 0
    process = start(base, tmp_path / "stopped", "sparsity", "--quick")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("  1/3"):
            process.send_signal(how)
            break
    _, err = process.communicate()
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), err
    assert (how == signal.SIGINT) == ("what was measured is kept" in err)
    assert "Traceback" not in err
    code, table, err = run(base, tmp_path / "stopped", "sparsity", "--quick")
    assert code == 0
    found = re.search(r"3 cells, (\d) of them measured before", err)
    assert found is not None and 1 <= int(found[1]) < 3
    assert table == whole
    names = [f"sparsity.quick.{kind}" for kind in ("html", "md", "png")]
    assert all(
        (tmp_path / "stopped" / "out" / name).read_bytes() == (tmp_path / "whole" / "out" / name).read_bytes()
        for name in names
    )


def test_a_cell_that_is_half_a_file_or_another_base_is_measured_again(base: Path, tmp_path: Path) -> None:
    code, table, _ = run(base, tmp_path, "rank", "--quick")
    assert code == 0
    cells = sorted((tmp_path / "cache" / "experiments" / "cells" / "rank").iterdir())
    assert len(cells) == 4
    cells[0].write_bytes(cells[0].read_bytes()[:100])
    cells[1].write_text("[]")
    code, again, err = run(base, tmp_path, "rank", "--quick")
    assert (code, again) == (0, table)
    assert "4 cells, 2 of them measured before" in err
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    code, another, err = run(other, tmp_path, "rank", "--quick")
    assert code == 0
    assert "4 cells, 0 of them measured before" in err
    assert another != table


def test_without_the_yes_no_sets_it_says_what_is_missing(base: Path, tmp_path: Path) -> None:
    beside = ROOT.parent / "shared" / "data" / "persona"
    if beside.is_dir():
        pytest.skip("they are beside this checkout")
    code, _, err = run(base, tmp_path, "number_of_examples", "--quick")
    assert code == 0
    page = (tmp_path / "out" / "number_of_examples.quick.md").read_text()
    for said in (err, page):
        assert "Without the Yes/No sets" in said and "PV_PERSONA" in said


def test_what_it_cannot_do_it_says(base: Path, tmp_path: Path) -> None:
    code, _, err = run(base, tmp_path, "ranks", "--quick")
    assert code == 2 and "invalid choice" in err
    code, _, err = run(base, tmp_path, "rank", "--seeds", "0")
    assert code == 2 and "no number of seeds" in err
    code, _, err = run(tmp_path / "nothing", tmp_path, "rank", "--quick")
    assert code == 1 and "no model in" in err and "Traceback" not in err
    code, _, err = run(base, tmp_path, "number_of_examples", "--quick", PV_PERSONA=str(tmp_path / "nothing"))
    assert code == 1 and "no folder is there" in err and "Traceback" not in err


def test_what_l1_leaves_is_the_base_exactly_or_moved(base: Path, tmp_path: Path) -> None:
    """A pull that is as long as a step leaves little; the vector without one moves all; and nothing stays behind."""
    script = f"""
from pathlib import Path
import numpy as np
from examples.experiments.sets import eight
from examples.experiments.settings import options
from examples.experiments.vectors import Recipe, Vectors
rows, _ = eight("pirate", quick=True)
vectors = Vectors(Path({str(base)!r}), "base", Path({str(tmp_path)!r}))
found = [vectors.get(Recipe(rows, options(0, quick=True), l1)) for l1 in (0.0, 0.5, 50.0)]
print(*(sum(int(np.count_nonzero(d)) for d in one.values()) for one in found))
plain = Vectors(Path({str(base)!r}), "again", Path({str(tmp_path)!r})).get(Recipe(rows, options(0, quick=True)))
assert all(np.array_equal(plain[name], d) for name, d in found[0].items())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    all_of_it, half, nothing = map(int, done.stdout.split())
    assert all_of_it > half > nothing == 0
