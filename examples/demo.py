"""The main job, end to end, with the ordinary commands: python examples/demo.py --base DIR_OR_HUB_ID

Learns two behaviours, merges, compares, scales, negates and reverts them. Every command is printed as it runs, so
that you can type it yourself. What is claimed at the end was measured on the way; if a claim does not hold, the exit
code is 1. Takes a few minutes on two cores. `make demo` runs it on the embedded model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedded_model import origin_of

EXAMPLES = Path(__file__).resolve().parent / "behaviours"
FIRST, SECOND = "listening", "pirate"
MARKER = ".pv-demo"
PROMPTS = 3  # held-out prompts shown, of each behaviour
REPLY_TOKENS = 48


def main() -> int:
    options = argparse.ArgumentParser(description="The main job of pv, end to end.")
    options.add_argument("--base", required=True, metavar="DIR_OR_HUB_ID", help="a small chat model")
    options.add_argument(
        "-o", "--output", default="demo", metavar="DIR", help="where to work (default: demo)"
    )
    chosen = options.parse_args()
    base = Path(chosen.base).expanduser()
    started = time.monotonic()
    try:
        folder = _fresh(Path(chosen.output).expanduser().absolute())
        show = Show(folder, str(base.absolute()) if base.exists() else chosen.base)
        show.learn()
        show.compare()
        show.merge()
        show.measure()
        show.talk()
        show.revert()
        show.verdict(time.monotonic() - started)
    except DemoFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


class DemoFailed(Exception):
    """A claim of the demo does not hold, or a command in it failed."""


@dataclass
class Show:
    """The demonstration: what it ran, and what it may claim."""

    folder: Path
    base: str
    claims: list[tuple[str, bool]] = field(default_factory=list)
    effects: dict[str, dict[str, Any]] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)

    def learn(self) -> None:
        self.title("Two behaviours, each learnt on its own branch, from the same base")
        self.pv("init", "--base", self.base)
        if origin := origin_of(Path(self.base)):
            print(f"  the base is {origin}", flush=True)
        self.pv("train", self.file(FIRST), "--as", FIRST)
        self.pv("tag", "alone")
        self.build("alone")
        self.pv("switch", "-c", "style", "HEAD~1")
        self.pv("train", self.file(SECOND), "--as", SECOND)

    def compare(self) -> None:
        self.title("What is there, and what differs")
        self.pv("log", "--graph", "--all", "--oneline")
        self.pv("diff", "alone", "style", "--weights")

    def merge(self) -> None:
        self.title("Merge them; and again with half a weight, and with a negated one")
        self.pv("switch", "main")
        self.pv("merge", "style")
        self.pv("tag", "both")
        self.build("both")
        self.pv("switch", "-c", "half", "style")
        self.pv("scale", SECOND, "0.5")
        self.pv("switch", "-c", "reversed")
        self.pv("negate", SECOND)
        for branch in ("half", "reversed"):
            self.pv("switch", "-c", f"{FIRST}-{branch}", "alone")
            self.pv("merge", branch)
            self.build(f"{FIRST}-{branch}", "HEAD")
        self.pv("switch", "main")
        self.pv("log", "--graph", "--all", "--oneline")

    def measure(self) -> None:
        self.title("Held-out rows: the margin of chosen over rejected, against the base")
        for label, rev, name in (
            (f"{FIRST} alone", "alone", FIRST),
            (f"{SECOND} alone", "style", SECOND),
            (f"both, {FIRST}", "main", FIRST),
            (f"both, {SECOND}", "main", SECOND),
            (f"{SECOND} at 0.5", "half", SECOND),
            (f"{SECOND} at -0.5", "reversed", SECOND),
        ):
            self.effects[label] = self.json("eval", rev, self.file(name, ".heldout"))
        rows = []
        for label, found in self.effects.items():
            e, per = found["effect"], found["effect_per_token"]
            alone = self.effects[f"{label.split(', ')[-1].split(' ')[0]} alone"]["effect"]["mean"]
            rows.append([
                label, _interval(e, 2), _interval(per, 3),
                str(found["n"]), f"{100 * e['mean'] / alone:.0f} %", found["verdict"],
            ])  # fmt: skip
        header = ["persona, behaviour", "effect in nats, 95 %", "per token", "n", "of alone", "verdict"]
        _table(header, rows)
        low = {label: found["effect"]["low"] for label, found in self.effects.items()}
        mean = {label: found["effect"]["mean"] for label, found in self.effects.items()}
        for name in (FIRST, SECOND):
            self.claim(f"{name} alone: effect above 0, interval too", low[f"{name} alone"] > 0)
            self.claim(
                f"both merged: the effect of {name} is above 0, interval too", low[f"both, {name}"] > 0
            )
        steps = [mean[f"{SECOND} at -0.5"], 0.0, mean[f"{SECOND} at 0.5"], mean[f"{SECOND} alone"]]
        self.claim(f"{SECOND} at weight -0.5 < base < 0.5 < 1", steps == sorted(set(steps)))

    def talk(self) -> None:
        self.title("Replies on held-out prompts")
        prompts = [p for name in (FIRST, SECOND) for p in self.prompts(name)]
        asked = [word for prompt in prompts for word in ("-p", prompt)]
        options = ["--max-tokens", str(REPLY_TOKENS)]
        both = self.json("chat", "main", "--base", *asked, *options)
        plain, persona = both["a"]["replies"], both["b"]["replies"]
        rows = [
            [prompt, _short(a["reply"]), _short(b["reply"])]
            for prompt, a, b in zip(prompts, plain, persona, strict=True)
        ]
        _replies(rows)
        changed = sum(a["reply"] != b["reply"] for a, b in zip(plain, persona, strict=True))
        self.claim(f"{changed} of {len(prompts)} replies changed", changed == len(prompts))

    def revert(self) -> None:
        self.title(f"Take {SECOND} out again: the checkpoint is what it was before, byte for byte")
        self.pv("revert", "HEAD", "-m", "1")
        self.build("reverted", "HEAD")
        print(f"\n  before  {self.sums['alone']}\n  after   {self.sums['reverted']}")
        self.claim(
            "reverted, the checkpoint has the SHA-256 it had before",
            self.sums["alone"] == self.sums["reverted"],
        )
        self.claim("merged, it had another", self.sums["both"] != self.sums["alone"])

    def verdict(self, seconds: float) -> None:
        self.title("What was shown")
        for text, holds in self.claims:
            print(f"{'✓' if holds else '✗'} {text}")
        failed = [text for text, holds in self.claims if not holds]
        if origin := origin_of(Path(self.base)):
            print(f"\nmeasured on {origin}")
        print(f"\n{seconds / 60:.1f} minutes. The registry and the checkpoints are in {self.folder}")
        print("next:")
        for line in (
            f"cd {shlex.quote(str(self.folder))}",
            "pv chat both",
            f"pv train {self.file('concise')} --as concise",
            "pv diff",
            "pv undo",
        ):
            print(f"  {line}")
        if failed:
            raise DemoFailed(f"{len(failed)} of {len(self.claims)} claims do not hold: {'; '.join(failed)}")

    # how it runs things ------------------------------------------------------------------------------

    def pv(self, *arguments: str) -> None:
        """Print a command as a person would type it, and run it in the demo's folder."""
        _typed(arguments)
        self._run(arguments)

    def json(self, *arguments: str) -> Any:
        """The same, with the answer as data."""
        _typed(arguments)
        return json.loads(self._run((*arguments, "--json"), capture=True))

    def build(self, name: str, rev: str | None = None) -> None:
        """Build a revision into the folder `name`, and note the SHA-256 of its weight file."""
        self.pv("build", rev or name, "-o", name)
        made = self.folder / name / "model.safetensors"
        with made.open("rb") as file:
            self.sums[name] = hashlib.file_digest(file, "sha256").hexdigest()

    def _run(self, arguments: Sequence[str], capture: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pv.cli.main", *arguments],
            cwd=self.folder,
            env={**os.environ, "PV_PAGER": "cat"},
            stdout=subprocess.PIPE if capture else None,
            text=True,
        )
        if done.returncode:
            if done.returncode in (130, -2):
                raise KeyboardInterrupt
            raise DemoFailed(f"`pv {shlex.join(arguments)}` ended with exit code {done.returncode}")
        return done.stdout or ""

    def title(self, text: str) -> None:
        print(f"\n── {text}", flush=True)

    def claim(self, text: str, holds: bool) -> None:
        self.claims.append((text, holds))

    def file(self, name: str, suffix: str = "") -> str:
        return os.path.relpath(EXAMPLES / f"{name}{suffix}.jsonl", self.folder)

    def prompts(self, name: str) -> list[str]:
        lines = (EXAMPLES / f"{name}.heldout.jsonl").read_text(encoding="utf-8").splitlines()
        return [row["prompt"] for row in map(json.loads, lines) if isinstance(row["prompt"], str)][:PROMPTS]


def _typed(arguments: Sequence[str]) -> None:
    print(f"\n$ pv {shlex.join(arguments)}", flush=True)


def _interval(found: dict[str, float], digits: int) -> str:
    return f"{found['mean']:+.{digits}f} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for line in (header, ["─" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _replies(rows: Sequence[Sequence[str]]) -> None:
    for prompt, base, persona in rows:
        print(f"\n> {prompt}")
        for who, reply in (("base", base), (f"{FIRST} + {SECOND}", persona)):
            print(textwrap.fill(f"{who}: {reply}", 100, initial_indent="  ", subsequent_indent="    "))


def _short(text: str) -> str:
    return " ".join(text.split())[:180]


def _fresh(folder: Path) -> Path:
    """An empty folder; one that an earlier demo left is cleared."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise DemoFailed(f"{folder} is not empty: name another folder with -o DIR")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder


if __name__ == "__main__":
    sys.exit(main())
