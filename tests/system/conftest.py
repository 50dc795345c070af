from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from . import reliability
from .lab import Edge, Lab, wait_until
from .packages import make_wheel
from .reliability import REPORT
from .report import pytest_runtest_makereport
from .traffic import Traffic, traffic

__all__ = ["pytest_runtest_makereport"]

MakeWheel = Callable[[str, int], Path]
Faulty = Callable[..., AbstractContextManager[Traffic]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked with a scenario is for that one only, and the long faults are for the report on them."""
    name = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).name
    items[:] = [
        item
        for item in items
        if all(name in mark.args for mark in item.iter_markers("scenario"))
        and (REPORT or not item.get_closest_marker("reliability"))
    ]


@pytest.fixture(scope="session")
def lab() -> Lab:
    lab = Lab.load()
    # The last step before the tests was a reboot: nobody but the engine may bring the stack back.
    wait_until("every container is healthy after the reboot", lab.healthy, 120)
    return lab


@pytest.fixture(scope="session")
def edge(lab: Lab) -> Edge:
    return lab.edge


@pytest.fixture(scope="session")
def attacked_since(lab: Lab) -> str:
    """When the first of the tests that send what no client sends began, by the server's clock."""
    return str(lab.server.check_output("date +%s"))


@pytest.fixture(scope="session")
def version() -> str:
    """New in every run, so that a second run on the same hosts uploads again."""
    return f"1.{int(time.time())}"


@pytest.fixture(scope="session")
def make(version: str, tmp_path_factory: pytest.TempPathFactory) -> MakeWheel:
    """Makes a wheel of a project and a size in bytes."""
    return lambda name, size: make_wheel(name, version, size, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def rows() -> Generator[list[reliability.Row]]:
    """Of docs/reliability.md."""
    rows: list[reliability.Row] = []
    yield rows
    if REPORT:
        reliability.write(Path(REPORT), rows)


@pytest.fixture
def faulty(lab: Lab, edge: Edge, rows: list[reliability.Row], tmp_path: Path) -> Faulty:
    """Traffic around a fault, whose row is written when nothing was lost by it."""

    @contextmanager
    def around(fault: str, says: str) -> Generator[Traffic]:
        with traffic(edge, tmp_path) as seen:
            yield seen
        lost = seen.lost()
        reads, uploads = seen.reads, seen.uploads
        rows.append(
            reliability.Row(
                fault,
                (len(reads.bad), len(reads.bad + reads.good)),
                reads.longest(),
                (len(uploads.bad), len(uploads.bad) + len(uploads.good)),
                uploads.longest(),
                len(lost),
                says,
            )
        )
        assert lost == []

    return around


@pytest.fixture(autouse=True)
def _lab_for_the_report(lab: Lab) -> None:
    """Every test has the lab at hand, so that the hook above finds it."""
