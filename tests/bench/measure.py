"""What is measured, on one stack at a time. Rates are requests a second, times are seconds."""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .packages import BIG_FILE, SMALL_FILE, SMALL_PROJECT
from .stacks import PASSWORD, USER, Stack, curl, on

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "2"))
CONNECTIONS = 32
UPLOADS = 200
WORKERS = 4
CLIENTS = 510
PATIENCE = 30
"""Seconds after which a client of the burst gives up."""
AUTHORIZATION = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
HTML = "Accept: text/html"
"""Some have JSON for whoever does not ask for anything."""
PAGES = ("small page", "500 versions", "500 versions, gzip", "JSON page", "root", "1 kB file")

Results = dict[str, dict[Stack, float]]
"""By row and stack. What could not be measured is missing."""
Seen = dict[tuple[str, Stack], list[float]]
"""The same of every round."""


def rate(stack: Stack, url: str, *headers: str) -> float:
    """Of kept connections; raises RuntimeError when anything but 2xx was answered."""
    login = [f"Authorization: {AUTHORIZATION}"] if stack.login else []
    options = " ".join(f"-H '{header}'" for header in [*login, *headers])
    said = on(
        "load", f"wrk --threads 1 --connections {CONNECTIONS} --duration {SECONDS}s --timeout 30s {options} '{url}'"
    )
    if "Non-2xx" in said:
        raise RuntimeError(f"{stack.name}: {url} was not answered with 2xx\n{said}")
    found = re.search(r"Requests/sec: +([\d.]+)", said)
    assert found, said
    return float(found[1])


def settle(stack: Stack) -> None:
    """Wait, a minute at most, until it has done with what was asked of it: some go on after the asking client has left."""
    deadline = time.monotonic() + 60
    before = stack.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = stack.cpu_seconds()
        if now - before < 0.03:
            return
        before = now


def addresses(stack: Stack) -> dict[str, tuple[str, ...]]:
    """Row → address and headers."""
    page = stack.page(SMALL_PROJECT)
    found: dict[str, tuple[str, ...]] = {
        "small page": (page, HTML),
        "500 versions": (stack.page("many"), HTML),
        "500 versions, gzip": (stack.page("many"), HTML, "Accept-Encoding: gzip"),
        "root": (stack.page(""), HTML),
        "1 kB file": (stack.find(SMALL_PROJECT, SMALL_FILE),),
    }
    if stack.json:
        found["JSON page"] = (page, f"Accept: {stack.json}") if "/" in stack.json else (page + stack.json,)
    return found


def rates(stacks: list[Stack], say: Callable[[str], None]) -> tuple[Results, Results]:
    """Requests a second, and microseconds of CPU for each, of everything that is a page or a small file."""
    seen: Seen = {}
    cost: Seen = {}
    where = {stack: addresses(stack) for stack in stacks}
    for number in range(ROUNDS):
        for row in PAGES:
            say(f"{row}, round {number + 1} of {ROUNDS}")
            for stack in stacks:
                if row not in where[stack]:
                    continue
                before = stack.cpu_seconds()
                speed = rate(stack, *where[stack][row])
                seen.setdefault((row, stack), []).append(speed)
                if speed * SECONDS >= 100:  # below, a tick of the clock is too much of it
                    used = (stack.cpu_seconds() - before) / (speed * SECONDS) * 1e6
                    cost.setdefault((row, stack), []).append(used)
                settle(stack)
    return medians(seen), medians(cost)


def medians(seen: Seen) -> Results:
    results: Results = {}
    for (row, stack), values in seen.items():
        results.setdefault(row, {})[stack] = statistics.median(values)
    return results


def big_file(stack: Stack) -> float:
    """Megabytes a second of the 100 MB file, of three downloads: one is over in a fraction of a second."""
    url = stack.find("big", BIG_FILE)
    ask = "--output /dev/null --write-out '%{speed_download}'"
    return statistics.median(float(curl(stack, url, ask)) for _ in range(3)) / 1e6


CLEAN = "rm -rf /tmp/bench && mkdir -p /tmp/bench && cd /tmp/bench"


def with_tool(stack: Stack, command: str) -> float:
    """Seconds of a client with nothing in its cache, trusting the lab's CA."""
    on("load", CLEAN)
    environment = "SSL_CERT_FILE=/root/ca.pem PIP_CERT=/root/ca.pem PIP_CONFIG_FILE=/dev/null UV_NO_CONFIG=1"
    environment += f" PIP_TRUSTED_HOST={urlsplit(stack.url).hostname} UV_INSECURE_HOST={urlsplit(stack.url).hostname}"
    start = time.monotonic()
    on("load", f"cd /tmp/bench && {environment} {command} 2>&1")
    return time.monotonic() - start


def uv_install(stack: Stack) -> float:
    return with_tool(stack, f"uv pip install --no-cache --target there --index-url {stack.index_url} wants-light")


def pip_download(stack: Stack) -> float:
    pip = "/root/pip/bin/pip download --no-cache-dir --disable-pip-version-check --dest there"
    return with_tool(stack, f"{pip} --index-url {stack.index_url} wants-light")


def uv_resolve(stack: Stack) -> float:
    compile_ = f"echo wants-heavy | uv pip compile --no-cache --index-url {stack.index_url} -"
    return with_tool(stack, f"bash -c {json.dumps(compile_)}")


def pip_resolve(stack: Stack) -> float:
    """The metadata of 50 packages of 20 MB; a client that gets it from nowhere else downloads them all."""
    pip = "/root/pip/bin/pip install --dry-run --ignore-installed --no-cache-dir --disable-pip-version-check"
    return with_tool(stack, f"{pip} --index-url {stack.index_url} wants-heavy")


CLIENTS_AT_WORK: dict[str, Callable[[Stack], float]] = {
    "uv pip install, 50 packages": uv_install,
    "pip download, 50 packages": pip_download,
    "uv, resolve 50 × 20 MB": uv_resolve,
    "pip, resolve 50 × 20 MB": pip_resolve,
}


SLOW = 15
"""Seconds after which one run is enough."""


def in_turn(stacks: list[Stack], row: str, once: Callable[[Stack], float], say: Callable[[str], None]) -> Results:
    """Medians of interleaved rounds. What took SLOW seconds is not repeated."""
    seen: Seen = {}
    slow: set[Stack] = set()
    for number in range(ROUNDS):
        say(f"{row}, round {number + 1} of {ROUNDS}")
        for stack in (stack for stack in stacks if stack not in slow):
            start = time.monotonic()
            seen.setdefault((row, stack), []).append(once(stack))
            settle(stack)
            if time.monotonic() - start > SLOW:
                slow.add(stack)
    return medians(seen)


def ask(plan: dict[str, Any]) -> dict[str, Any]:
    program = Path(__file__).with_name("client.py").read_bytes()
    on("load", "cat >/root/client.py", program)
    answer: dict[str, Any] = json.loads(on("load", "python3 /root/client.py", json.dumps(plan).encode()))
    return answer


def uploads(stack: Stack, prefix: str, count: int) -> float:
    """Seconds of so many uploads by WORKERS at a time; raises RuntimeError if one was refused."""
    plan = {"work": "upload", "url": stack.upload_url, "authorization": AUTHORIZATION, "prefix": prefix}
    answer = ask({**plan, "count": count, "workers": WORKERS})
    if [status for status in answer["statuses"] if status != 200] or len(answer["statuses"]) != count:
        raise RuntimeError(f"{stack.name}: uploads were answered with {sorted(set(answer['statuses']))}")
    return float(answer["seconds"])


def burst(stack: Stack, say: Callable[[str], None]) -> dict[str, float]:
    """CLIENTS at once, each page + page + wheel on a connection of its own: p50, p95 and errors."""
    file = stack.find(SMALL_PROJECT, SMALL_FILE)
    paths = [urlsplit(url).path for url in (stack.page(SMALL_PROJECT), stack.page("many"), file)]
    plan = {"work": "burst", "url": stack.url, "authorization": AUTHORIZATION, "paths": paths}
    answer = ask({**plan, "clients": CLIENTS, "seconds": PATIENCE})
    times = sorted(answer["times"])
    found = {"errors": float(len(answer["errors"]))}
    for error, count in Counter(answer["errors"]).most_common(3):
        say(f"{count} × {error}")
    if len(times) > 0.95 * CLIENTS:
        found |= {"p50": times[len(times) // 2], "p95": times[int(CLIENTS * 0.95) - 1]}
    return found
