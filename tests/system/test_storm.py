"""Load on the login: one verification for a crowd with one credential, and guessing that nobody else feels: neither who is known
nor who comes with a right password for the first time."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import subprocess
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .lab import PASSWORDS, SURVIVOR, Edge, Lab, basic, best, right, wait_until
from .storm import storm

pytestmark = pytest.mark.scenario("default")

PAGE = "/simple/survivor/"


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


ASK = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8080/{}').read().decode())"
SLOWEST = """
import time, urllib.request
def ask():
    start = time.monotonic()
    urllib.request.urlopen('http://127.0.0.1:8080/health').read()
    return time.monotonic() - start
print(max(ask() for _ in range(20)))
"""


def login_status(lab: Lab) -> dict[str, int]:
    status: dict[str, int] = json.loads(lab.compose(f'exec -T login python3 -c "{ASK.format("status")}"'))
    return status


def verifications(lab: Lab) -> int:
    return login_status(lab)["verifications"]


def cold(lab: Lab) -> None:
    """Nobody is known any more, neither to nginx nor to the login service."""
    lab.compose("restart --timeout 1 login nginx 2>&1")
    wait_until("the stack is healthy", lab.healthy, 60)


def test_a_crowd_with_one_new_credential_costs_one_verification(lab: Lab, edge: Edge) -> None:
    plan = {"host": edge.address, "port": edge.port, "hostname": edge.hostname, "path": PAGE}
    plan |= {"connections": 500, "requests": 1, "credential": right("bob")["Authorization"]}

    cold(lab)
    before = verifications(lab)
    assert [status for status, _ in asyncio.run(storm(plan, edge.context))] == [200] * 500
    assert verifications(lab) - before == 1


def measure(edge: Edge, count: int) -> tuple[list[float], set[int]]:
    """What a logged-in user waits for and gets, who asks again and again on one connection."""
    session, statuses = edge.session(), set()
    times: list[float] = []
    for number in range(count):
        start = time.monotonic()
        path = PAGE if number % 10 else f"/packages/{SURVIVOR}"
        statuses.add(edge.request(path, right("alice"), session=session).status)
        times.append(time.monotonic() - start)
        time.sleep(0.005)
    session.close()
    return times, statuses


def test_a_burst_of_wrong_logins_leaves_others_alone(lab: Lab, edge: Edge) -> None:
    """Hardly anyone who is known waits for as long as a single verification takes, of a thousand that are asked for."""
    plan: dict[str, Any] = {"host": edge.hostname, "port": edge.port, "path": PAGE}
    plan |= {"connections": 100, "requests": 10, "credential": ""}
    program = lab.bring(Path(__file__).with_name("storm.py"))
    container = lab.container(lab.groups["pypi_clients"][0])

    def attempt() -> float:
        measure(edge, 20)
        calm, _ = measure(edge, 500)
        start = time.monotonic()
        assert ask(edge, wrong()) == 401
        one = time.monotonic() - start
        burst = subprocess.Popen(
            ["docker", "exec", "-i", container, "python3", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert burst.stdin
        burst.stdin.write(json.dumps(plan))
        burst.stdin.close()
        burst.stdin = None
        stormy: list[float] = []
        statuses, health = set[int](), set[int]()
        while burst.poll() is None or len(stormy) < 500:
            times, seen = measure(edge, 100)
            stormy, statuses = stormy + times, statuses | seen
            health.add(edge.request("/health").status)
        refused = [status for status, _ in json.loads(burst.communicate(timeout=120)[0])]
        assert len(refused) == 1000 and set(refused) <= {401, 429}, set(refused)
        assert statuses == {200} and health == {200}
        return (p99(stormy) - p99(calm)) / one

    assert best(attempt, 1) < 1
    assert lab.healthy()
    assert all(container["State"]["Health"]["FailingStreak"] == 0 for container in lab.containers().values())


def ask(edge: Edge, credential: str) -> int:
    return edge.request(PAGE, {"Authorization": credential}).status


def wrong(name: str = "") -> str:
    return basic(name or f"nobody-{secrets.token_hex(8)}", secrets.token_hex(8))


@contextmanager
def guessing(edge: Edge) -> Generator[list[int]]:
    """Somebody tries one password after the other, on one connection and without a pause. What they were answered."""
    seen: list[int] = []
    stop = threading.Event()

    def guess() -> None:
        session = edge.session()
        while not stop.is_set():
            seen.append(edge.request(PAGE, {"Authorization": wrong()}, session=session).status)

    with ThreadPoolExecutor(1) as pool:
        guesser = pool.submit(guess)
        try:
            yield seen
        finally:
            stop.set()
            guesser.result(30)


def test_first_logins_get_in_beside_a_guesser_at_their_address(lab: Lab, edge: Edge) -> None:
    """All of them have one address here, as behind a router."""
    cold(lab)
    with guessing(edge) as seen, ThreadPoolExecutor(len(PASSWORDS)) as pool:
        wait_until("there were many guesses", lambda: len(seen) > 10, 60)
        answers = list(pool.map(lambda user: ask(edge, right(user)["Authorization"]), PASSWORDS))
    assert answers == [200] * len(PASSWORDS) and set(seen) == {401}


def test_a_burst_of_guesses_for_one_name_is_stopped_at_ten(lab: Lab, edge: Edge) -> None:
    name, before = f"nobody-{secrets.token_hex(8)}", verifications(lab)
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: ask(edge, wrong(name)), range(100)))
    assert verifications(lab) - before == answers.count(401) == 10
    assert answers.count(429) == 90


def test_the_login_s_health_is_answered_at_once(lab: Lab, edge: Edge) -> None:
    """While every place in its line is taken, and a crowd waits for one of the verdicts."""

    def attempt() -> float:
        one = wrong()
        with ThreadPoolExecutor(140) as pool:
            crowd = [pool.submit(ask, edge, wrong()) for _ in range(40)] + [
                pool.submit(ask, edge, one) for _ in range(100)
            ]
            wait_until("the line is full", lambda: login_status(lab)["waiting"] >= 40, 10)
            slowest = float(lab.compose(f'exec -T login python3 -c "{SLOWEST}"'))
        assert {asked.result() for asked in crowd} <= {401, 429}
        return slowest

    assert best(attempt, 2.5) < 2.5


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Of HTTP/2 (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def asked_and_reset(stream: int, credential: str) -> bytes:
    """Headers, all as literals that are not indexed (RFC 7541, 6.2.2), and RST_STREAM with CANCEL."""
    fields = {":method": "GET", ":scheme": "https", ":authority": "x", ":path": PAGE, "authorization": credential}
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return frame(1, 0x5, stream, block) + frame(3, 0, stream, (8).to_bytes(4, "big"))


def test_who_has_hung_up_is_not_waited_for(lab: Lab, edge: Edge) -> None:
    """A hundred logins begun and reset in one packet cost the next one nothing, and the login service hardly more."""
    context = ssl.create_default_context(cadata=lab.trusted)
    context.set_alpn_protocols(["h2"])
    resets = b"".join(asked_and_reset(stream, wrong()) for stream in range(1, 200, 2))

    def attempt() -> float:
        before = verifications(lab)
        with Edge(edge.address, edge.port, edge.hostname, context).connect() as connection:
            assert connection.selected_alpn_protocol() == "h2"
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + resets)
            connection.recv(1000)
            start = time.monotonic()
            assert ask(edge, wrong()) == 401
            waited = time.monotonic() - start
        wait_until("nobody waits for a verdict", lambda: login_status(lab)["waiting"] == 0, 30)
        assert verifications(lab) - before < 10
        return waited

    assert best(attempt, 5) < 5
