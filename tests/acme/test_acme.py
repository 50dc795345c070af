"""A certificate of a real ACME server: issued for the names, renewed by the host alone, taken up without a restart."""

from __future__ import annotations

import http.client
from collections.abc import Generator
from typing import Any

import pytest
from system.lab import Edge, Lab, basic, right, wait_until

LINEAGE = "/var/lib/pypi-tls/pebble-14000-dir/renewal/pypi.conf"
SOON = "/run/systemd/system/pypi-tls-renew.timer.d/soon.conf"
WEBROOT = "/opt/pypi/acme/.well-known/acme-challenge"


def certificate(edge: Edge) -> dict[str, Any]:
    """What nginx serves; the handshake fails unless pebble issued it for the host name."""
    with edge.connect() as connection:
        served: dict[str, Any] | None = connection.getpeercert()
    assert served
    return served


def starts(lab: Lab) -> dict[str, tuple[str, str]]:
    return {name: (c["Id"], c["State"]["StartedAt"]) for name, c in lab.containers().items()}


def state(lab: Lab) -> str:
    """Of the renewal: activating while it runs, then inactive or failed."""
    return str(lab.server.run("systemctl is-active pypi-tls-renew.service").stdout).strip()


def plain(edge: Edge, path: str) -> tuple[int, str | None, bytes]:
    """Status, Location and body over HTTP without TLS."""
    connection = http.client.HTTPConnection(edge.address, 80, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": edge.hostname})
        response = connection.getresponse()
        return response.status, response.getheader("Location"), response.read()
    finally:
        connection.close()


@pytest.fixture
def due(lab: Lab) -> Generator[None]:
    """certbot finds that it is time: it is asked to keep more days in hand than the certificate has."""
    lab.server.check_output(f"sed -i '1i renew_before_expiry = 200 days' {LINEAGE}")
    yield
    # A renewal writes the file anew and keeps the line.
    lab.server.check_output(f"sed -i '/^renew_before_expiry/d' {LINEAGE}")


@pytest.fixture
def soon(lab: Lab) -> Generator[None]:
    """The timer's next turn comes in a second instead of up to eighteen hours."""
    lines = r"[Timer]\nOnActiveSec=1s\nAccuracySec=100ms\nRandomizedDelaySec=0\n"
    reload = "systemctl daemon-reload && systemctl restart pypi-tls-renew.timer"
    lab.server.check_output(f"mkdir -p $(dirname {SOON}) && printf '{lines}' >{SOON} && {reload}")
    yield
    lab.server.check_output(f"rm {SOON} && {reload}")


def test_the_certificate_is_the_acme_servers(edge: Edge) -> None:
    served = certificate(edge)
    assert set(served["subjectAltName"]) == {("DNS", "pypi.acme.test"), ("DNS", "index.acme.test")}


def test_the_index_answers_behind_it(edge: Edge) -> None:
    assert edge.request("/simple/", {"Authorization": basic("alice", "wrong")}).status == 401
    assert edge.request("/simple/", right("alice")).status == 200


def test_the_timer_waits_for_its_turn(lab: Lab) -> None:
    timer = lab.server.service("pypi-tls-renew.timer")
    assert timer.is_enabled
    assert timer.is_running


def test_a_good_certificate_is_kept(lab: Lab, edge: Edge) -> None:
    before = certificate(edge)
    lab.server.check_output("systemctl start pypi-tls-renew.service")
    assert certificate(edge) == before


@pytest.mark.usefixtures("due")
def test_the_timer_renews_it_and_nginx_takes_it_up(lab: Lab, edge: Edge, request: pytest.FixtureRequest) -> None:
    before, running = certificate(edge), starts(lab)
    request.getfixturevalue("soon")
    wait_until(
        "nginx serves another certificate", lambda: certificate(edge)["serialNumber"] != before["serialNumber"], 60
    )
    wait_until("the renewal ends well", lambda: state(lab) == "inactive", 30)

    after = certificate(edge)
    assert set(after["subjectAltName"]) == set(before["subjectAltName"])
    assert starts(lab) == running


def test_only_the_challenge_is_served_without_tls(lab: Lab, edge: Edge) -> None:
    lab.server.check_output(f"mkdir -p {WEBROOT} && echo proof >{WEBROOT}/token")
    try:
        assert plain(edge, "/.well-known/acme-challenge/token") == (200, None, b"proof\n")
    finally:
        lab.server.check_output(f"rm {WEBROOT}/token")
    assert plain(edge, "/.well-known/acme-challenge/none")[0] == 404
    for path in ("/", "/simple/", "/health/", "/.well-known/", "/.well-known/acme-challenge/../../simple/"):
        status, location, _ = plain(edge, path)
        assert (status, location) == (308, f"https://pypi.acme.test{path}"), path
