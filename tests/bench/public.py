"""Public packages: through ours, through the others, and from PyPI directly. `python -m bench --only public` measures nothing else."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from index.artifacts import wheel
from public.upstream import Upstream, running, say

from . import measure, servers, stacks
from .report import CACHED, DIRECT, INSTALLERS, LARGEST_COLD, LEFT, OURS, REFUSED, Public
from .servers import Upstreams
from .stacks import Stack, curl, on

Say = Callable[[str], None]

BIG = int(os.environ.get("BENCH_BIG", "100"))
"""Megabytes of the file that CLIENTS fetch at once."""
CLIENTS = 100
PATIENCE = 300
HOPELESS = 60
"""Seconds for a page that is not waited for any longer: it is a dash in the table."""
LARGEST = "pydantic-core"
VERSIONS = 500
OURS_PAGE, PUBLIC_PAGE, BIG_PROJECT = "acme-page", "free-page", "free-large"
"""The first two are alike, to the length of their names: one is published, one is upstream."""
OLD = "2 weeks"
"""Nobody's gate on the age of releases decides then which versions are installed."""
WANTED = [
    "aiohttp",
    "alembic",
    "black",
    "boto3",
    "click",
    "cryptography",
    "django",
    "fastapi",
    "flask",
    "gunicorn",
    "httpx",
    "jinja2",
    "jsonschema",
    "lxml",
    "mypy",
    "numpy",
    "pandas",
    "paramiko",
    "pillow",
    "psutil",
    "pydantic",
    "pygments",
    "pytest",
    "pyyaml",
    "redis",
    "requests",
    "rich",
    "sqlalchemy",
    "tqdm",
    "uvicorn",
][: int(os.environ.get("BENCH_WANTED", "30"))]
"""What is asked for; with what these require it is the 50 packages and some."""


@dataclass(frozen=True)
class Way:
    """One way to public packages."""

    stack: Stack
    counting: Stack
    """Its way to the upstream that counts."""
    wipe: Callable[[], None]
    """Take everything out of its cache."""


@contextmanager
def upstream() -> Iterator[Upstream]:
    """A server of this machine, that the hosts reach and that counts what it sends."""
    gateway = on("load", "ip route show default").split()[2]
    with running(Upstream(), gateway) as found:

        def projects(request: BaseHTTPRequestHandler) -> None:
            listed = [{"name": name} for name in found.projects]
            say(request, json.dumps({"meta": {"api-version": "1.0"}, "projects": listed}).encode())

        found.wrong["/simple/"] = projects  # proxpi asks for it first
        yield found


def publish(found: Upstream, directory: Path) -> list[str]:
    """Fill the upstream, and make files of the same sizes to be published; returns their names."""
    directory.mkdir(parents=True, exist_ok=True)
    names = []
    for version in range(VERSIONS):
        found.add(PUBLIC_PAGE, f"{version}.0")
        name, content = wheel(OURS_PAGE, f"{version}.0")
        (directory / name).write_bytes(content)
        names.append(name)
    found.add(BIG_PROJECT, content=os.urandom(BIG * 1_000_000))
    return names


def default_index() -> str:
    """PyPI, as pip knows it."""
    return (
        on(
            "load", "/root/pip/bin/python -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)'"
        ).strip()
        + "/"
    )


def upstreams(counting: str) -> Upstreams:
    index = default_index()
    page = on("load", f"curl --silent --fail --cacert /root/ca.pem -H 'Accept: {stacks.JSON}' {index}six/")
    files = {urlsplit(urljoin(f"{index}six/", file["url"])).hostname or "" for file in json.loads(page)["files"]}
    return Upstreams(
        index, counting, tuple(sorted({*files, urlsplit(index).hostname or "", urlsplit(counting).hostname or ""}))
    )


def ways(places: Upstreams) -> list[Way]:
    """All that are compared, each with an empty cache."""

    def server(name: str, port: int, paths: tuple[str, str], index: str = "simple/") -> Way:
        def wipe() -> None:
            servers.begin(name, port, places)
            if name == "devpi":
                stacks.make_devpi_mirror(port, places.counting)

        wipe()
        return Way(servers.stack(name, port, paths[0], index), servers.stack(name, port, paths[1], index), wipe)

    ours = Stack(OURS, "few", "plain-few", "http://plain-few/", ("nginx", "login", "pypiserver"))
    direct, counting = (
        Stack(DIRECT, "few", "", url.removesuffix("simple/"), (), login=False) for url in (places.pypi, places.counting)
    )
    servers.begin("pypiron-counting", 4002, places)
    found = [
        Way(direct, counting, lambda: None),
        Way(ours, ours, lambda: wipe_ours(ours)),
        Way(
            server("pypiron", 4001, ("", "")).stack,
            servers.stack("pypiron-counting", 4002, ""),
            lambda: servers.begin("pypiron", 4001, places),
        ),
        server("peryx", 4003, ("pypi/", "counting/")),
        server("devpi", 4004, ("root/pypi/", "root/counting/"), "+simple/"),
        server("proxpi", 4005, ("", ""), "index/"),
    ]
    wipe_ours(ours)
    return found


def wipe_ours(stack: Stack) -> None:
    """By hand, since an operator takes out projects, not everything."""
    cache = on(stack.host, "docker volume inspect --format '{{.Mountpoint}}' pypi_public").strip()
    compose = "docker compose --progress quiet --project-directory /opt/pypi-public"
    on(
        stack.host,
        f"{compose} stop && rm -rf {cache}/{{files,listings,simple,tmp}}/* && {compose} up --detach --wait 2>&1",
    )


def lock(index: str) -> int:
    """Write the constraints by which everybody installs the same; returns how many packages that are."""
    wanted = "\\n".join(WANTED)
    compile_ = f"uv pip compile --quiet --no-header --no-annotate --exclude-newer '{OLD}' --only-binary :all: --index-url {index} -"
    on("load", f"printf '{wanted}' | SSL_CERT_FILE=/root/ca.pem UV_NO_CONFIG=1 {compile_} >/root/constraints")
    return len(on("load", "cat /root/constraints").splitlines())


def uv_install(stack: Stack) -> float:
    what = f"--constraint /root/constraints --only-binary :all: {' '.join(WANTED)}"
    return measure.with_tool(stack, f"uv pip install --no-cache --target there --index-url {stack.index_url} {what}")


def pip_install(stack: Stack) -> float:
    what = f"--constraint /root/constraints --only-binary :all: {' '.join(WANTED)}"
    pip = "/root/pip/bin/pip install --no-cache-dir --disable-pip-version-check --no-compile --target there"
    return measure.with_tool(stack, f"{pip} --index-url {stack.index_url} {what}")


def page_seconds(stack: Stack) -> float:
    options = f"--cacert /root/ca.pem -H 'Accept: {stacks.JSON}' --compressed --max-time {HOPELESS} --output /dev/null"
    options += " --write-out '%{time_total}'"
    return float(curl(stack, stack.page(LARGEST), options))


TOOLS = dict(zip(INSTALLERS, (uv_install, pip_install), strict=True))


def installs(all_ways: list[Way], packages: int, say: Say) -> dict[str, dict[str, float]]:
    """Seconds, each round with empty caches and then with full ones. What fails is missing, and said."""
    seen: dict[str, dict[str, list[float]]] = {}

    def once(row: str, way: Way, work: Callable[[Stack], float]) -> None:
        try:
            seen.setdefault(row, {}).setdefault(way.stack.name, []).append(work(way.stack))
        except RuntimeError as error:
            say(f"{way.stack.name}, {row}: {str(error)[-600:]}")

    uv_install(all_ways[0].stack)  # so that nobody pays for what this machine's way to PyPI keeps
    page_seconds(all_ways[0].stack)
    for number in range(measure.ROUNDS):
        for tool, work in TOOLS.items():
            for way in all_ways:
                say(f"{tool}, {way.stack.name}, round {number + 1} of {measure.ROUNDS}")
                way.wipe()
                once(LARGEST_COLD, way, page_seconds)
                once(f"{tool}, {packages} packages, cold", way, work)
                once(f"{tool}, {packages} packages, warm", way, work)
    return {
        row: {name: statistics.median(values) for name, values in by_name.items() if values}
        for row, by_name in seen.items()
    }


def rates(all_ways: list[Way], say: Say) -> dict[str, dict[str, float]]:
    """Requests a second of what is cached; of ours also of what is like it and private."""
    seen: dict[str, dict[str, list[float]]] = {}
    for number in range(measure.ROUNDS):
        for way in all_ways[1:]:
            say(f"cached page and file, {way.stack.name}, round {number + 1} of {measure.ROUNDS}")
            for kind, project in (("public", PUBLIC_PAGE), ("private", OURS_PAGE)):
                if kind == "private" and way.stack.name != OURS:
                    continue
                filename = f"{project.replace('-', '_')}-1.0-py3-none-any.whl"
                try:
                    file = way.counting.find(project, filename)
                    curl(way.counting, file, "--output /dev/null")
                    page = measure.rate(way.counting, way.counting.page(project), "Accept: text/html")
                    seen.setdefault(f"{CACHED[0]}, {kind}", {}).setdefault(way.stack.name, []).append(page)
                    small = measure.rate(way.counting, file)
                    seen.setdefault(f"{CACHED[1]}, {kind}", {}).setdefault(way.stack.name, []).append(small)
                except RuntimeError as error:
                    say(str(error)[-600:])
    return {row: {name: statistics.median(values) for name, values in found.items()} for row, found in seen.items()}


def crowd(all_ways: list[Way], found: Upstream, say: Say) -> dict[str, dict[str, float]]:
    """CLIENTS at once for one file that nobody has yet."""
    results: dict[str, dict[str, float]] = {}
    [artifact] = found.projects[BIG_PROJECT]
    for way in all_ways:
        say(f"{CLIENTS} clients, {BIG} MB, {way.stack.name}")
        stack, before = way.counting, found.sent[artifact.filename]
        try:
            path = urlsplit(stack.find(BIG_PROJECT, artifact.filename)).path
            plan = {"work": "burst", "url": stack.url, "authorization": measure.AUTHORIZATION, "paths": [path]}
            answer = measure.ask({**plan, "clients": CLIENTS, "seconds": PATIENCE})
        except RuntimeError as error:
            say(str(error)[-600:])
            continue
        for what, count in Counter(answer["errors"]).items():
            say(f"{count} × {what}")
        row = {
            "seconds until the last of them has it": max(answer["times"], default=None),
            REFUSED: len(answer["errors"]),
            LEFT: (found.sent[artifact.filename] - before) / len(artifact.content),
        }
        for name, value in row.items():
            if value is not None:
                results.setdefault(name, {})[stack.name] = float(value)
    return results


def measure_public(found: Upstream, cache: Path, step: Say, say: Say) -> Public:
    """`ours` is deployed, with this upstream for what begins with free-."""
    step("public packages: the servers and what is upstream")
    names = publish(found, cache / "public")
    stacks.give("plain-few", cache / "public", names)
    stacks.rebuild("plain-few")
    places = upstreams(found.url)
    all_ways = ways(places)
    packages = lock(places.pypi)
    step(f"public packages: {packages} of them installed")
    seconds = installs(all_ways, packages, say)
    step("public packages: what is cached")
    cached = rates(all_ways, say)
    step("public packages: a crowd")
    crowds = crowd(all_ways, found, say)
    memory = {way.stack.name: way.stack.memory() for way in all_ways[1:]}
    return Public(packages, seconds, cached, crowds, memory)
