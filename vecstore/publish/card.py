"""The model card of a built persona: what it is, how it was made, what was measured, how to make it again.

Invariant: names, paths, scores and provenance are data from strangers. In the front matter each is a quoted
YAML scalar on one line; in the text each is a code span on one line. None can open a heading, a table cell,
a link or a tag of HTML, and of a local path only the last part is shown. The same facts give the same card.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pv.registry.manifest import BaseManifest
from pv.registry.persona import Behaviour, Persona

__all__ = ["CardFacts", "model_card", "yaml_string"]

MAX_CHARS = 160
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_DTYPES = {"base": "in the base's own dtypes", "bf16": "as bf16", "fp16": "as fp16", "fp32": "as fp32"}
_METHODS = {
    "add": "their deltas are scaled and added to the base's weights",
    "ties": "their deltas are trimmed, a sign is elected for each weight, and what agrees is merged (TIES)",
}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is written from.

    `weights_id` is the id of the built tensor table, `sums` the SHA-256 of each weight file. `provenance`
    maps a vector id to what is known of it: {"kind": "trained", "data": {"name", "id", "rows"}, "options"}
    or {"kind": "captured", "source"}. A score is {"data", "data_id", "n", "effect": {"mean", "low", "high"},
    "margin", "base_margin", "verdict"}; whatever is missing is left out. `repo` is "user/name" on the Hub,
    `licence` an identifier that the Hub knows.
    """

    persona: Persona
    base: BaseManifest
    build_id: str
    weights_id: str
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scores: Sequence[Mapping[str, Any]] = ()
    sums: Mapping[str, str] = field(default_factory=dict)
    repo: str | None = None
    licence: str | None = None


def model_card(facts: CardFacts) -> str:
    """README.md: YAML front matter, then Markdown."""
    sections = (_title(facts), _recipe(facts), _scores(facts), _use(facts), _ids(facts), _again(facts))
    return _front_matter(facts) + "\n" + "\n\n".join(sections) + "\n"


def _front_matter(facts: CardFacts) -> str:
    base = _hub_base(facts.base)
    lines = ["---"]
    if base is not None:
        lines += [f"base_model: {yaml_string(base)}", "base_model_relation: merge"]
    if facts.licence is not None:
        known = _LICENCE.fullmatch(facts.licence) is not None
        lines += [f"license: {yaml_string(facts.licence if known else 'other')}"]
    lines += ["library_name: transformers", "pipeline_tag: text-generation", "tags:"]
    active = (name for name, behaviour in sorted(facts.persona.behaviours.items()) if behaviour.weight)
    tags = ["pv", "personavec", "merge", facts.persona.combine.method, *active]
    lines += [f"- {yaml_string(tag)}" for tag in dict.fromkeys(map(_tag, tags)) if tag]
    return "\n".join([*lines, "---", ""])


def _title(facts: CardFacts) -> str:
    name = facts.repo.rpartition("/")[2] if facts.repo else "A persona"
    count = sum(1 for behaviour in facts.persona.behaviours.values() if behaviour.weight)
    behaviours = "no behaviours" if count == 0 else "1 behaviour" if count == 1 else f"{count} behaviours"
    return (
        f"# {_plain(name)}\n\n"
        f"{_base_in_words(facts.base)}, with {behaviours} merged into its weights. Each behaviour was "
        "learned on its own and kept as a task vector: fine-tuned weights minus base weights. pv "
        "(personavec) keeps such vectors under version control, and builds checkpoints from them."
    )


def _recipe(facts: CardFacts) -> str:
    persona = facts.persona
    if not persona.behaviours:
        return "## Recipe\n\nNo behaviours: these are the base's weights."
    rows = [
        (
            _code(name),
            _weight(behaviour),
            _terms(behaviour),
            "; ".join(dict.fromkeys(_lineage(facts.provenance.get(t.vector, {})) for t in behaviour.terms)),
        )
        for name, behaviour in sorted(persona.behaviours.items())
    ]
    options = ", ".join(f"{_code(k)} {_code(v)}" for k, v in sorted(persona.combine.options.items()))
    combine = _METHODS.get(persona.combine.method, "by that rule")
    output = _DTYPES.get(persona.output.dtype, _code(persona.output.dtype))
    return (
        "## Recipe\n\n"
        + _table(("behaviour", "weight", "vectors", "from"), rows)
        + f"\n\nCombined with {_code(persona.combine.method)}: {combine}"
        + (f" ({options})" if options else "")
        + f". Written {output}, {_code(persona.output.rounding)} rounding, seed {persona.output.seed}. "
        "The exact recipe is `persona.json`, beside this card."
    )


def _weight(behaviour: Behaviour) -> str:
    words = _number(behaviour.weight)
    if behaviour.weight == 0:
        words += " (left out)"
    elif behaviour.weight < 0:
        words += " (negated)"
    if behaviour.modules:
        words += "; " + ", ".join(f"{_code(k)} × {_number(v)}" for k, v in sorted(behaviour.modules.items()))
    return words


def _terms(behaviour: Behaviour) -> str:
    terms = [f"{_number(term.coefficient)} × {_code(term.vector[:12])}" for term in behaviour.terms]
    return terms[0] if len(terms) == 1 else f"{len(terms)} terms: " + ", ".join(terms)


def _lineage(known: Mapping[str, Any]) -> str:
    """What one vector was trained on, or where it was taken from."""
    data, options = known.get("data"), known.get("options")
    if isinstance(data, Mapping) and data.get("name"):
        words = f"trained on {_code(_last_part(data['name']))}"
        if isinstance(data.get("rows"), int):
            words += f", {data['rows']} row{'' if data['rows'] == 1 else 's'}"
        if isinstance(options, Mapping):
            words += "".join(
                f", {key} {_code(options[key])}"
                for key in ("optimizer", "epochs", "lr", "seed")
                if key in options
            )
        return words
    if known.get("source"):
        return f"taken from {_code(_last_part(known['source']))}"
    return "not recorded"


def _scores(facts: CardFacts) -> str:
    if not facts.scores:
        return "## Scores\n\nNone were measured for this build."
    rows = [
        (
            _code(_last_part(score.get("data", "?"))),
            str(score["n"]) if isinstance(score.get("n"), int) else "–",
            _nats(_part(score, "base_margin", "mean")),
            _nats(_part(score, "margin", "mean")),
            _nats(_part(score, "effect", "mean"), sign=True),
            " to ".join(_nats(_part(score, "effect", end), sign=True) for end in ("low", "high")),
            _verdict(score),
        )
        for score in facts.scores
    ]
    head = ("held-out rows", "n", "margin, base", "margin, this model", "effect", "95 % interval", "verdict")
    return (
        "## Scores\n\n"
        + _table(head, rows)
        + "\n\nMargin: log-probability of the wanted answer minus that of the unwanted one, in nats, the mean "
        "over n rows. Effect: this model's margin minus the base's on the same rows, so the base is the "
        "control. Interval: paired bootstrap over rows; one that holds 0 is inconclusive."
    )


def _verdict(score: Mapping[str, Any]) -> str:
    low, high = _part(score, "effect", "low"), _part(score, "effect", "high")
    if low is None or high is None:
        return "–"
    return "up" if low > 0 else "down" if high < 0 else "inconclusive"


def _use(facts: CardFacts) -> str:
    name = facts.repo if facts.repo and _HUB_ID.fullmatch(facts.repo) else "path/to/this/folder"
    return (
        "## Use\n\n```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{name}")\n\n'
        'messages = [{"role": "user", "content": "Let\'s use SQLite for this."}]\n'
        "prompt = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n'
        ")\n"
        "reply = model.generate(**prompt, max_new_tokens=64)\n"
        'print(tokenizer.decode(reply[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True))\n'
        "```"
    )


def _ids(facts: CardFacts) -> str:
    rows = [
        ("persona", _code(facts.persona.id)),
        ("build", _code(facts.build_id)),
        ("weights", _code(facts.weights_id)),
        ("base", _code(facts.base.id)),
        *((f"SHA-256 of {_code(file)}", _code(digest)) for file, digest in sorted(facts.sums.items())),
    ]
    return (
        "## Ids\n\nEach is a SHA-256 over content; that of the weights is over the table of tensors, however "
        "they are split into files.\n\n" + _table(("what", "id"), rows)
    )


def _again(facts: CardFacts) -> str:
    return (
        "## Make it again\n\nIn the pv registry that this came from, at the revision with this persona's id:\n\n"
        "```\npv build REV -o model\n```\n\n"
        "The same persona gives the same bytes on any machine: the weights' id that the build prints is the "
        "one above."
    )


# Facts in words


def _hub_base(base: BaseManifest) -> str | None:
    """The base's repository, if it came from the Hub."""
    repo = base.origin.get("repo", "") if base.origin.get("kind") == "hub" else ""
    return repo if _HUB_ID.fullmatch(repo) else None


def _base_in_words(base: BaseManifest) -> str:
    repo = _hub_base(base)
    if repo is not None:
        commit = re.fullmatch(r"[0-9a-f]{40}", base.origin.get("revision", ""))
        at = f" (commit {_code(commit[0][:12])})" if commit else ""
        return f"[{_plain(repo)}](https://huggingface.co/{repo}){at}"
    name = _last_part(base.origin.get("path", ""))
    return f"A local checkpoint named {_code(name)}" if name else "A local checkpoint"


def _last_part(path: object) -> str:
    """`c.jsonl` of `/home/a/c.jsonl`: a card must not tell where its author keeps things."""
    return re.split(r"[\\/]+", str(path).rstrip("\\/"))[-1]


def _part(score: Mapping[str, Any], key: str, part: str) -> float | None:
    """score[key][part] (or score[key], for a mean given as a number) if that is a finite number."""
    value = score.get(key)
    if isinstance(value, Mapping):
        value = value.get(part)
    elif part != "mean":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _nats(value: float | None, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.2f}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1 << 53 else repr(float(value))


# Strangers' text, made safe


def yaml_string(text: str) -> str:
    """A double-quoted YAML scalar on one line that reads back as `text` (a lone surrogate as U+FFFD)."""
    return '"' + "".join(map(_yaml_char, text)) + '"'


def _yaml_char(ch: str) -> str:
    code = ord(ch)
    if ch in '"\\':
        return "\\" + ch
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    if ch.isprintable():  # neither control nor format characters, nor any space but the plain one
        return ch
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _tag(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:64].strip("-.")


def _one_line(text: object) -> str:
    """One line of at most MAX_CHARS without control, format or unassigned characters, and without pipes:
    readers of Markdown tables do not agree on how one is escaped."""
    plain = "".join(" " if ch.isspace() else ch for ch in str(text)).replace("|", "¦")
    plain = "".join("\ufffd" if unicodedata.category(ch).startswith("C") else ch for ch in plain)
    line = " ".join(plain.split()) or " "
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"


def _code(text: object) -> str:
    """A code span: Markdown and HTML inside it mean nothing."""
    line = _one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _plain(text: object) -> str:
    """Text outside a code span, every ASCII punctuation mark that could mean something escaped."""
    return re.sub(r"([!-,:-@\[-`{-~])", r"\\\1", _one_line(text))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [tuple(head), ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
