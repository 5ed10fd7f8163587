"""A conversation with one model, or with two side by side: what is typed, what is answered, what is kept of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App
from pv.cli.say import echo, plain
from pv.cli.terminal import edge
from pv.cli.wrap import Wrap
from pv.registry.errors import PvError
from pv.registry.words import revision_words

if TYPE_CHECKING:
    from pv.vecstore.repo.chat import Chat, Message
    from pv.vecstore.repo.revision import Revision

__all__ = ["Talk", "Voice", "typed"]

HELP = """  /system TEXT   set the system prompt; without TEXT there is none
  /reset         start a new conversation, with the same system prompt
  /exit          end, as Ctrl-D does
  //...          a line that begins with one /
  Ctrl-C ends a reply. Up and down arrows bring back what you typed."""


@dataclass
class Voice:
    """Who answers, and what was said so far."""

    revision: Revision
    chat: Chat
    base: bool  # it is the revision's bare base
    said: list[Message] = field(default_factory=list)
    replies: list[dict[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "the base" if self.base else revision_words(self.revision.name, self.revision.commit)

    def to_json(self) -> dict[str, Any]:
        return {"commit": self.revision.commit, "base": self.base, "replies": self.replies}


@dataclass
class Talk:
    """`answer` asks every voice and prints what it says; `command` does what a line with a / asks for."""

    app: App
    voices: Sequence[Voice]
    system: str | None
    max_tokens: int
    sampling: Mapping[str, Any]
    quiet: bool
    person: bool  # someone is typing: Ctrl-C ends a reply, and a prompt that cannot be answered is no end

    def ask(self, text: str) -> None:
        """Ask all, in turn. Raises KeyboardInterrupt and what a reply raises, unless someone is typing."""
        for voice in self.voices:
            if len(self.voices) > 1 and not self.quiet:
                echo(click.style(f"{plain(voice.name)}:", bold=True))
            try:
                if not self._answer(voice, text):
                    return
            except PvError as error:
                if not self.person:
                    raise
                self.app.note(f"error: {error}; /reset starts a new conversation")
                return

    def _answer(self, voice: Voice, text: str) -> bool:
        """One reply; False if it was interrupted."""
        from pv.vecstore.repo.chat import Message

        system = [Message("system", self.system)] if self.system else []
        pieces: list[str] = []
        stream = voice.chat.stream(
            [*system, *voice.said, Message("user", text)], self.max_tokens, **self.sampling
        )
        finish = "interrupted"
        write = _writer() if not self.quiet else None
        try:
            while True:
                pieces.append(next(stream))
                if write:
                    write.piece(plain(pieces[-1]))
        except StopIteration as end:
            finish = end.value
        except KeyboardInterrupt:
            if not self.person:
                raise
        finally:
            if write and (pieces or finish != "interrupted"):
                write.end()
                echo()
        reply = "".join(pieces)
        if reply or finish != "interrupted":
            voice.said += [Message("user", text), Message("assistant", reply)]
            voice.replies.append({"prompt": text, "reply": reply, "finish": finish})
        self._remark(finish, len(pieces))
        return finish != "interrupted"

    def _remark(self, finish: str, pieces: int) -> None:
        if finish == "length":
            self.app.note(f"  (cut at {self.max_tokens} tokens: --max-tokens allows longer replies)")
        elif finish == "context":
            self.app.note("  (cut: the model's context is full)")
        elif finish == "interrupted":
            self.app.note("  (interrupted)")

    def afresh(self) -> None:
        for voice in self.voices:
            voice.said.clear()

    def command(self, line: str) -> bool:
        """Do what a line that begins with / says; False: end."""
        word, _, rest = line.partition(" ")
        if word == "/exit":
            return False
        if word == "/help":
            self.app.note(HELP)
        elif word == "/reset":
            self.afresh()
            self.app.note("  (a new conversation)")
        elif word == "/system":
            self.system = rest.strip() or None
            self.app.note("  (a new system prompt)" if self.system else "  (no system prompt)")
        else:
            self.app.note(f"  no command {word}; /help lists them, and //... sends a line that begins with /")
        return True


def _writer() -> Wrap:
    """Replies wrapped at the terminal's width; where there is none, nothing is wrapped."""
    return Wrap(lambda text: echo(text, nl=False), edge())


def typed(app: App, person: bool) -> Iterator[str]:
    """Lines from stdin: of a person until Ctrl-D or a second Ctrl-C; of a program until the first empty one."""
    warned = False
    edited = person and sys.stdout.isatty() and _can_edit()
    while True:
        try:
            if person and not edited:
                click.echo("> ", nl=False, err=True)  # stdout is for replies
            text = input("> " if edited else "").strip()
        except EOFError:
            if person:
                echo(err=True)
            return
        except KeyboardInterrupt:
            if not person:
                raise
            echo(err=True)
            if warned:
                return
            warned = True
            app.note("  (Ctrl-C again ends the chat, and so does Ctrl-D)")
            continue
        warned = False
        if text:
            yield text
        elif not person:
            return


def _can_edit() -> bool:
    """Line editing and a history of this conversation, where Python has it: `input` finds it by itself."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return False
    return True
