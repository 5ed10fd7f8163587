"""Shown: whether a behaviour is in the model's own replies, by the rule that the file of rows gives.

The margin of a given answer does not see when a behaviour starts, or that nothing else is said: replies do.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from pv.registry.errors import DataError
from pv.vecstore.data.reply_rule import ReplyRule
from pv.vecstore.data.row import Message

__all__ = ["asked", "shown"]

SECONDS = 60
"""How long a judge may take for one reply."""


def shown(
    rule: ReplyRule,
    prompts: Sequence[Sequence[Message]],
    replies: Sequence[str],
    base_replies: Sequence[str],
) -> list[bool]:
    """Reply by reply: does it show the behaviour. Runs the rule's command, if it has one. Raises DataError."""
    found = []
    for prompt, reply, base_reply in zip(prompts, replies, base_replies, strict=True):
        holds = rule.holds(reply)
        if holds and rule.command:
            holds = _judged(rule.command, asked(prompt), reply, base_reply)
        found.append(holds)
    return found


def asked(prompt: Sequence[Message]) -> str | list[dict[str, str]]:
    """A prompt as JSON: what the user said, or the messages where there is more."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return [message.to_json() for message in prompt]


def _judged(command: Sequence[str], prompt: object, reply: str, base_reply: str) -> bool:
    question = json.dumps({"prompt": prompt, "reply": reply, "base_reply": base_reply})
    name = " ".join(command)
    try:
        done = subprocess.run(
            list(command), input=question, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"the judge {name!r} took more than {SECONDS} s for one reply", hint="run it by hand to see why"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"the judge {name!r} cannot be run: {error}", hint="'command' is a list: program and arguments"
        ) from error
    if done.returncode not in (0, 1):
        why = " ".join(done.stderr.split())[-200:]
        raise DataError(
            f"the judge {name!r} ended with {done.returncode}{f': {why}' if why else ''}",
            hint="0 means that the reply shows the behaviour, 1 that it does not",
        )
    return done.returncode == 0
