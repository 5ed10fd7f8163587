"""Load a checkpoint as a running model: local files, safetensors, no code from the checkpoint, no noise.

The one door between a folder on disk and transformers. A checkpoint that would load only in part (a missing
tensor gets random numbers there) is refused.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from pv.registry.errors import CheckpointRefused, NotFoundError
from pv.vecstore.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["context_length", "load", "load_tokenizer", "quiet", "stop_ids"]

P = ParamSpec("P")
R = TypeVar("R")
_TRANSFORMERS = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings from transformers inside; everything as it was afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """transformers sets what the whole process sees while it is imported, and while it loads."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _TRANSFORMERS:
            return function(*args, **kwargs)

    return alone


@_one_at_a_time
def load(
    checkpoint: Path, dtype: Literal["float32", "auto"] = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in eval mode and tokenizer. "float32" widens exactly; "auto" keeps the checkpoint's own dtype.

    Raises NotFoundError, CheckpointRefused, FormatError.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with Checkpoint(checkpoint):  # header, index and shards are sound before transformers sees them
        pass
    if not (checkpoint / "config.json").is_file():
        raise NotFoundError(
            f"no config.json in {checkpoint}", hint="name a checkpoint folder, config beside weights"
        )
    if (checkpoint / "adapter_config.json").is_file():
        raise CheckpointRefused(
            f"{checkpoint} holds an adapter beside its weights, which transformers would add in silence",
            hint="move adapter_config.json away, or merge the adapter first",
        )
    try:
        with quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                checkpoint,
                dtype=torch.float32 if dtype == "float32" else "auto",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, ImportError, AttributeError) as error:
        raise CheckpointRefused(
            f"transformers cannot load {checkpoint}: {_first_line(error)}",
            hint="pv runs the architectures that transformers itself has, never code from a checkpoint",
        ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        if found := sorted(str(item) for item in report.get(kind, ())):
            raise CheckpointRefused(
                f"{checkpoint} does not fit its config.json: {kind.replace('_', ' ')} {', '.join(found[:3])}"
                + (f" and {len(found) - 3} more" if len(found) > 3 else ""),
                hint="the folder's weights and config.json belong to different models",
            )
    model.eval()
    return model, load_tokenizer(checkpoint)


@_one_at_a_time
def load_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tokenizer beside a checkpoint. Raises CheckpointRefused."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                checkpoint, local_files_only=True, trust_remote_code=False
            )
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, ImportError, AttributeError) as error:
        raise CheckpointRefused(
            f"no usable tokenizer in {checkpoint}: {_first_line(error)}",
            hint="tokenizer.json and tokenizer_config.json belong beside the weights",
        ) from error
    return tokenizer


def context_length(model: PreTrainedModel) -> int | None:
    """How many positions the model was made for, where its config says so."""
    text = model.config.get_text_config()
    length = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return int(length) if length else None


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that end an answer: what generation stops at, by config and by tokenizer; sorted."""
    found: set[int] = set()
    configs: list[Any] = [getattr(model, "generation_config", None), model.config.get_text_config()]
    for config in configs:
        value = getattr(config, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or [])
    if tokenizer.eos_token_id is not None:
        found.add(int(tokenizer.eos_token_id))
    return tuple(sorted(found))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
