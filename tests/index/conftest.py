from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from static_index.inspector import Inspector
from static_index.records import File
from static_index.store import Claims, Store

Add = Callable[[tuple[str, bytes]], File]

INSPECTOR = Inspector()
"""One helper for all stores of a test run."""


def upload(store: Store, artifact: tuple[str, bytes], claims: Claims | None = None) -> File:
    with store.incoming() as incoming:
        incoming.write(artifact[1])
        return store.add(artifact[0], incoming, claims or Claims())[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "packages", tmp_path / "index", INSPECTOR)


def adding(store: Store) -> Add:
    """Upload an artifact that claims nothing."""
    return lambda artifact: upload(store, artifact)


@pytest.fixture
def add(store: Store) -> Add:
    return adding(store)
