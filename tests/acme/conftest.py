from __future__ import annotations

import ssl
from collections.abc import Generator
from typing import Any

import pytest
import testinfra  # type: ignore[import-untyped]
from system.lab import ROOT, Edge, Lab, wait_until

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever fails says what the services and the renewal had to say about it."""
    report = yield
    lab: Any = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections.append(("the server", lab.logs()))
        journal = lab.server.run("journalctl --unit pypi-tls-renew.service --lines 60 --output cat").stdout
        report.sections.append(("the renewal", journal))
    return report
