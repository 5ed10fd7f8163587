"""A revision's build, its base, or a checkpoint in a folder as a running model: one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import NotFoundError, UsageError
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Report, said
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["check_folder", "running_folder", "running_persona"]

Running = Iterator[tuple["PreTrainedModel", "PreTrainedTokenizerBase"]]


@contextmanager
def running_persona(
    registry: Registry,
    commit: str,
    persona: Persona,
    *,
    what: str = "",
    threads: int | None = None,
    progress: Report | None = None,
) -> Running:
    """What a persona's weights do, its steering left out. Raises MissingBase, CheckpointRefused."""
    checkpoint = temporary_checkpoint(
        registry, commit, persona, what=what, threads=thread_count(threads), progress=progress
    )
    with torch_threads(threads), checkpoint as folder:
        said(progress, "loading the model")
        yield load(folder)


@contextmanager
def running_folder(
    where: Path | str, *, threads: int | None = None, progress: Report | None = None
) -> Running:
    """Raises as `check_folder` does; CheckpointRefused for what transformers does not run."""
    folder = check_folder(where)
    with torch_threads(threads):
        said(progress, "loading the model")
        yield load(folder)


def check_folder(where: Path | str) -> Path:
    """A folder that could be a model, without loading it. Raises NotFoundError, CheckpointRefused, FormatError;
    UsageError for an address in an object store."""
    if not isinstance(where, Path):
        raise UsageError(f"{where} is not on this machine: it cannot run", hint="copy it here first")
    with Checkpoint(where):
        pass
    if not (where / "config.json").is_file():
        raise NotFoundError(
            f"no config.json in {where}: its weights alone cannot run", hint="name a whole checkpoint folder"
        )
    return where
