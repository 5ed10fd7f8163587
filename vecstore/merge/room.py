"""How many bytes of tensors may be kept to be looked at again: so many in all threads together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["SHARED", "Room"]


class Room:
    """Whoever keeps something takes room for all of it first, or keeps nothing; and gives it back."""

    def __init__(self, nbytes: int) -> None:
        self.left = nbytes
        self._lock = Lock()

    def take(self, nbytes: int) -> bool:
        """Whether there was so much left."""
        with self._lock:
            fits = nbytes <= self.left
            self.left -= nbytes if fits else 0
            return fits

    def give(self, nbytes: int) -> None:
        with self._lock:
            self.left += nbytes

    @contextmanager
    def without(self, nbytes: int) -> Iterator[None]:
        """While somebody else has so much of it."""
        assert self.take(nbytes)
        try:
            yield
        finally:
            self.give(nbytes)


SHARED = Room(256 << 20)
"""For what is cheap to read again."""
