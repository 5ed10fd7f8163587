"""The model card of a built persona: what it is, how it was made, what was measured, how to make it again.

Invariant: names, paths, scores and provenance are data from strangers, and go through `markdown`; of a local
path only the last part is shown. The same facts give the same card.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pv.registry.combine import METHODS
from pv.registry.dtypes import OUTPUTS
from pv.registry.manifest import BaseManifest
from pv.registry.persona import Behaviour, Persona
from pv.registry.provenance import Derived, Provenance, Unknown
from pv.registry.provenance_ways import as_behaviour
from pv.registry.words import module_words, number, switch_words, term_list
from pv.vecstore.data.overlap import Overlap
from pv.vecstore.publish.beside import NotedDamage, NotedReplies, NotedTasks
from pv.vecstore.publish.figures import interval
from pv.vecstore.publish.lineage import lineage, measured, original
from pv.vecstore.publish.markdown import code, plain, table, tag, yaml_string
from pv.vecstore.publish.steering import steering_section
from pv.vecstore.publish.words import VERDICTS, caveats, last_part, part, rows_of

__all__ = ["CardFacts", "model_card"]

HEAD: tuple[str, ...] = (
    "rows", "n", "margin, base", "margin, this model", "effect", "95 % interval", "verdict"
)  # fmt: skip
DAMAGE = (
    " Damage: log-likelihood that ordinary answers (after their first 16 tokens) and plain text lose against the "
    "base, in nats a token, on rows that no behaviour is about; below 0 it gained."
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is written from.

    `weights_id` is the id of the built tensor table, `sums` the SHA-256 of each weight file. `provenance`
    maps a vector id to what is known of it. A score is {"data", "data_id", "n", "effect": {"mean", "low", "high"},
    "margin", "base_margin", "verdict", "overlap"}; whatever is missing is left out. `repo` is "user/name" on the Hub,
    `licence` an identifier that the Hub knows. `unbaked` says of steering terms why they are not in the weights.
    """

    persona: Persona
    base: BaseManifest
    build_id: str
    weights_id: str
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    scores: Sequence[Mapping[str, Any]] = ()
    sums: Mapping[str, str] = field(default_factory=dict)
    repo: str | None = None
    licence: str | None = None
    unbaked: Mapping[str, str] = field(default_factory=dict)


def model_card(facts: CardFacts) -> str:
    """README.md: YAML front matter, then Markdown."""
    sections = (
        _title(facts), _recipe(facts), _steering(facts), _scores(facts), _use(facts), _ids(facts), _again(facts)
    )  # fmt: skip
    return _front_matter(facts) + "\n" + "\n\n".join(filter(None, sections)) + "\n"


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
    lines += [f"- {yaml_string(one)}" for one in dict.fromkeys(map(tag, tags)) if one]
    return "\n".join([*lines, "---", ""])


def _title(facts: CardFacts) -> str:
    name = facts.repo.rpartition("/")[2] if facts.repo else "A persona"
    count = sum(1 for behaviour in facts.persona.behaviours.values() if behaviour.weight)
    behaviours = "no behaviours" if count == 0 else "1 behaviour" if count == 1 else f"{count} behaviours"
    return (
        f"# {plain(name)}\n\n"
        f"{_base_in_words(facts.base)}, with {behaviours} merged into its weights. Each behaviour was "
        "learned on its own and kept as a task vector: fine-tuned weights minus base weights. pv "
        "(personavec) keeps such vectors under version control, and builds checkpoints from them."
    )


def _recipe(facts: CardFacts) -> str:
    persona = facts.persona
    if not persona.behaviours:
        steered = len(persona.steering.active) > len(facts.unbaked)
        more = ", but for the biases below" if steered else ""
        return f"## Recipe\n\nNo behaviours: these are the base's weights{more}."
    rows = [
        (
            code(name),
            _weight(behaviour),
            term_list(behaviour.terms, code),
            _of_each(facts, name, lambda known: [lineage(known, code)]),
            _of_each(facts, name, _measured) or "–",
        )
        for name, behaviour in sorted(persona.behaviours.items())
    ]
    options = switch_words(persona.combine, code)
    method = METHODS.get(persona.combine.method)
    combine = method.summary if method else "by that rule"
    output = persona.output
    return (
        "## Recipe\n\n"
        + table(("behaviour", "weight", "vectors", "from", "measured alone, at weight 1"), rows)
        + f"\n\nCombined with {code(persona.combine.method)}: {combine}"
        + (f" ({options})" if options else "")
        + f". Written {_written(output.dtype)}, {code(output.rounding)} rounding, seed {output.seed}. "
        "The exact recipe is `persona.json`, beside this card."
    )


def _steering(facts: CardFacts) -> str:
    return steering_section(facts.persona, facts.unbaked, facts.provenance, "path/to/this/folder")


def _written(dtype: str) -> str:
    if dtype == "base":
        return "in the base's own dtypes"
    return f"as {dtype if dtype in OUTPUTS else code(dtype)}"


def _weight(behaviour: Behaviour) -> str:
    words = number(behaviour.weight)
    if behaviour.weight == 0:
        words += " (left out)"
    elif behaviour.weight < 0:
        words += " (negated)"
    if behaviour.modules:
        words += f"; {module_words(behaviour.modules, code)}"
    return words


def _of_each(facts: CardFacts, name: str, words: Callable[[Provenance], Iterable[str]]) -> str:
    """What is to be said of a behaviour's vectors, each thing once."""
    terms = facts.persona.behaviour(name).terms
    known = (as_behaviour(facts.provenance.get(term.vector, Unknown()), name) for term in terms)
    return "; ".join(dict.fromkeys(word for one in known for word in words(one)))


def _measured(known: Provenance) -> tuple[str, ...]:
    before = original(known, code) if isinstance(known, Derived) else ()
    return (*measured(known, code), *before)


def _scores(facts: CardFacts) -> str:
    if not facts.scores:
        return "## Scores\n\nNone were measured for this build."
    rows: list[tuple[str, ...]] = [
        (
            code(last_part(score.get("data", "?"))),
            str(score["n"]) if isinstance(score.get("n"), int) else "–",
            _nats(part(score, "base_margin", "mean")),
            _nats(part(score, "margin", "mean")),
            _nats(part(score, "effect", "mean"), sign=True),
            " to ".join(_nats(part(score, "effect", end), sign=True) for end in ("low", "high")),
            _verdict(score),
        )
        for score in facts.scores
    ]
    head = HEAD
    damaged = any(NotedDamage.read(score) for score in facts.scores)
    if damaged:
        head = (*head, "damage, plain answers", "damage, plain text")
        rows = [(*row, *_damage(score)) for row, score in zip(rows, facts.scores, strict=True)]
    notes = [f"- {code(last_part(s.get('data', '?')))}: {note}" for s in facts.scores for note in _caveats(s)]
    return (
        "## Scores\n\n"
        + table(head, rows)
        + ("\n\n" + "\n".join(notes) if notes else "")
        + "\n\nMargin: log-probability of the wanted answer minus that of the unwanted one, in nats, the mean "
        "over n rows. Effect: this model's margin minus the base's on the same rows, so the base is the "
        "control. Interval: paired bootstrap over rows; one that holds 0 is inconclusive."
        + (DAMAGE if damaged else "")
    )


def _damage(score: Mapping[str, Any]) -> tuple[str, str]:
    found = NotedDamage.read(score)
    sides = (found.answers, found.text) if found else (None, None)
    return tuple(interval(*one, 3) if one else "–" for one in sides)  # type: ignore[return-value]


def _caveats(score: Mapping[str, Any]) -> tuple[str, ...]:
    replies, tasks = NotedReplies.read(score), NotedTasks.read(score)
    lines = [tasks.words(code)] if tasks else []
    lines += [replies.words()] if replies else []
    return (*lines, *caveats(rows_of(score), Overlap.read(score.get("overlap")), code))


def _verdict(score: Mapping[str, Any]) -> str:
    low, high = part(score, "effect", "low"), part(score, "effect", "high")
    if low is None or high is None:
        return "–"
    return VERDICTS["up" if low > 0 else "down" if high < 0 else "inconclusive"][0]


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
        ("persona", code(facts.persona.id)),
        ("build", code(facts.build_id)),
        ("weights", code(facts.weights_id)),
        ("base", code(facts.base.id)),
        *((f"SHA-256 of {code(file)}", code(digest)) for file, digest in sorted(facts.sums.items())),
    ]
    return (
        "## Ids\n\nEach is a SHA-256 over content; that of the weights is over the table of tensors, however "
        "they are split into files.\n\n" + table(("what", "id"), rows)
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
        at = f" (commit {code(commit[0][:12])})" if commit else ""
        return f"[{plain(repo)}](https://huggingface.co/{repo}){at}"
    name = last_part(base.origin.get("path", ""))
    return f"A local checkpoint named {code(name)}" if name else "A local checkpoint"


def _nats(value: float | None, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.2f}"
