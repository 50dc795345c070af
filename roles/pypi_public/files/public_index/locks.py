"""A lock for each project."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Locks:
    """A lock for each name that somebody holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Any, int]] = {}

    def busy(self, name: str) -> bool:
        return name in self._held

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with self._lock:
            lock, holders = self._held.get(name, (threading.RLock(), 0))
            self._held[name] = lock, holders + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, holders = self._held[name]
                if holders > 1:
                    self._held[name] = lock, holders - 1
                else:
                    del self._held[name]
