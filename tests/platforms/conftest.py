from __future__ import annotations

import pytest
from system.lab import ROOT, Lab
from system.report import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

ADMINISTRATORS = {"ubuntu": "ubuntu", "rocky": "rocky", "adopted": "admin"}


@pytest.fixture(scope="session", params=ADMINISTRATORS)
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def lab(host: str) -> Lab:
    """One of the hosts; no stack runs there."""
    return Lab(ROOT / "molecule/platforms", {host: {"lab_name": "pypi-platforms"}}, {"pypi_servers": [host]})
