"""pv chat as a person meets it, on a real pseudo-terminal; and its options as a program meets them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from support.commands import InProcess, Processes, World, command, take_terminal
from support.tiny import tiny_model, tiny_tokenizer

WAIT_S = 120
UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"


class Terminal:
    """`pv` on a terminal: `type` keys, and wait `until` something appears after what was waited for last."""

    def __init__(self, folder: Path, *arguments: str, columns: int = 60) -> None:
        self.master, slave = pty.openpty()
        self.screen, self.seen = "", 0
        self.process = subprocess.Popen(
            command(arguments),
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={
                **os.environ,
                "TERM": "dumb",
                "NO_COLOR": "1",
                "COLUMNS": str(columns),
                "OMP_NUM_THREADS": "1",
            },
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def until(self, text: str, *, again: str = "") -> str:
        """What appeared up to `text`, and with it. `again` is typed once more where nothing comes of it.

        Python misses a signal between the prompt and the read.
        """
        deadline = time.monotonic() + WAIT_S
        while (place := self.screen.find(text, self.seen)) < 0:
            if again and not select.select([self.master], [], [], 5)[0]:
                self.type(again)
            assert time.monotonic() < deadline and self._read(), (
                f"no {text!r} in {self.screen[self.seen :]!r}"
            )
        found = self.screen[self.seen : place + len(text)]
        self.seen = place + len(text)
        return found

    def ended(self, *, again: str = "") -> int:
        while True:
            if again and not select.select([self.master], [], [], 5)[0]:
                self.type(again)
            elif not self._read():
                break
        return self.process.wait(WAIT_S)

    def _read(self) -> bool:
        if not select.select([self.master], [], [], WAIT_S)[0]:
            return False
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # how Linux says that the other side is closed
            return False
        self.screen += piece.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(piece)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry on a model that takes its time."""
    folder = tmp_path_factory.mktemp("slow")
    tiny_model(hidden=512, layers=16).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    InProcess(folder).ok("init", "--base", folder / "base", "--reference")
    return folder


@pytest.fixture
def chat(world: World, pv: InProcess) -> Iterator[Terminal]:
    pv.ok("chat", "-p", "One?", "--max-tokens", "3")  # so that the build is there
    with Terminal(world.folder, "chat", "--max-tokens", "3", "--threads", "1") as terminal:
        assert "talking to listening 1; /help lists commands, Ctrl-D ends" in terminal.until("> ")
        yield terminal


def test_what_was_typed_comes_back(chat: Terminal) -> None:
    """The model is not sent `^[[A`."""
    chat.type("One?\n")
    first = chat.until("\n> ")
    chat.type(f"{UP}\n")
    again = chat.until("\n> ")
    assert "One?" in again and "^[[A" not in again
    chat.type("Twx\x7fo?\n")
    assert "Two?" in chat.until("\n> ").replace("\b \b", "").replace("Twxo", "Two")
    chat.type(CTRL_D)
    assert chat.ended() == 0
    assert "One?" in first and "interrupted" not in chat.screen


def test_commands(chat: Terminal) -> None:
    for line, answer in {
        "/help": "/system TEXT",
        "/reset": "(a new conversation)",
        "/system Answer in French.": "(a new system prompt)",
        "/system": "(no system prompt)",
        "/quit": "no command /quit; /help lists them",
    }.items():
        chat.type(f"{line}\n")
        assert answer in chat.until("\n> ")
    chat.type("\n")
    chat.until("> ")
    chat.type("//etc\n")
    assert "no command" not in chat.until("\n> "), "that is a prompt"
    chat.type("/exit\n")
    assert chat.ended() == 0


def test_a_conversation_that_is_reset_begins_afresh(chat: Terminal) -> None:
    def ask(text: str) -> str:
        chat.type(f"{text}\n")
        return chat.until("\n> ").partition("\n")[2]

    first = ask("One?")
    ask("Two?")
    ask("/reset")
    assert ask("One?") == first
    assert "(cut at 3 tokens: --max-tokens allows longer replies)" in first


def test_a_prompt_that_does_not_fit_is_no_end(chat: Terminal) -> None:
    chat.type("x" * 600 + "\n")
    assert "context holds 512; /reset starts a new conversation" in " ".join(chat.until("\n> ").split())
    chat.type("One?\n")
    chat.until("cut at 3")


def test_ctrl_c_ends_a_reply_and_not_the_chat(slow: Path) -> None:
    """No error, and not the end of the chat."""
    with Terminal(slow, "chat", "--max-tokens", "440", "--threads", "1") as terminal:
        terminal.until("> ")
        terminal.type("One?\n")
        terminal.until("One?\n")
        while len(terminal.screen) < terminal.seen + 8:  # it has begun to answer
            assert terminal._read()
        terminal.type(CTRL_C)
        terminal.until("(interrupted)")
        terminal.until("> ")
        terminal.type("/reset\n")
        terminal.until("> ")
        terminal.type(f"half a line{CTRL_C}")
        terminal.until("(Ctrl-C again ends the chat, and so does Ctrl-D)", again=CTRL_C)
        terminal.until("> ")
        terminal.type("/reset\n")
        terminal.until("> ")
        terminal.type(CTRL_C)
        terminal.until("Ctrl-C again", again=CTRL_C)
        terminal.until("> ")
        terminal.type(CTRL_C)
        assert terminal.ended(again=CTRL_C) == 0
        assert "error" not in terminal.screen and "Traceback" not in terminal.screen


def test_replies_are_broken_between_words(world: World, pv: InProcess) -> None:
    """On a pipe nothing is broken."""
    (reply,) = pv.ok("chat", "-p", "One?", "--max-tokens", "120", "--json").json["replies"]
    assert pv.ok("chat", "-p", "One?", "--max-tokens", "120").out == reply["reply"] + "\n"


# Options, and JSON


def test_what_ended_a_reply(world: World, pv: InProcess) -> None:
    (reply,) = pv.ok("chat", "-p", "One?", "--max-tokens", "3", "--json").json["replies"]
    assert reply["finish"] == "length"
    said = pv.ok("chat", "-p", "One?", "--max-tokens", "3")
    assert "cut at 3 tokens" in said.err and "cut at" not in said.out
    said = pv.ok("chat", "-p", "x" * 400, "--max-tokens", "300", "--json")
    assert said.json["replies"][0]["finish"] in ("context", "stop")


def test_a_system_prompt_goes_before(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "50")

    def ask(*options: str) -> str:
        (reply,) = pv.ok("chat", "-p", "One?", "--max-tokens", "16", "--json", *options).json["replies"]
        return str(reply["reply"])

    from pv.vecstore.data.rows import Message
    from pv.vecstore.repo.repo import Repo

    with Repo.open(world.folder) as repo, repo.at().chat(threads=1) as model:
        said = [Message("system", "Shout."), Message("user", "One?")]
        assert ask("--system", "Shout.") == "".join(model.stream(said, 16))
        assert ask() == "".join(model.stream(said[1:], 16))


def test_two_revisions_side_by_side(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "300")
    ask = ("-p", "One?", "-p", "Two?", "--max-tokens", "6")
    both = pv.ok("chat", "HEAD~1", "HEAD", *ask, "--json").json
    for key, rev in (("a", "HEAD~1"), ("b", "HEAD")):
        alone = pv.ok("chat", rev, *ask, "--json").json
        assert both[key] == {key: value for key, value in alone.items() if key != "schema"}
    said = pv.ok("chat", "HEAD~1", "HEAD", *ask)
    labels = [line for line in said.out.splitlines() if line.endswith("):")]
    assert [label.partition(" ")[0] for label in labels] == ["HEAD~1", "HEAD"] * 2


def test_json_says_whether_it_was_the_base(world: World, pv: InProcess) -> None:
    for options, base in (((), False), (("--base",), True)):
        assert pv.ok("chat", *options, "-p", "One?", "--max-tokens", "2", "--json").json["base"] is base


def test_more_revisions_than_it_takes(world: World, pv: InProcess) -> None:
    for words in (("HEAD", "HEAD", "HEAD"), ("--base", "HEAD", "HEAD")):
        said = pv("chat", *words, "-p", "One?")
        assert (said.code, said.out) == (2, "") and "pv chat A B" in said.err


def test_a_program_on_stdin_is_not_typing(world: World, pv: InProcess) -> None:
    """What begins with / is a prompt there, as it always was; the first empty line ends."""
    found = pv.ok("chat", "--max-tokens", "2", "--json", stdin="/help\nTwo?\n\nnot this\n").json
    assert [reply["prompt"] for reply in found["replies"]] == ["/help", "Two?"]


def test_ctrl_c_in_a_reply_to_p_ends_it(slow: Path) -> None:
    process = Processes(slow)
    said = process.interrupted_after("loading the model", "chat", "-p", "One?", "--max-tokens", "440")
    assert said.code == 130 and "interrupted" in said.err
