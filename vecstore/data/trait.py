"""A trait: instructions to have it and not to have it, and questions to ask under them; no answers.

    {"instruction": [{"pos": "Be formal.", "neg": "Be casual."}, ...], "questions": ["How do I make tea?", ...]}

The shape of the files of safety-research/assistant-axis and of persona vectors. Other keys are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pv.registry import canonical
from pv.registry.errors import DataError, FormatError
from pv.vecstore.data.row import Message
from pv.vecstore.data.rows import read_file

__all__ = ["Trait", "read_trait"]

MOST = 10_000
HINT = '{"instruction": [{"pos": "Be formal.", "neg": "Be casual."}], "questions": ["How do I make tea?"]}'


@dataclass(frozen=True, slots=True)
class Trait:
    """`instructions`: (to have it, not to have it)."""

    name: str
    instructions: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]

    def prompts(self) -> list[tuple[str, tuple[Message, ...], tuple[Message, ...]]]:
        """Of each question the prompts that ask for the trait and against it; the instructions take turns."""
        found: list[tuple[str, tuple[Message, ...], tuple[Message, ...]]] = []
        for number, question in enumerate(self.questions):
            have, lack = self.instructions[number % len(self.instructions)]
            asked = Message("user", question)
            found.append((question, (Message("system", have), asked), (Message("system", lack), asked)))
        return found


def read_trait(path: str | PathLike[str]) -> Trait:
    """Raises DataError that says what is missing."""
    path = Path(path).expanduser()
    try:
        document = canonical.loads(read_file(path), what=str(path))
    except FormatError as error:
        raise DataError(
            f"{path} is not a trait: {error}", hint=f"a trait is one JSON object: {HINT}"
        ) from error
    match document:
        case {"instruction": [*instructions], "questions": [*questions]}:
            pass
        case _:
            raise DataError(
                f"{path} is not a trait: it needs 'instruction' and 'questions'", hint=f"as in {HINT}"
            )
    pairs = []
    for at, one in enumerate(instructions, start=1):
        match one:
            case {"pos": str(have), "neg": str(lack)} if have.strip() and lack.strip():
                pairs.append((have.strip(), lack.strip()))
            case _:
                raise DataError(f"{path}: instruction {at} needs texts 'pos' and 'neg'", hint=f"as in {HINT}")
    asked = [one.strip() for one in questions if isinstance(one, str) and one.strip()]
    if not pairs or len(asked) != len(questions) or not asked or len(asked) > MOST:
        raise DataError(
            f"{path}: a trait has at least one instruction and 1 to {MOST} questions, all of them texts",
            hint=f"as in {HINT}",
        )
    return Trait(path.stem, tuple(pairs), tuple(dict.fromkeys(asked)))
