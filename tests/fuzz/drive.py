"""Run one property under atheris: coverage of pv's own modules, seeds from support.fuzzing, tokens as a dictionary.

What a run finds in the end is a file `crash-...`: give it as the only argument to see it again, and keep it as
a case of tests/attacks.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["pv", "rfc8785"]):
    from support import fuzzing

__all__ = ["drive", "fuzzing"]


def drive(target: Callable[[bytes], None], seeds: list[bytes]) -> None:
    """Never returns. Arguments are libFuzzer's; a folder that is named is the corpus, and is kept."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "seeds").mkdir()
        for number, seed in enumerate(seeds):
            (home / "seeds" / f"{number:04d}").write_bytes(seed)
        lines = ["".join(f"\\x{byte:02x}" for byte in token) for token in fuzzing.TOKENS]
        (home / "tokens").write_text("".join(f'"{line}"\n' for line in lines))
        given = sys.argv[1:]
        replay = any(Path(argument).is_file() for argument in given)
        ours = [] if replay else [f"-dict={home / 'tokens'}", "-max_len=4096", str(home / "seeds")]
        corpus = [argument for argument in given if not argument.startswith("-")]
        if not replay and not corpus:
            (home / "corpus").mkdir()
            given.append(str(home / "corpus"))
        options = [argument for argument in given if argument.startswith("-")]
        folders = [argument for argument in given if not argument.startswith("-")]
        atheris.Setup([sys.argv[0], *options, *ours[:-1], *folders, *ours[-1:]], target)
        atheris.Fuzz()
