"""Whether two checkpoint folders are one model with other weights: architecture and tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pv.registry import canonical
from pv.registry.errors import CheckpointRefused, FormatError

__all__ = ["Beside", "compare"]

Beside = Mapping[str, bytes]
_STRUCTURE = (
    "model_type",
    "architectures",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
)
_WORTH_A_NOTE = ("rope_theta", "rope_scaling", "rope_parameters", "rms_norm_eps", "sliding_window")
_TOKENIZERS = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model")
_TEMPLATE = "chat_template.jinja"


def compare(base: str, ours: Beside, model: str, theirs: Beside) -> Iterator[str]:
    """Notes on what differs and does no harm. Raises CheckpointRefused for what does."""
    config, other = _document(base, ours, "config.json"), _document(model, theirs, "config.json")
    if config and other:
        for key in _STRUCTURE:
            if config.get(key) != other.get(key):
                raise CheckpointRefused(
                    f"{model} is another architecture than {base}: {key} is {_said(other.get(key))}, "
                    f"not {_said(config.get(key))}",
                    hint="only models of one architecture can be merged: fine-tunes of one base",
                )
        for key in _WORTH_A_NOTE:
            if config.get(key) != other.get(key):
                yield f"{model} has another {key} than {base}, whose config.json the result has"
    _same_tokens(base, ours, model, theirs)
    template, its = _template(base, ours), _template(model, theirs)
    if its is not None and its != template:
        yield f"{model} has another chat template than {base}, whose the result has"


def _same_tokens(base: str, ours: Beside, model: str, theirs: Beside) -> None:
    """Refuses two vocabularies: a row of the embedding would stand for two tokens."""
    name = "tokenizer.json"
    if name in ours and name in theirs:
        if ours[name] == theirs[name]:
            return
        a, b = _tokens(base, ours), _tokens(model, theirs)
        if a == b:
            return
        only = sorted({*a.items()} ^ {*b.items()}, key=lambda item: (str(item[1]), item[0]))[0]
        raise _other_tokenizer(
            base, model, f"token {only[0][:40]!r} is number {only[1]} in one and not in the other"
        )
    for name in _TOKENIZERS:
        if name in ours and name in theirs and ours[name] != theirs[name]:
            raise _other_tokenizer(base, model, f"{name} differs")


def _other_tokenizer(base: str, model: str, why: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"{model} has another tokenizer than {base}: {why}",
        hint=f"merge models of one vocabulary; if the tokens that differ do not matter, copy {base}'s tokenizer files "
        f"into {model}",
    )


def _tokens(model: str, beside: Beside) -> dict[str, Any]:
    """{token: number}, the added ones too."""
    document = _document(model, beside, "tokenizer.json")
    vocabulary = (document.get("model") or {}).get("vocab")
    if isinstance(vocabulary, list):  # unigram: pairs of a token and its score
        vocabulary = {str(entry[0]): i for i, entry in enumerate(vocabulary) if entry}
    if not isinstance(vocabulary, dict):
        vocabulary = {}
    added = document.get("added_tokens") or []
    return {
        **vocabulary,
        **{str(one.get("content")): one.get("id") for one in added if isinstance(one, dict)},
    }


def _template(model: str, beside: Beside) -> Any:
    if _TEMPLATE in beside:
        return beside[_TEMPLATE].decode(errors="replace")
    return _document(model, beside, "tokenizer_config.json").get("chat_template")


def _document(model: str, beside: Beside, name: str) -> dict[str, Any]:
    if name not in beside:
        return {}
    try:
        document = canonical.loads(beside[name], what=f"{model}: {name}")
    except FormatError as error:
        raise CheckpointRefused(str(error), hint="download the model again") from error
    return document if isinstance(document, dict) else {}


def _said(value: Any) -> str:
    return "absent" if value is None else repr(value)[:60]
