from __future__ import annotations

import ssl

import pytest
import testinfra  # type: ignore[import-untyped]
from system.lab import ROOT, Edge, Lab, wait_until
from system.report import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

NAME = "pypi.acme.test"


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The scenario without clients, which `Lab.load` would look for."""
    lab = Lab(ROOT / "molecule/acme", {NAME: {"lab_name": "pypi-acme"}}, {"pypi_servers": [NAME]})
    wait_until("every container is healthy", lab.healthy, 60)
    return lab


@pytest.fixture(scope="session")
def edge(lab: Lab) -> Edge:
    """Trusts what pebble issued, and nothing else. pebble makes new authorities whenever it starts."""
    pebble = testinfra.get_host(f"docker://{lab.container('pebble')}")
    root = pebble.check_output(
        "curl -fsS --cacert /etc/pebble/certificate.pem --connect-to ::127.0.0.1: https://pebble:15000/roots/0"
    )
    address = lab.server.check_output(f"getent ahostsv4 {NAME}").split()[0]
    return Edge(address, 443, NAME, ssl.create_default_context(cadata=root))
