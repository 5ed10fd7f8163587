"""The corpus of hostile files: every case, and a folder of those that are one small file.

    python tests/attacks/make.py        writes tests/attacks/files/<kind>/<case> anew

Deterministic: no clock, no randomness, no compressor (zstd frames are written by hand). What does not fit into a
small file (large ones, links, pipes, whole registries) is made by the same functions when the test runs.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from attacks import chunks, documents, folders, headers, packs, registries  # noqa: E402
from attacks.case import Case  # noqa: E402

__all__ = ["FILES_FOLDER", "all_cases", "small_files"]

FILES_FOLDER = HERE / "files"
LARGEST = 1024


def all_cases() -> list[Case]:
    modules = (headers, folders, chunks, packs, documents, registries)
    return [case for module in modules for case in module.cases()]


def small_files() -> dict[str, bytes]:
    """{path below `files`: content} of every case that is one file of at most a kilobyte."""
    found = {}
    for case in all_cases():
        if isinstance(case.content, bytes) and 0 < len(case.content) <= LARGEST:
            name = re.sub(r"[^a-z0-9.+^-]+", "-", case.name.lower()).strip("-.")
            path = f"{case.kind}/{name}"
            if path in found:
                raise ValueError(f"two cases would be {path}")
            found[path] = case.content
    return found


def main() -> None:
    shutil.rmtree(FILES_FOLDER, ignore_errors=True)
    for name, content in small_files().items():
        path = FILES_FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{len(small_files())} files, {sum(map(len, small_files().values()))} bytes, in {FILES_FOLDER}")


if __name__ == "__main__":
    main()
