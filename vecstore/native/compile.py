"""Compile the kernels with the C compiler at hand: `python vecstore/native/compile.py`, and when pv is installed.

The library is told which source it was made from, and is not loaded for any other.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

__all__ = ["LIBRARY", "compile_kernels", "source_id"]

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "_kernels.so"
# No fused multiply-adds and no fast-math: each would change bits. Traps only set flags, which nobody reads.
FLAGS = (
    *("-O3", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=default"),
    *("-ffp-contract=off", "-fno-fast-math", "-fno-trapping-math", "-fno-math-errno", "-fno-strict-aliasing"),
)


def source_id() -> str:
    """What the library answers when asked for its source: part of the SHA-256 of all of it."""
    sources = sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def compile_kernels(library: Path = LIBRARY) -> str | None:
    """Make the library; None if that went well, else why not."""
    import shlex
    import shutil
    import subprocess
    import tempfile

    found = [path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    command = shlex.split(os.environ.get("CC", "")) or found[:1]
    if not command:
        return "there is no C compiler"
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        told = f'-DPV_SOURCE="{source_id()}"'
        try:
            done = subprocess.run(
                [*command, *FLAGS, told, "-o", str(made), *map(str, sorted(FOLDER.glob("*.c")))],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        if done.returncode:
            return f"{command[0]}: {done.stderr.strip()[:500]}"
        made.replace(library)
    return None


if __name__ == "__main__":
    if failure := compile_kernels():
        sys.exit(f"the kernels were not compiled, numpy is used instead: {failure}")
