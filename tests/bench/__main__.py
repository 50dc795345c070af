"""Brings the hosts up, measures, writes docs/benchmarks.md, and takes the hosts down again."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import measure, servers, stacks
from .packages import fill
from .public import measure_public, upstream
from .report import OURS, TLS, Results, Size, render
from .stacks import Stack, on

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/bench"
FILES = dict(zip(("few", "many"), map(int, os.environ.get("BENCH_FILES", "1000 30000").split()), strict=False))
"""How many small files each size has."""
OURS_HOSTS = {f"{kind}-{size}": name for kind, name in (("plain", OURS), ("tls", TLS)) for size in FILES}

NO_CLIENTS = ("limit, TLS", "limit, tuned", "by hand, cached")
"""Stacks that pip, uv and uploads are not tried with: they would wait for the same as with the stack before them."""

INTRODUCTION = """Made by `make bench`; nothing here is typed by hand. All stacks run on hosts of the lab on one machine, which makes the load as well,
one under load at a time. There is a host for each size, and all of them are up at once: what is repeated is repeated in turn, stack
after stack of both sizes, and the median is shown. Only ratios within a run mean anything.

- *limit*: the nginx image as it comes, plain files, no login; *limit, TLS*: the same with a certificate. *limit, tuned*: with open files kept and
  the log written in pieces, as ours has it; what is missing to it is the price of the login.
- *ours*: `site.yml` with its defaults and `pypi_tls_mode: "off"`; *ours, TLS*: with its defaults. A login of bcrypt cost 12 in both.
- *by hand*: pypiserver with an htpasswd of `{SHA}`, as in the first blog post. *by hand, cached*: nginx with a cache of the packages in front of
  it, as in the second; it hands what it has cached to anybody.
- *devpi*, *pypiron*, *peryx*, *proxpi*: as they come, one process each (tests/bench/servers.py). pypiron reads with a login, the others without.
  All but proxpi hold private packages.
- *PyPI itself*: the same clients, asking it as this machine does, which may be by a mirror. All are told the same versions; *cold* is with
  an empty cache in the server and in the client, *warm* with an empty one in the client. The crowd's file comes from a server that counts.
- *gzip*: the client takes compressed pages, as pip and uv do, and so do the clients that come all at once; ours lie there compressed."""


def step(what: str) -> None:
    print(f"\n==> {what}", flush=True)


def say(what: str) -> None:
    print(f"    {what}", flush=True)


def playbook(name: str, *arguments: str, inventory: tuple[str, ...] = ("lab", *OURS_HOSTS)) -> None:
    """What it says is shown when it fails."""
    files = [f"--inventory={ROOT}/tests/bench/inventory/{file}.yml" for file in inventory]
    command = ["ansible-playbook", *files, "--extra-vars=@.cache/lab/vars.yml", *arguments, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-5000:]}{done.stderr}\nmake bench stopped: {' '.join(command)}")


def servers_archive() -> Path:
    """The locked servers and all they need, for the Python of the host that runs them (Debian 12)."""
    target, archive = CACHE / "servers", CACHE / "servers.tar"
    lock = Path(__file__).with_name("servers.lock")
    command = ["uv", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock), "--target", str(target)]
    subprocess.run([*command, "--python-version", "3.11", "--only-binary", ":all:"], check=True)
    subprocess.run(["tar", "-C", target, "-cf", archive, "."], check=True)
    return archive


def bring_up(hosts: list[str], *limit: str) -> None:
    step("hosts")
    subprocess.run([ROOT / "tests/lab/images"], check=True)
    playbook("tests/lab/up.yml", *limit, inventory=("lab", *hosts))


def deploy(hosts: list[str], upstream: str, *limit: str) -> None:
    step("ours, by site.yml")
    variables = f"--extra-vars=bench_upstream={upstream}"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda host: playbook("site.yml", variables, inventory=(host,)), hosts))
    step("the others")
    password = b64encode(hashlib.sha1(stacks.PASSWORD.encode(), usedforsecurity=False).digest()).decode()
    options = {"bench_htpasswd": f"{stacks.USER}:{{SHA}}{password}\n", "bench_servers": str(servers_archive())}
    playbook("tests/bench/prepare.yml", *limit, f"--extra-vars={json.dumps(options)}", inventory=("lab",))
    on("load", "python3 -m venv /root/pip && mkdir -p /root/files")
    machine = [Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))]
    authorities = [path.read_bytes() for path in [*sorted(CACHE.glob("ca-*/ca.pem")), *machine] if path.exists()]
    on("load", "cat >/root/ca.pem", b"".join(authorities))


def load_files(size: str) -> tuple[dict[str, float], list[str]]:
    """Give every stack its files. Returns the seconds that our index took, and what the reader has to know."""
    files = FILES[size]
    step(f"{files:,} files")
    directory = CACHE / "packages"
    names = fill(directory, files)
    seconds, notes = {}, ["devpi, pypiron and peryx have none of the 20 MB wheels."]
    for host in (f"others-{size}", *(host for host in OURS_HOSTS if host.endswith(size))):
        say(f"{len(names)} files to {host}")
        stacks.give(host, directory, names)
        if host in OURS_HOSTS:
            say(f"index of {host}")
            seconds[OURS_HOSTS[host]] = stacks.rebuild(host)
    stacks.copy_pages(size)
    if size == "few":
        say(" and ".join(stacks.PRIVATE_SERVERS))
        small = [name for name in names if "heavy" not in name]
        stacks.send(directory, small, "load", "/root/files")
        for stack in stacks.stacks_of(size):
            if stack.name in stacks.PRIVATE_SERVERS:
                stacks.fill_by_twine(stack, small)
    else:
        notes.append(f"devpi, pypiron and peryx are those with {FILES['few']:,} files: filling devpi takes too long.")
    return seconds, notes


def measure_all() -> list[Size]:
    """Every stack of every size in turn, work by work."""
    for name, port in stacks.PRIVATE_SERVERS.items():
        servers.begin(name, port)
    stacks.make_devpi_index()
    loaded = {size: load_files(size) for size in FILES}
    every = [stack for size in FILES for stack in stacks.stacks_of(size)]
    at_work = [stack for stack in every if stack.name not in NO_CLIENTS]
    memory = {stack: stack.memory() for stack in every}
    step("pages and small files")
    rates, cpu = measure.rates(every, say)
    step("the big file")
    speed = measure.in_turn(every, "100 MB file", measure.big_file, say)
    step("clients")
    clients: measure.Results = {}
    for row, once in measure.CLIENTS_AT_WORK.items():
        able = [stack for stack in at_work if stack.services or "20 MB" not in row]
        clients |= measure.in_turn(able, row, once, say)
    step("uploads")
    uploads = upload_in_turn([stack for stack in at_work if stack.uploads])
    step(f"{measure.CLIENTS} clients at once")
    burst = {}
    for stack in every:
        say(f"{stack.name}, {FILES[stack.size]:,} files")
        burst[stack] = measure.burst(stack, say)
        measure.settle(stack)

    def of(size: str, row: dict[Stack, Any]) -> dict[str, Any]:
        return {stack.name: value for stack, value in row.items() if stack.size == size}

    def table(size: str, results: measure.Results) -> Results:
        return {row: of(size, values) for row, values in results.items()}

    return [
        Size(
            files,
            rates=table(size, rates),
            cpu=table(size, cpu),
            speed=table(size, speed),
            clients=table(size, clients),
            uploads=of(size, uploads),
            burst=of(size, burst),
            memory=of(size, memory),
            index_seconds=loaded[size][0],
            notes=loaded[size][1],
        )
        for size, files in FILES.items()
    ]


def upload_in_turn(able: list[Stack]) -> dict[Stack, float]:
    """Seconds of all UPLOADS, made in as many rounds as everything else."""
    share = measure.UPLOADS // measure.ROUNDS
    seconds = dict.fromkeys(able, 0.0)
    for number in range(measure.ROUNDS):
        for position, stack in enumerate(able):
            say(f"{stack.name}, {FILES[stack.size]:,} files, round {number + 1} of {measure.ROUNDS}")
            seconds[stack] += measure.uploads(stack, f"u{number}s{position}n", share)
            measure.settle(stack)
    return {stack: total / share / measure.ROUNDS * measure.UPLOADS for stack, total in seconds.items()}


def facts() -> dict[str, str]:
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {
        "nginx": on("plain-few", "cd /opt/pypi && docker compose exec -T nginx nginx -v 2>&1")
        .strip()
        .rpartition("/")[2],
        "pypiserver": on(
            "plain-few", "cd /opt/pypi && docker compose exec -T pypiserver pypi-server --version"
        ).split()[-1],
        **{
            name: version.removesuffix(".dist")
            for name, version in (path.name.split("-")[:2] for path in sorted((CACHE / "servers").glob("*.dist-info")))
            if name in ("devpi_server", "pypiron", "peryx", "proxpi")
        },
        "Docker": on("plain-few", "docker version --format '{{.Server.Version}}'").strip(),
        "uv, pip, wrk": ", ".join(
            on("load", command).split()[1]
            for command in ("uv --version", "/root/pip/bin/pip --version", "wrk --version 2>&1 || true")
        ),
    }
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} processors ({model[0] if model else platform.machine()}), {memory:.0f} GiB",
        "kernel": platform.release(),
        "load before it began": f"{os.getloadavg()[0]:.2f}",
        "rounds": f"{measure.ROUNDS}, {measure.SECONDS} s of load each, {measure.CONNECTIONS} connections",
        **versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=["private", "public"], help="measure this part alone")
    parser.add_argument("--report", type=Path, default=ROOT / "docs/benchmarks.md")
    asked = parser.parse_args()
    start, quiet = time.monotonic(), os.getloadavg()[0]
    hosts, limit = list(OURS_HOSTS), []
    if asked.only == "public":
        hosts, limit = ["plain-few"], ["--limit=!others-many"]
    try:
        bring_up(hosts, *limit)
        with upstream() as counting:
            deploy(hosts, counting.url, *limit)
            sizes = [] if asked.only == "public" else measure_all()
            public = None if asked.only == "private" else measure_public(counting, CACHE, step, say)
        took = f"{(time.monotonic() - start) / 60:.0f} minutes"
        known = facts() | {"load before it began": f"{quiet:.2f}", "took": took}
        asked.report.write_text(render(sizes, known, INTRODUCTION, public), "utf-8")
        step(f"{asked.report} has the figures")
    finally:
        step("hosts go")
        if "BENCH_KEEP" not in os.environ:
            playbook("tests/lab/down.yml", inventory=("lab", *hosts))


if __name__ == "__main__":
    main()
