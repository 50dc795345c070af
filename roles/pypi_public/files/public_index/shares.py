"""So many at once, and nobody all of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Busy

RETRY = 5


class Shares:
    """Places of which a reader never has more than are left for others: half of all, a third if there are two such readers."""

    def __init__(self, places: int, patience: float) -> None:
        """`patience`: seconds that somebody waits for one."""
        self._places, self._patience = places, patience
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self, reader: str) -> None:
        """A Busy if there is none for this reader."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._held[reader] < self._places - self._held.total(), self._patience
            ):
                raise Busy(
                    f"{self._held[reader]} requests of yours are under way; the others' places are kept free", RETRY
                )
            self._held[reader] += 1

    def give(self, reader: str) -> None:
        with self._changed:
            self._held[reader] -= 1
            self._held += Counter()  # forgets who has none
            self._changed.notify_all()

    @contextmanager
    def __call__(self, reader: str) -> Iterator[None]:
        self.take(reader)
        try:
            yield
        finally:
            self.give(reader)
