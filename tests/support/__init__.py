"""What tests share. Everything here is real: git, files, processes, tiny models, a Hub on 127.0.0.1.

`TESTS` belongs on the path of a child process that imports `support`; `ROOT` is the checkout.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ROOT", "SUPPORT", "TESTS"]

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
