"""What a row's values may be: text, a list of messages, an answer. Whoever reads one says where, if it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from pv.vecstore.data.row import ROLES, Message
from pv.vecstore.data.row_error import RowError, kind

__all__ = ["RowError", "answer", "kind", "messages", "shared_prompt", "text", "turns"]

SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant"}
"""Who speaks in ShareGPT, where it is not one of ROLES."""


def text(value: object, key: str) -> str:
    if not isinstance(value, str):
        refuse(f"{key!r} must be text, not {kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(f"{key!r} holds half a surrogate pair, which no text can")
    return value


def filled(value: str, what: str) -> str:
    if not value.strip():
        refuse(f"{what} is empty: an answer needs words")
    return value


def prompt(value: object) -> tuple[Message, ...]:
    """A prompt: text, which the user says, or messages."""
    if not isinstance(value, str):
        return messages(value, "prompt")
    if not value.strip():
        refuse("'prompt' is empty")
    return (Message("user", text(value, "prompt")),)


def answer(value: object, key: str, asked: tuple[Message, ...] = ()) -> str:
    """An answer: text, or (as TRL writes it) one assistant message, with or without the prompt before it."""
    if not isinstance(value, list):
        return filled(text(value, key), repr(key))
    said = messages(value, key)
    if said[: len(asked)] == asked:
        said = said[len(asked) :]
    if len(said) != 1 or said[0].role != "assistant":
        refuse(
            f"{key!r} must be text, or one assistant message (after those of the prompt, if it repeats them)"
        )
    return filled(said[0].content, repr(key))


def messages(value: object, key: str) -> tuple[Message, ...]:
    """A list of `{"role", "content"}`; other keys of a message may only be null, as tables have them."""
    if not isinstance(value, list) or not value:
        refuse(
            f"{key!r} must be {'text or ' if key == 'prompt' else ''}a list of messages, not {kind(value)}"
        )
    return tuple(_message(item, key, "role", "content", {}) for item in value)


def turns(value: object, key: str) -> tuple[Message, ...]:
    """The same, or ShareGPT's `{"from", "value"}`."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "from" in value[0]:
        return tuple(_message(item, key, "from", "value", SPEAKERS) for item in value)
    return messages(value, key)


def conversation(said: tuple[Message, ...], key: str) -> tuple[tuple[Message, ...], str]:
    """A conversation as what was asked, and its last answer."""
    if len(said) < 2 or said[-1].role != "assistant":
        refuse(f"{key!r} must end with the assistant's answer, after at least one message")
    return said[:-1], filled(said[-1].content, "the last message")


def shared_prompt(chosen: object, rejected: object) -> tuple[Message, ...]:
    """The messages before the answer, which both conversations share."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        refuse("'prompt' is missing, and 'chosen' and 'rejected' are not conversations that share one")
    ours, theirs = messages(chosen, "chosen"), messages(rejected, "rejected")
    if len(ours) < 2 or ours[:-1] != theirs[:-1]:
        refuse("'prompt' is missing, and 'chosen' and 'rejected' do not begin with the same messages")
    return ours[:-1]


def label(value: object) -> bool:
    """KTO's verdict on an answer. A table of texts has it in words."""
    known = {"true": True, "false": False, "1": True, "0": False}
    found = known.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        refuse(f"'label' must be true or false, not {kind(value)}")
    return found


def _message(item: object, key: str, who: str, what: str, speakers: Mapping[str, str]) -> Message:
    said = (
        {k: v for k, v in item.items() if v is not None or k in (who, what)} if isinstance(item, dict) else {}
    )
    if set(said) - {"weight"} != {who, what}:
        refuse(f'a message in {key!r} must be {{"{who}": "...", "{what}": "..."}}')
    role: Any = speakers.get(str(said[who]), said[who])
    if role not in ROLES:
        known = (*speakers, *ROLES)
        refuse(f"unknown role {str(role)[:40]!r}: one of {', '.join(known)}")
    return Message(role, text(said[what], f"{key}: {what}"))


def refuse(why: str) -> NoReturn:
    raise RowError(why)
