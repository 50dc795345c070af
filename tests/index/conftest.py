from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from static_index.records import File
from static_index.store import Claims, Store

Add = Callable[[tuple[str, bytes]], File]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "packages", tmp_path / "index")


def adding(store: Store) -> Add:
    """Upload an artifact that claims nothing."""
    return lambda artifact: store.add(artifact[0], io.BytesIO(artifact[1]), Claims())


@pytest.fixture
def add(store: Store) -> Add:
    return adding(store)
