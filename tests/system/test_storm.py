"""Load on the login: one verification for a crowd with one credential, and guessing that nobody else feels."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from .lab import SURVIVOR, Edge, Lab, best, right, wait_until
from .storm import storm

PAGE = "/simple/survivor/"


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


def verifications(lab: Lab) -> int:
    ask = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8080/status').read().decode())"
    return int(json.loads(lab.compose(f'exec -T login python3 -c "{ask}"'))["verifications"])


def cold(lab: Lab) -> None:
    """Nobody is known any more, neither to nginx nor to the login service."""
    lab.compose("restart --timeout 1 login nginx 2>&1")
    wait_until("the stack is healthy", lab.healthy, 60)


def test_a_crowd_with_one_new_credential_costs_one_verification(lab: Lab, edge: Edge) -> None:
    plan = {"host": edge.address, "port": edge.port, "hostname": edge.hostname, "path": PAGE}
    plan |= {"connections": 500, "requests": 1, "credential": right("bob")["Authorization"]}

    def attempt() -> float:
        cold(lab)
        before = verifications(lab)
        new = asyncio.run(storm(plan, edge.context))
        assert [status for status, _ in new] == [200] * 500
        assert verifications(lab) - before == 1
        return p99([seconds for _, seconds in new])

    assert best(attempt, 2) < 2


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
    plan: dict[str, Any] = {"host": edge.hostname, "port": edge.port, "path": PAGE}
    plan |= {"connections": 100, "requests": 10, "credential": ""}
    program = lab.bring(Path(__file__).with_name("storm.py"))
    container = lab.container(lab.groups["pypi_clients"][0])

    def attempt() -> float:
        measure(edge, 20)
        calm, _ = measure(edge, 500)
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
        return p99(stormy) - p99(calm)

    assert best(attempt, 0.05) < 0.05
    assert lab.healthy()
    assert all(container["State"]["Health"]["FailingStreak"] == 0 for container in lab.containers().values())
