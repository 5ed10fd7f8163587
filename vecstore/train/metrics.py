"""What a run measures of itself, a line a step: to a file of JSON lines, and to the trackers that people have.

{"step": 1, "steps": 18, "loss": 5.4, "terms": {"sft": 4.7, "preference": 0.7}, "lr": 5e-05,
 "gradient_norm": 3.1, "tokens": 512, "tokens_per_s": 210.4}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pv.registry.disk import durable
from pv.registry.errors import UsageError
from pv.vecstore.train.fit import Step

__all__ = ["TRACKERS", "metrics"]

TRACKERS = ("tensorboard", "wandb", "trackio")
Log = Callable[[int, Mapping[str, float]], None]


@contextmanager
def metrics(
    file: Path | None, report_to: Sequence[str], name: str, settings: Mapping[str, Any]
) -> Iterator[Callable[[Step], None]]:
    """Raises UsageError for a tracker that is not installed, StorageError for a file that cannot be written."""
    if file is not None and (not file.parent.is_dir() or file.is_dir()):
        raise UsageError(f"no metrics can be written to {file}", hint="name a file in a folder that is there")
    with ExitStack() as held:
        logs: list[Log] = [held.enter_context(_tracker(kind, name, settings)) for kind in report_to]
        begun = False

        def note(step: Step) -> None:
            nonlocal begun
            if file is not None and not begun:
                with durable.storage_errors(file):
                    _begin(file, step.step)
            begun = True
            if step.loss is None:
                return
            line = {
                "step": step.step, "steps": step.steps, "loss": step.loss, "terms": dict(step.terms), "lr": step.lr,
                "gradient_norm": step.gradient_norm, "tokens": step.tokens, "tokens_per_s": step.tokens_per_s,
            }  # fmt: skip
            if step.effect is not None:
                line["effect"] = step.effect
            if file is not None:
                with durable.storage_errors(file), file.open("a") as out:
                    out.write(json.dumps(line) + "\n")
            flat = {f"loss/{key}": value for key, value in step.terms.items()}
            flat |= {key: value for key, value in line.items() if isinstance(value, float)}
            for log in logs:
                log(step.step, flat)

        yield note


def _begin(file: Path, step: int) -> None:
    """Of a run that goes on, the lines up to where it does stay."""
    kept = []
    for line in file.read_text().splitlines() if step and file.is_file() else ():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, LookupError, TypeError):
            continue
    file.write_text("".join(f"{line}\n" for line in kept))


@contextmanager
def _tracker(kind: str, name: str, settings: Mapping[str, Any]) -> Iterator[Log]:
    if kind not in TRACKERS:
        raise UsageError(f"nothing to report to is called {kind!r}", hint=f"there are: {', '.join(TRACKERS)}")
    try:
        if kind == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter
        else:
            module: Any = __import__(kind)
    except ImportError as error:
        raise UsageError(f"{kind} is not installed", hint=f"pip install {kind}") from error
    if kind == "tensorboard":
        with SummaryWriter(f"runs/{name}") as writer:

            def add(step: int, values: Mapping[str, float]) -> None:
                for key, value in values.items():
                    writer.add_scalar(key, value, step)

            yield add
        return
    run = module.init(project="pv", name=name, config=dict(settings))
    try:
        yield lambda step, values: (run or module).log(dict(values), step=step)
    finally:
        (run or module).finish()
