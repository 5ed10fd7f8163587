"""What is read that anybody may have put there: files only, and no more of them than they may be long."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pv.registry.base_places import BasePlaces
from pv.registry.build_records import RecordStore
from pv.registry.disk.bounded import read_bounded
from pv.registry.errors import FormatError


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 300 << 30)


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "sparse": _sparse,
    "folder": Path.mkdir,
}


def test_a_file_as_long_as_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(FormatError, match="longer than 4 bytes"):
        read_bounded(path, 4)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_such_file(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "file")
    with pytest.raises(FormatError, match=r"is not a regular file|is longer than"):
        read_bounded(tmp_path / "file")


@pytest.mark.parametrize("kind", KINDS)
def test_places_of_bases(tmp_path: Path, kind: str) -> None:
    places = BasePlaces(tmp_path)
    KINDS[kind](places.path)
    with pytest.raises(FormatError) as caught:
        places.read()
    assert "delete it" in (caught.value.hint or "")
    assert places.read_if_sound() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_records(tmp_path: Path, kind: str) -> None:
    records = RecordStore(tmp_path)
    records.folder.mkdir()
    KINDS[kind](records.path("a" * 64))
    with pytest.raises(FormatError) as caught:
        records.read("a" * 64)
    assert "delete it" in (caught.value.hint or "")
    assert list(records.holding("weights", "b" * 64)) == []
