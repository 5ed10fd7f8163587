"""pv demo"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.render import interval, table
from pv.cli.say import echo
from pv.registry.errors import NotFoundError, PvError, UsageError

__all__ = ["command"]

FIRST, SECOND = "listening", "pirate"
MARKER = ".pv-demo"
PROMPTS = 3  # held-out prompts shown, of each behaviour
REPLY_TOKENS = 48


@click.command("demo", short_help="See the main job, end to end.")
@click.option("--base", required=True, metavar="DIR_OR_HUB_ID", help="A small chat model.")
@click.option("-o", "--output", default="demo", show_default=True, metavar="DIR", help="Where to work.")
@click.option("--examples", metavar="DIR", help="The folder with the example behaviours.")
@pass_app
def command(app: App, base: str, output: str, examples: str | None) -> None:
    """Learn two behaviours, merge, compare, scale, negate and revert them, with the ordinary commands.

    Every command is printed as it runs, so that you can type it yourself. What is claimed at the end was
    measured on the way; if a claim does not hold, the exit code is 1. Takes a few minutes on two cores.

    \b
    pv demo --base ~/.cache/personavec/SmolLM2-135M-Instruct
    """
    rows = _examples(app, examples)
    folder = _fresh(app.file(output))
    at = app.file(base)
    show = Show(folder, rows, str(at) if at.exists() else base)
    started = time.monotonic()
    show.learn()
    show.compare()
    show.merge()
    show.measure()
    show.talk()
    show.revert()
    show.verdict(time.monotonic() - started)


@dataclass
class Show:
    """The demonstration: what it ran, and what it may claim."""

    folder: Path
    rows: Path
    base: str
    claims: list[tuple[str, bool]] = field(default_factory=list)
    effects: dict[str, dict[str, Any]] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)

    def learn(self) -> None:
        self.title("Two behaviours, each learnt on its own branch, from the same base")
        self.pv("init", "--base", self.base)
        self.pv("train", self.file(FIRST), "--as", FIRST)
        self.pv("tag", "alone")
        self.build("alone")
        self.pv("switch", "-c", "style", "HEAD~1")
        self.pv("train", self.file(SECOND), "--as", SECOND)

    def compare(self) -> None:
        self.title("What is there, and what differs")
        self.pv("log", "--graph", "--all", "--oneline")
        self.pv("diff", "alone", "style")

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
                label, interval(e["mean"], e["low"], e["high"]), interval(per["mean"], per["low"], per["high"], 3),
                str(found["n"]), f"{100 * e['mean'] / alone:.0f} %", found["verdict"],
            ])  # fmt: skip
        header = ["persona, behaviour", "effect in nats, 95 %", "per token", "n", "of alone", "verdict"]
        echo(table(header, rows))
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
        plain = self.json("chat", "main", "--base", *asked, *options)["replies"]
        persona = self.json("chat", "main", *asked, *options)["replies"]
        rows = [
            [prompt, _short(a["reply"]), _short(b["reply"])]
            for prompt, a, b in zip(prompts, plain, persona, strict=True)
        ]
        echo(table(["prompt", "base", f"{FIRST} + {SECOND}"], rows))
        changed = sum(a["reply"] != b["reply"] for a, b in zip(plain, persona, strict=True))
        self.claim(f"{changed} of {len(prompts)} replies changed", changed == len(prompts))

    def revert(self) -> None:
        self.title(f"Take {SECOND} out again: the checkpoint is what it was before, byte for byte")
        self.pv("revert", "HEAD", "-m", "1")
        self.build("reverted", "HEAD")
        echo(f"\n  before  {self.sums['alone']}\n  after   {self.sums['reverted']}")
        self.claim(
            "reverted, the checkpoint has the SHA-256 it had before",
            self.sums["alone"] == self.sums["reverted"],
        )
        self.claim("merged, it had another", self.sums["both"] != self.sums["alone"])

    def verdict(self, seconds: float) -> None:
        self.title("What was shown")
        for text, holds in self.claims:
            echo(click.style("✓ " if holds else "✗ ", fg="green" if holds else "red") + text)
        failed = [text for text, holds in self.claims if not holds]
        echo(f"\n{seconds / 60:.1f} minutes. The registry and the checkpoints are in {self.folder}")
        echo("next:")
        for line in (
            f"cd {shlex.quote(str(self.folder))}",
            "pv chat both",
            f"pv train {self.file('concise')} --as concise",
            "pv diff",
            "pv undo",
        ):
            echo(f"  {line}")
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
        import hashlib

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
        echo("\n" + click.style(f"── {text} ", bold=True))

    def claim(self, text: str, holds: bool) -> None:
        self.claims.append((text, holds))

    def file(self, name: str, suffix: str = "") -> str:
        return os.path.relpath(self.rows / f"{name}{suffix}.jsonl", self.folder)

    def prompts(self, name: str) -> list[str]:
        from pv.vecstore.data.rows import read_rows

        rows = read_rows(self.rows / f"{name}.heldout.jsonl")
        return [row.prompt[0].content for row in rows if len(row.prompt) == 1][:PROMPTS]


class DemoFailed(PvError):
    """A claim of the demo does not hold, or a command in it failed."""

    exit_code = 1


def _typed(arguments: Sequence[str]) -> None:
    sys.stdout.flush()
    echo("\n" + click.style(f"$ pv {shlex.join(arguments)}", fg="cyan"))
    sys.stdout.flush()


def _short(text: str) -> str:
    return " ".join(text.split())[:180]


def _fresh(folder: Path) -> Path:
    """An empty folder; one that an earlier demo left is cleared."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise UsageError(f"{folder} is not empty", hint="name another folder: pv demo -o DIR ...")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder


def _examples(app: App, named: str | None) -> Path:
    source = Path(__file__).resolve().parents[2] / "examples" / "behaviours"
    for folder in [app.file(named)] if named else [app.path / "examples" / "behaviours", source]:
        if (folder / f"{FIRST}.jsonl").is_file():
            return folder
    raise NotFoundError(
        "the example behaviours are not here",
        hint="run it in a clone of pv, or name their folder with --examples",
    )
