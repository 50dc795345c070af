"""A small host, and a long day on it: rows of docs/reliability.md, by `make reliability`."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import Faulty
from .lab import Edge, Lab, right
from .packages import make_wheel
from .storm import storm

pytestmark = [pytest.mark.scenario("default"), pytest.mark.reliability]

READS, UPLOADS, STRANGERS = 3600, 40, 4
"""Of an hour: with a password, by a publisher, and with a wrong one."""


def crowd(edge: Edge, path: str, connections: int, requests: int, credential: str) -> set[int]:
    """The statuses that so many clients get, each of which asks so often on one connection."""
    plan: dict[str, Any] = {"host": edge.address, "port": edge.port, "hostname": edge.hostname, "path": path}
    plan |= {"connections": connections, "requests": requests, "credential": credential}
    return {status for status, _ in asyncio.run(storm(plan, edge.context))}


@contextmanager
def memory(lab: Lab, limit: int) -> Generator[None]:
    """All of the server has so many bytes and no swap: engine, systemd, journal, and the containers."""
    container = lab.container(lab.server_name)

    def give(size: int) -> None:
        command = ["docker", "update", f"--memory={size}", f"--memory-swap={size}", container]
        subprocess.run(command, check=True, capture_output=True)

    give(limit)
    try:
        limits = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
        assert lab.server.run(f"cat {limits} 2>/dev/null").stdout.split() == [str(limit)]
        yield
    finally:
        give(64 << 30)


def killed(lab: Lab) -> int:
    """Processes that the kernel has ended for want of memory on the server (cgroup v1, v2)."""
    files = "/sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events"
    return int(lab.server.check_output(f"cat {files} 2>/dev/null | awk '$1 == \"oom_kill\" {{print $2}}'"))


def resident(lab: Lab) -> dict[str, int]:
    """MiB of each container's processes."""

    def of(container: dict[str, Any]) -> int:
        pids = lab.server.check_output(f"docker top {container['Id']} -o pid | tail -n +2").split()
        return sum(map(int, lab.server.check_output(f"ps -o rss= -p {','.join(pids)}").split())) // 1024

    return {name: of(container) for name, container in lab.containers().items()}


def test_a_host_of_1_gib_without_swap(lab: Lab, edge: Edge, faulty: Faulty, tmp_path: Path) -> None:
    """It boots, and then takes a crowd, guessing, and a large upload at once."""
    large = make_wheel("acme-large", f"1.{time.time_ns()}", 100_000_000, tmp_path)
    with memory(lab, 1 << 30):
        lab.cut_the_power()
        before = killed(lab)
        with faulty("a host of 1 GiB without swap: 100 clients, guessing, and an upload of 100 MB", "nothing") as seen:
            with ThreadPoolExecutor(3) as pool:
                known = pool.submit(crowd, edge, "/simple/survivor/", 100, 20, right("bob")["Authorization"])
                guessing = pool.submit(crowd, edge, "/simple/survivor/", 10, 5, "")
                upload = pool.submit(edge.upload, large, "alice")
            assert known.result() == {200} and guessing.result() <= {401, 429} and upload.result().status == 200
        assert killed(lab) == before
    assert seen.reads.bad == [] and seen.uploads.bad == []


def test_a_days_traffic(lab: Lab, edge: Edge, faulty: Faulty, tmp_path: Path) -> None:
    """The first hour fills what is kept in memory; the other 23 add nothing to it."""

    def hour(number: int) -> None:
        path = ("/simple/survivor/", "/packages/survivor-1.0-py3-none-any.whl", "/simple/")[number % 3]
        assert crowd(edge, path, 20, READS // 20, right(("alice", "bob")[number % 2])["Authorization"]) == {200}
        assert crowd(edge, path, 2, STRANGERS // 2, "") <= {401, 429}
        for upload in range(UPLOADS):
            wheel = make_wheel("acme-day", f"1.{generation}.{number}.{upload}", 2_000, tmp_path)
            assert edge.upload(wheel, "alice").status == 200
            wheel.unlink()

    generation = time.time_ns()
    with faulty(f"a day's traffic at once: {24 * READS:,} reads, {24 * UPLOADS} uploads", "nothing") as seen:
        hour(0)
        first = resident(lab)
        for number in range(1, 24):
            hour(number)
        last = resident(lab)
    grown = {name: (first[name], last[name]) for name in first if last[name] > first[name] * 1.2 + 8}
    assert grown == {}, (first, last)
    assert seen.reads.bad == [] and seen.uploads.bad == []
