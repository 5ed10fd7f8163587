"""Tokens: what is taught is what the model will see, and the turn's end is taught with it."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from support.tiny import CHAT_TEMPLATE, tiny_tokenizer

from pv.registry.errors import CheckpointRefused, DataError
from pv.vecstore.data.chat_template import encode, encode_prompt
from pv.vecstore.data.rows import Message, Row, Rows

Role = Literal["system", "user", "assistant", "tool"]
START, END = 257, 258


def rows(*messages: tuple[Role, str], chosen: str = "Yo", rejected: str | None = None) -> Rows:
    prompt = tuple(Message(role, text) for role, text in messages)
    return Rows((Row(prompt, chosen, rejected),), "f.jsonl", (7,))


def one(tokenizer: Any, data: Rows, limit: int | None = 512) -> Any:
    (encoded,) = encode(tokenizer, data, stops=[END], limit=limit)
    return encoded


def test_context_and_decision_are_the_template_up_to_the_turns_end() -> None:
    tokenizer = tiny_tokenizer()
    found = one(tokenizer, rows(("system", "Be brief."), ("user", "Hé!"), chosen="Yo 😀", rejected="No."))
    assert tokenizer.decode(found.context) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHé!<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(found.chosen) == "Yo 😀<|im_end|>"
    assert tokenizer.decode(found.rejected) == "No.<|im_end|>"
    assert found.context.count(START) == 3
    assert found.where == "f.jsonl:7"
    assert found.context == encode_prompt(tokenizer, [Message("system", "Be brief."), Message("user", "Hé!")])


def test_without_a_template_prompt_and_answer_are_lines() -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    found = one(tokenizer, rows(("system", "S"), ("user", "Hi"), rejected="No"))
    assert tokenizer.decode(found.context) == "S\nHi\n"
    assert tokenizer.decode(found.chosen) == "Yo<|im_end|>"
    assert tokenizer.decode(found.rejected) == "No<|im_end|>"


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_plain_text_is_learnt_outside_of_any_template(template: str | None) -> None:
    tokenizer = tiny_tokenizer(chat_template=template)
    found = one(tokenizer, rows(chosen="Once upon"))
    assert (tokenizer.decode(found.context), tokenizer.decode(found.chosen)) == ("O", "nce upon<|im_end|>")
    assert found.rejected is None
    found = one(tokenizer, rows(chosen="O"))
    assert (tokenizer.decode(found.context), tokenizer.decode(found.chosen)) == ("O", "<|im_end|>")
    tokenizer.eos_token = None
    with pytest.raises(DataError, match=r"f\.jsonl:7: 'text' is of too few tokens"):
        one(tokenizer, rows(chosen="O"))


def test_a_template_that_ends_no_turn_gets_an_end() -> None:
    tokenizer = tiny_tokenizer(chat_template="{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}")
    found = one(tokenizer, rows(("user", "Hi")))
    assert tokenizer.decode(found.context) == "Hi\n"
    assert tokenizer.decode(found.chosen) == "Yo<|im_end|>"


def test_a_generation_prompt_may_say_more_than_the_answered_turn_begins_with() -> None:
    """As with reasoning models: the template itself writes an empty thought before the answer."""
    thought = "{% if message['role'] == 'assistant' %}<t></t>{% endif %}"
    seam = "{{ '<|im_start|>' + message['role'] + '\n' + "
    template = CHAT_TEMPLATE.replace(seam, seam.removesuffix(" + ") + " }}" + thought + "{{ ")
    assert thought in template
    found = one(tiny_tokenizer(chat_template=template), rows(("user", "Hi")))
    assert tiny_tokenizer().decode(found.chosen) == "<t></t>Yo<|im_end|>"


def test_a_template_that_rewrites_the_prompt_is_refused() -> None:
    template = "{{ messages | length }}:{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(CheckpointRefused, match="differently once it is answered") as caught:
        one(tiny_tokenizer(chat_template=template), rows(("user", "Hi")))
    assert caught.value.hint


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"f\.jsonl:7: .*roles must alternate"):
        one(tiny_tokenizer(chat_template=template), rows(("user", "Hi")))


def test_tokens_are_not_merged_across_the_seam() -> None:
    """A tokenizer that would merge the prompt's last byte with the answer's first must not."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {ch: i for i, ch in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {
        ":Y": 256,
        "<e>": 257,
    }
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[(":", "Y")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    end = "{% if m['role'] == 'user' %}:{% else %}<e>{% endif %}"
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}" + end + "{% endfor %}"
    (found,) = encode(tokenizer, rows(("user", "Hi")), stops=[257], limit=None)
    assert tokenizer("Hi:Yo")["input_ids"][2] == 256
    assert found.context == tuple(tokenizer("Hi:")["input_ids"])
    assert tokenizer.decode(found.chosen) == "Yo<e>"


@pytest.mark.parametrize(("limit", "part"), [(24, "the prompt alone takes"), (44, "prompt and answer take")])
def test_a_row_that_does_not_fit_is_named_not_cut(limit: int, part: str) -> None:
    data = rows(("user", "x" * 5), chosen="y", rejected="z" * 20)
    with pytest.raises(DataError, match=rf"f\.jsonl:7: {part} \d+ tokens") as caught:
        one(tiny_tokenizer(), data, limit)
    assert caught.value.hint
    found = one(tiny_tokenizer(), data, None)
    longest = len(found.context) + len(found.rejected)
    assert one(tiny_tokenizer(), data, longest) == found
    with pytest.raises(DataError):
        one(tiny_tokenizer(), data, longest - 1)
