"""What a PEFT adapter's configuration says, as far as weights depend on it; refused by name if not understood.

PEFT has a dozen relatives of LoRA, and most share LoRA's tensor names. Reading one as another gives numbers
that look right and are wrong, so nothing is guessed: an option that changes the weights and is not handled,
or is not known at all, is an error that names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry import canonical
from pv.registry.errors import CheckpointRefused, FormatError, NotFoundError

__all__ = ["CONFIG", "AdapterConfig", "read_config"]

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 16 << 20

_MERGE = (
    "merge it where it was trained and commit the checkpoint: "
    "PeftModel.from_pretrained(base, DIR).merge_and_unload().save_pretrained(NEW_DIR)"
)
_NO_WEIGHTS = "it changes what the model reads, not its weights: there is no task vector in it"
_PROMPTS = {
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE", "ADAPTION_PROMPT",
}  # fmt: skip

_VARIANTS: Mapping[str, tuple[str, str]] = {
    # option: (its name, what to do)
    "alora_invocation_tokens": (
        "activated LoRA (aLoRA)",
        "it acts on some tokens only, so no single set of weights does the same",
    ),
    "arrow_config": ("Arrow", "it chooses among adapters token by token: commit each of them by itself"),
    "layer_replication": (
        "layer replication",
        "it makes a deeper model: begin with `pv init --base` on that",
    ),
    "target_parameters": ("LoRA on bare parameters (target_parameters)", _MERGE),
    "trainable_token_indices": ("trainable tokens", _MERGE),
    "use_qalora": ("QA-LoRA", _MERGE),
    "use_bdlora": ("block-diagonal LoRA (BD-LoRA)", _MERGE),
    "monteclora_config": ("MonteCLoRA", _MERGE),
    "velora_config": ("VeLoRA", _MERGE),
    "kasa_config": ("KaSA", _MERGE),
    "megatron_config": ("Megatron's parallel layers", _MERGE),
}
_CONVERT = (
    "it took a part out of the base's weights: convert it when saving, "
    "model.save_pretrained(DIR, path_initial_model_for_weight_conversion=INITIAL_DIR), or merge it and commit "
    "the checkpoint"
)
_MUTATING = {"pissa": "PiSSA", "corda": "CorDA", "olora": "OLoRA", "lora_ga": "LoRA-GA"}
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")

_WITHOUT_SAY = {
    # which modules were chosen is in the tensors' names; how they were trained is past
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "lora_dropout", "target_modules", "exclude_modules", "modules_to_save",
    "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "ensure_weight_tying",
    "modules_to_tie", "target_modules_to_tie", "eva_config", "corda_config", "lora_ga_config", "loftq_config",
    "runtime_config",
}  # fmt: skip
_READ = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "bias",
    "lora_bias", "init_lora_weights",
}  # fmt: skip

_MAX_PATTERN = 512
_REPEATS = re.compile(r"(?<!\\)[*+?{]")
_COSTLY = re.compile(r"\)[*+?{]|\\[1-9]|\(\?")  # repeated groups, back references, look-around


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """`document` is the whole file, as it was read."""

    document: Mapping[str, Any]
    r: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    fan_in_fan_out: bool

    def rank(self, module: str) -> int:
        return self.rank_pattern.get(_matching(self.rank_pattern, module), self.r)

    def scale(self, module: str) -> float:
        """What the product of the factors is multiplied by: alpha / r, or alpha / sqrt(r) for rsLoRA."""
        alpha = self.alpha_pattern.get(_matching(self.alpha_pattern, module), self.alpha)
        rank = self.rank(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def _matching(patterns: Mapping[str, Any], module: str) -> str:
    """PEFT's rule: the first pattern, in the file's order, that is a regular expression for an end of the name."""
    return next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), module)


def read_config(folder: Path) -> AdapterConfig:
    """Raises NotFoundError, FormatError, and CheckpointRefused for an adapter that pv does not understand."""
    path = folder / CONFIG
    if not path.is_file():
        raise NotFoundError(f"no {CONFIG} in {folder}", hint="name the folder that save_pretrained wrote")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise FormatError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    document = canonical.loads(path.read_bytes(), what=str(path))
    if not isinstance(document, dict):
        raise FormatError(f"{path} is not a JSON object")
    _refuse_others(folder, document)
    return AdapterConfig(
        document=document,
        r=_rank(document.get("r", 8), f"{path}: r"),
        alpha=_number(document.get("lora_alpha", 8), f"{path}: lora_alpha"),
        rank_pattern={
            p: _rank(v, f"{path}: rank_pattern") for p, v in _patterns(path, document, "rank_pattern")
        },
        alpha_pattern={
            p: _number(v, f"{path}: alpha_pattern") for p, v in _patterns(path, document, "alpha_pattern")
        },
        rslora=_flag(path, document, "use_rslora"),
        dora=_flag(path, document, "use_dora"),
        fan_in_fan_out=_flag(path, document, "fan_in_fan_out"),
    )


def _refuse_others(folder: Path, document: Mapping[str, Any]) -> None:
    kind = document.get("peft_type")
    if kind != "LORA":
        hint = _NO_WEIGHTS if kind in _PROMPTS else _MERGE
        raise CheckpointRefused(f"{folder} is an adapter of kind {str(kind)[:40]}: pv takes LoRA", hint=hint)
    for option, (name, hint) in _VARIANTS.items():
        if document.get(option):
            raise CheckpointRefused(f"{folder} uses {name}, which pv does not take", hint=hint)
    start = document.get("init_lora_weights", True)
    if isinstance(start, str):
        low = start.lower()
        for prefix, name in _MUTATING.items():
            if low.startswith(prefix):
                raise CheckpointRefused(f"{folder} is a {name} adapter as it was trained", hint=_CONVERT)
        if low == "loftq":
            raise CheckpointRefused(
                f"{folder} is a LoftQ adapter: it repairs one quantised base and fits no other", hint=_MERGE
            )
        if low not in _PLAIN_STARTS:
            raise CheckpointRefused(
                f"{folder}: pv does not know init_lora_weights={start[:40]!r}", hint=_MERGE
            )
    for option in sorted(document.keys() - _WITHOUT_SAY - _READ - _VARIANTS.keys()):
        if document[option] and not option.startswith("unsloth"):
            raise CheckpointRefused(f"{folder}: pv does not know the option {option[:60]!r}", hint=_MERGE)


def _patterns(path: Path, document: Mapping[str, Any], option: str) -> list[tuple[str, Any]]:
    """Regular expressions from a stranger: only such as cannot take long."""
    patterns = document.get(option)
    if patterns is None:
        return []
    if not isinstance(patterns, dict):
        raise FormatError(f"{path}: {option} must be an object")
    for pattern in patterns:
        costly = len(pattern) > _MAX_PATTERN or _COSTLY.search(pattern) or len(_REPEATS.findall(pattern)) > 3
        if costly:
            raise CheckpointRefused(
                f"{path}: the pattern {pattern[:60]!r} in {option} is too intricate to be matched safely",
                hint=f"write the modules' full names into {option}",
            )
        try:
            re.compile(rf"(.*\.)?({pattern})$")
        except (re.error, RecursionError, OverflowError) as error:
            raise FormatError(
                f"{path}: {pattern[:60]!r} in {option} is no regular expression: {error}"
            ) from error
    return list(patterns.items())


def _rank(value: Any, what: str) -> int:
    if type(value) is not int or not 1 <= value <= 1 << 20:
        raise FormatError(f"{what} must be a whole number from 1, not {str(value)[:40]}")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise FormatError(f"{what} must be a number, not {str(value)[:40]}")
    return float(value)


def _flag(path: Path, document: Mapping[str, Any], option: str) -> bool:
    value = document.get(option, False)
    if value is not None and not isinstance(value, bool):
        raise FormatError(f"{path}: {option} must be true or false")
    return bool(value)
