"""A training that is stopped goes on bit for bit: at every step, by every signal, and after a power cut in a save."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import tiny_checkpoint

from pv.registry.disk import durable
from pv.registry.errors import IntegrityError, NotFoundError, PvError, StorageError, UsageError
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.train.loop import Step, Trained, train
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.saving import Saving
from pv.vecstore.train.state import read_state

FAST = TrainOptions(
    lr=3e-3, epochs=2, batch=4, rank=4, learn="difference", hold=10, general=10, general_rows=1
)
STEPS = 6
RUN = {"rows": "r" * 64, "base": "b" * 64, "source": "rows.jsonl"}


def rows(count: int = 12) -> Rows:
    lines = [f'{{"prompt": "p{i}?", "chosen": "aye {i}!", "rejected": "no"}}\n' for i in range(count)]
    return parse_rows("".join(lines).encode())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout, so that torch's generator matters too."""
    path = tiny_checkpoint(tmp_path_factory.mktemp("base"))
    config = path / "config.json"
    config.write_text(config.read_text().replace('"attention_dropout": 0.0', '"attention_dropout": 0.3'))
    return path


def bits(trained: Trained) -> str:
    digest = hashlib.sha256(repr((trained.loss, trained.tokens)).encode())
    for name, delta in sorted(trained.deltas.items()):
        digest.update(name.encode() + delta.tobytes())
    assert trained.gradient is not None
    digest.update(trained.gradient.sums.tobytes() + trained.gradient.squares.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module", params=["apollo", "adamw"])
def options(request: pytest.FixtureRequest) -> TrainOptions:
    return dataclasses.replace(FAST, optimizer=request.param)


@pytest.fixture(scope="module")
def whole(base: Path, options: TrainOptions) -> str:
    return bits(train(base, rows(), options, threads=1))


def saving(tmp_path: Path, *, resume: bool = False, every_s: float = 1e9, **run: Any) -> Saving:
    return Saving(tmp_path / "state.safetensors", {**RUN, **run}, resume, every_s)


def signalled(number: int, at: int) -> Callable[[Step], None]:
    return lambda step: os.kill(os.getpid(), number) if step.step == at else None


def in_a_process(work: Callable[[], object]) -> int:
    """The work in a child of ours, that may be killed; how it ended, as a signal's number or 0."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_at_any_step(
    base: Path, options: TrainOptions, whole: str, tmp_path: Path, number: int
) -> None:
    assert dataclasses.replace(FAST).steps(12) == STEPS
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    for at in range(STEPS + 1):
        with pytest.raises(KeyboardInterrupt) as stopped:
            train(base, rows(), options, threads=1, saving=saving(tmp_path), progress=signalled(number, at))
        assert f"step {at} of {STEPS} is saved" in stopped.value.__notes__[-1]
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
        seen: list[Step] = []
        torch.manual_seed(99)
        again = train(
            base, rows(), options, threads=1, saving=saving(tmp_path, resume=True), progress=seen.append
        )
        assert bits(again) == whole
        assert [step.step for step in seen] == list(range(at, STEPS + 1))
        assert again.settings["resumed"] == [at]


def test_stopped_again_and_again(base: Path, options: TrainOptions, whole: str, tmp_path: Path) -> None:
    for at in range(STEPS):
        with pytest.raises(KeyboardInterrupt):
            train(
                base, rows(), options, threads=1, saving=saving(tmp_path, resume=at > 0),
                progress=signalled(signal.SIGINT, at),
            )  # fmt: skip
    again = train(base, rows(), options, threads=1, saving=saving(tmp_path, resume=True))
    assert bits(again) == whole
    assert again.settings["resumed"] == [0, 1, 2, 3, 4, 5]


def test_killed_after_any_step(base: Path, options: TrainOptions, whole: str, tmp_path: Path) -> None:
    for at in range(2, STEPS + 1):  # the first save is after step 1

        def run(at: int = at) -> None:
            kill = signalled(signal.SIGKILL, at)
            train(base, rows(), options, threads=1, saving=saving(tmp_path, every_s=0), progress=kill)

        assert in_a_process(run) == signal.SIGKILL
        assert read_state(tmp_path / "state.safetensors").step == at - 1
        assert bits(train(base, rows(), options, threads=1, saving=saving(tmp_path, resume=True))) == whole


def test_killed_in_the_middle_of_a_save(base: Path, tmp_path: Path) -> None:
    """The state before, or the state after; both go on to the same bits."""
    whole = bits(train(base, rows(), FAST, threads=1))
    with pytest.raises(KeyboardInterrupt):
        train(base, rows(), FAST, threads=1, saving=saving(tmp_path), progress=signalled(signal.SIGINT, 2))
    labels: list[str] = []
    first = (tmp_path / "state.safetensors").read_bytes()
    durable.fault = labels.append
    try:
        with pytest.raises(KeyboardInterrupt):
            train(
                base, rows(), FAST, threads=1, saving=saving(tmp_path, resume=True),
                progress=signalled(signal.SIGINT, 3),
            )  # fmt: skip
    finally:
        durable.fault = None
    points = sorted({0, 1, len(labels) // 2, *range(len(labels) - 5, len(labels))})
    assert "fsync file" in labels[-4:] and "rename state.safetensors" in labels[-4:]
    found = set()
    for point in points:
        (tmp_path / "state.safetensors").write_bytes(first)
        left = [point]

        def fault(label: str, left: list[int] = left) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        def run() -> None:
            durable.fault = fault
            train(
                base, rows(), FAST, threads=1, saving=saving(tmp_path, resume=True),
                progress=signalled(signal.SIGINT, 3),
            )  # fmt: skip

        assert in_a_process(run) == signal.SIGKILL, labels[point]
        found.add(read_state(tmp_path / "state.safetensors").step)
    assert found == {2, 3}
    assert bits(train(base, rows(), FAST, threads=1, saving=saving(tmp_path, resume=True))) == whole


@pytest.fixture(scope="module")
def stopped(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(base, rows(), FAST, threads=1, saving=saving(folder), progress=signalled(signal.SIGINT, 2))
    return folder / "state.safetensors"


def resumed(checkpoint: Path, file: Path, options: TrainOptions = FAST, threads: int = 1, **run: Any) -> None:
    train(checkpoint, rows(), options, threads=threads, saving=Saving(file, {**RUN, **run}, True))


def test_the_state_holds_masters_moments_and_generators(stopped: Path) -> None:
    tensors = load_file(stopped)
    assert {name.split("/")[0] for name in tensors} == {
        "weights",
        "optimizer",
        "random",
        "loss",
        "gradient",
        "sha256",
    }
    assert all(t.dtype == torch.float32 for name, t in tensors.items() if name.startswith("weights/"))
    assert tensors["loss"].tolist() and len(tensors["loss"]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": "x" * 64}, r"began with other rows \(rows.jsonl\)"),
        ({"base": "x" * 64}, "began on another base"),
    ],
)
def test_other_rows_and_another_base_are_refused(
    base: Path, stopped: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        resumed(base, stopped, **change)
    assert "without --resume" in str(refused.value.hint)


def test_other_settings_are_listed(base: Path, stopped: Path) -> None:
    other = dataclasses.replace(FAST, lr=1e-3, epochs=3)
    with pytest.raises(UsageError, match=r"epochs 2 then, 3 now; lr 0.003 then, 0.001 now"):
        resumed(base, stopped, other)
    with pytest.raises(UsageError, match="began with 1 threads, not 2") as refused:
        resumed(base, stopped, threads=2)
    assert "--threads 1" in str(refused.value.hint)


def test_nothing_to_resume(base: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing to resume"):
        resumed(base, tmp_path / "state.safetensors")


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import sys; sys.modules['pv_was_had'] = sys",)


def damaged() -> dict[str, Callable[[bytes, Path], bytes]]:
    def flipped(data: bytes, file: Path) -> bytes:
        at = len(data) // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def code(data: bytes, file: Path) -> bytes:
        torch.save({"state": Code()}, file)
        return file.read_bytes()

    def without(name: str) -> Callable[[bytes, Path], bytes]:
        def leave_out(data: bytes, file: Path) -> bytes:
            tensors = load_file(file)
            del tensors[next(key for key in tensors if key.startswith(name))]
            save_file(tensors, file, metadata={"pv": "{}"})
            return file.read_bytes()

        return leave_out

    return {
        "cut": lambda data, file: data[: len(data) * 2 // 3],
        "empty": lambda data, file: b"",
        "flipped": flipped,
        "header flipped": lambda data, file: data[:40] + b"#" + data[41:],
        "last byte": lambda data, file: data[:-1] + bytes([data[-1] ^ 1]),
        "longer": lambda data, file: data + b"x",
        "torch.save": code,
        "pickle": lambda data, file: pickle.dumps(Code()),
        "no weights": without("weights/"),
        "no checksum": without("sha256"),
        "garbage": lambda data, file: os.urandom(1000),
    }


@pytest.mark.parametrize("how", damaged())
def test_a_damaged_state_is_one_clear_error(base: Path, stopped: Path, tmp_path: Path, how: str) -> None:
    file = tmp_path / "state.safetensors"
    file.write_bytes(stopped.read_bytes())
    file.write_bytes(damaged()[how](stopped.read_bytes(), file))
    with pytest.raises(IntegrityError, match=r"the saved training in .* is damaged") as refused:
        resumed(base, file)
    assert "without --resume" in str(refused.value.hint)
    assert "pv_was_had" not in sys.modules


def test_a_disk_that_refuses_does_not_stop_a_run_but_is_said(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "no such folder" / "state.safetensors"

    def full(label: str) -> None:
        raise OSError(28, "No space left on device")

    file.parent.mkdir()
    durable.fault = full
    try:
        done = train(base, rows(), FAST, threads=1, saving=Saving(file, RUN, every_s=0.0))
    finally:
        durable.fault = None
    assert len(done.loss) == STEPS
    assert len(done.notes) == 1 and "not saved" in done.notes[0]
    assert isinstance(StorageError("x"), PvError) and list(file.parent.iterdir()) == []
