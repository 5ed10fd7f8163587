"""The corpus of hostile files: every case, made when it is needed.

    python tests/attacks/make.py            writes DIGESTS anew: the SHA-256 of every case that is one small file
    python tests/attacks/make.py FOLDER     writes those files to FOLDER/<kind>/<case>

Deterministic: no clock, no randomness, no compressor (zstd frames are written by hand), so DIGESTS stands for
the files. It changes when a case does, and never because of a change to pv: a case that quietly became
another would test something else.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from attacks import chunks, documents, folders, headers, packs, registries  # noqa: E402
from attacks.case import Case  # noqa: E402

__all__ = ["DIGESTS", "all_cases", "digests", "small_files"]

DIGESTS = HERE / "DIGESTS"
LARGEST = 1024


def all_cases() -> list[Case]:
    modules = (headers, folders, chunks, packs, documents, registries)
    return [case for module in modules for case in module.cases()]


def small_files() -> dict[str, bytes]:
    """{kind/case: content} of every case that is one file of at most a kilobyte."""
    found = {}
    for case in all_cases():
        if isinstance(case.content, bytes) and 0 < len(case.content) <= LARGEST:
            name = re.sub(r"[^a-z0-9.+^-]+", "-", case.name.lower()).strip("-.")
            path = f"{case.kind}/{name}"
            if path in found:
                raise ValueError(f"two cases would be {path}")
            found[path] = case.content
    return found


def digests() -> str:
    """The small files as `sha256sum` lists them."""
    return "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(small_files().items())
    )


def main() -> None:
    if len(sys.argv) == 1:
        DIGESTS.write_text(digests())
        return
    for name, content in small_files().items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
