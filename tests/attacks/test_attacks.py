"""Hostile files and manifests, fed to whatever in pv would meet them: each ends in a clean error.

Clean: a PvError with the exit code that the case names and a message that can be shown, within 20 seconds of
CPU and 512 MiB, nothing written but where it was told to. `make.py` says what the cases are, `feed.py` how they
are fed and watched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from attacks.folders import SECRET
from attacks.make import DIGESTS, HERE, all_cases, digests, small_files
from support.fuzzing import check_message

from pv.registry.errors import PvError

ALIKE = ("folder", "large weights", "large folder")  # kinds whose entries are those of another
MOST_BYTES = 512 << 20
GROUPS = (
    ("weights", "large weights"),
    ("folder", "large folder", "shrinking", "adapter"),
    ("chunk", "pack", "steeringpack", "rowspack"),
    ("persona", "base", "vector", "rows"),
    ("registry",),
)


@pytest.mark.parametrize("kinds", GROUPS, ids="+".join)
def test_every_case_ends_well(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    known = {(case.kind, case.name): case for case in all_cases() if case.kind in kinds}
    *reports, last = _fed(tmp_path, "attacks/feed.py", *kinds)
    assert last == {"written outside": []}
    assert [(report["kind"], report["case"]) for report in reports] == list(known)
    faults = []
    for report in reports:
        case = known[report["kind"], report["case"]]
        for entry, fault in _faults(report, case.exits, case.taken).items():
            faults.append(f"{case.kind}: {case.name}: {entry}: {fault}")
    readings = sum(len(report["outcomes"]) for report in reports)
    most = max(report["peak"] for report in reports)
    print(f"{'+'.join(kinds)}: {len(reports)} cases, {readings} readings, at most {most >> 20} MiB")
    assert not faults, "\n".join(faults)


def _fed(tmp_path: Path, script: str, *arguments: str) -> list[dict[str, Any]]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE.parent / script, tmp_path / "fed", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _faults(report: dict[str, Any], exits: frozenset[int], taken: frozenset[str]) -> dict[str, str]:
    """{entry: what is wrong with what came of it}"""
    if "died" in report:
        return {"all": f"ended by {report['died']}"}
    found = {}
    if report["peak"] >= MOST_BYTES:
        found["all"] = f"took {report['peak'] >> 20} MiB"
    for entry, outcome in report["outcomes"].items():
        if "escaped" in outcome:
            found[entry] = outcome["escaped"]
        elif "taken" in outcome:
            if entry not in taken:
                found[entry] = "was taken"
        elif entry in taken:
            found[entry] = f"was refused: {outcome['message']}"
        elif outcome["exit"] not in exits:
            found[entry] = f"{outcome['refused']}, exit code {outcome['exit']}: {outcome['message'][:200]}"
        elif SECRET.decode() in outcome["message"] + (outcome["hint"] or ""):
            found[entry] = "tells a secret"
        else:
            try:
                check_message(PvError(outcome["message"], hint=outcome["hint"]))
            except AssertionError as error:
                found[entry] = str(error)
    return found


def test_the_watch_sees_what_goes_wrong(tmp_path: Path) -> None:
    """The same watch, on entries that misbehave: each is reported, so the test above can fail."""
    *reports, last = _fed(tmp_path, "attacks/misbehave.py")
    faults = {
        report["case"]: " ".join(_faults(report, frozenset({3}), frozenset()).values()) for report in reports
    }
    expected = {
        "raises": "ZeroDivisionError",
        "exits": "SystemExit",
        "is refused": "exit code 5",
        "speaks in escapes": "unprintable",
        "says too much": "a message of",
        "loops": "ended by SIG",
        "waits": "ended by SIGALRM",
        "takes memory": "took 6",
        "takes too much memory": "MemoryError",
        "crashes": "ended by SIGSEGV",
        "goes through": "was taken",
        "writes": "was taken",
    }
    assert list(faults) == list(expected)
    for name, word in expected.items():
        assert word in faults[name], (name, faults[name])
    assert last == {"written outside": ["cwd", "cwd/litter"]}


def test_there_is_an_honest_case_of_every_kind() -> None:
    """Without one, a kind whose entries refuse everything would pass."""
    honest = {case.kind for case in all_cases() if "honest" in case.name and case.taken}
    assert honest == {case.kind for case in all_cases()} - {*ALIKE, "shrinking"}


def test_the_corpus_is_as_large_as_promised() -> None:
    cases = all_cases()
    hostile = [case for case in cases if "honest" not in case.name]
    assert len(hostile) >= 40
    assert max(Counter((case.kind, case.name) for case in cases).values()) == 1
    assert {case.kind for case in cases} == {kind for kinds in GROUPS for kind in kinds}


def test_the_cases_are_what_they_were() -> None:
    """If not, and it was meant: python tests/attacks/make.py"""
    assert digests() == DIGESTS.read_text()
    assert sum(map(len, small_files().values())) < 200_000
