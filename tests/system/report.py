"""What a failed test of a host shows: the hook of every conftest.py that has a `lab`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from .lab import Lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever fails says what the services had to say about it."""
    report = yield
    lab: Any = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections.append(("the server", lab.logs()))
    return report
