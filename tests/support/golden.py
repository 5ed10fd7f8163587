"""Running a script that reports sums of what it made: in so many threads, with or without vector instructions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

__all__ = ["needs_vector_instructions", "report"]

_VECTOR = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
_PLAIN = {"NPY_DISABLE_CPU_FEATURES": " ".join(_VECTOR), "ATEN_CPU_CAPABILITY": "default"}
needs_vector_instructions = pytest.mark.skipif(
    not _VECTOR, reason="numpy has no optional vector instructions on this processor"
)


def report(
    script: Path, *arguments: object, threads: int, hash_seed: int = 0, without_vectors: bool = False
) -> Any:
    """What the script prints, as JSON. `hash_seed` varies, because nothing may hang on the order of a set."""
    given = {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-W", "error", str(script), *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**os.environ, **given, **(_PLAIN if without_vectors else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
