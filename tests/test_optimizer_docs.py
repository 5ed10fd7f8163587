"""docs/optimizer.md, run as it stands: its blocks, in order, but for those that need TRL and a dataset."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pv

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "optimizer.md").read_text()


def test_what_the_document_shows_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"(<!-- not run -->\n)?^```python\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    script = tmp_path / "shown.py"
    script.write_text("\n".join(code for skipped, code in blocks if not skipped))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_setting_is_in_the_document() -> None:
    settings = set(inspect.signature(pv.Apollo.__init__).parameters) - {"self", "params"}
    assert not {name for name in settings if f"`{name}`" not in DOCUMENT}
