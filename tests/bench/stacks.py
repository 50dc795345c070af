"""The indexes that are compared: where they are, how they get the files, what they cost."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from base64 import b64encode
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

LAB = "pypi-bench"
USER, PASSWORD = "bench", "bench-Marks-2026"
JSON = "application/vnd.pypi.simple.v1+json"
PRIVATE_SERVERS = {"devpi": 3141, "pypiron": 3142, "peryx": 3143}
"""Port by server."""


def on(host: str, command: str, stdin: bytes | None = None, timeout: float = 3600) -> str:
    """What a command (bash) says as root on a host of the lab. Raises RuntimeError with its errors."""
    call = ["docker", "exec", "-i", f"{LAB}-{host}", "bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(call, input=stdin or b"", capture_output=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"{host}: {command}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode()


def send(directory: Path, names: list[str], host: str, target: str) -> None:
    """Copy files of a directory to a directory of a host."""
    listing = "\n".join(names).encode()
    with subprocess.Popen(
        ["tar", "-C", directory, "-c", "--owner=9898", "--group=9898", "-T", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as tar:
        call = ["docker", "exec", "-i", f"{LAB}-{host}", "tar", "-C", target, "-x"]
        with subprocess.Popen(call, stdin=tar.stdout) as unpack:
            assert tar.stdin and tar.stdout
            tar.stdin.write(listing)
            tar.stdin.close()
            if unpack.wait() or tar.wait():
                raise RuntimeError(f"{host}: the packages did not arrive in {target}")


@dataclass(frozen=True)
class Stack:
    """An index, as the host `load` sees it."""

    name: str
    size: str
    """`few` or `many`: how many files it holds."""
    host: str
    url: str
    services: tuple[str, ...]
    """Services of the host's Compose project, or none where it is a unit of systemd."""
    login: bool = True
    uploads: bool = True
    json: str = JSON
    """What a client that wants JSON asks for: a media type, or the name of a file; empty where there is none."""
    index: str = "simple/"
    """Where its pages are, from there."""
    unit: str = ""
    upload: str = ""
    """Where uploads go, from there."""

    @property
    def simple(self) -> str:
        return urljoin(self.url, self.index)

    @property
    def upload_url(self) -> str:
        return urljoin(self.url, self.upload)

    @property
    def index_url(self) -> str:
        """With the password, as pip and uv take it."""
        parts = urlsplit(self.simple)
        return parts._replace(netloc=f"{USER}:{PASSWORD}@{parts.netloc}").geturl() if self.login else self.simple

    def page(self, project: str) -> str:
        return urljoin(self.simple, f"{project}/" if project else "")

    def find(self, project: str, filename: str) -> str:
        """The address of a file, from its project's page."""
        html = curl(self, self.page(project), "-H 'Accept: text/html'")
        for link in re.findall(r'href="([^"#]+)', html):
            if link.endswith(f"/{filename}"):
                return urljoin(self.page(project), unescape(link))
        raise RuntimeError(f"{self.name}: {filename} is not on the page of {project}:\n{html[:500]}")

    def processes(self) -> list[int]:
        """Of all containers of the stack, by number on its host."""
        if not self.services:
            roots = on(self.host, f"systemctl show --property MainPID --value {self.unit}").split()
        else:
            containers = "docker ps --quiet"  # ours is alone on its host, the service for public packages included
            if self.host.startswith("others"):
                containers = f"docker compose --project-directory /srv/stacks ps --quiet {' '.join(self.services)}"
            roots = on(self.host, f"{containers} | xargs docker inspect -f '{{{{.State.Pid}}}}'").split()
        found = {int(pid) for pid in roots}
        parents = [tuple(map(int, line.split())) for line in on(self.host, "ps -e -o pid=,ppid=").splitlines()]
        while more := {pid for pid, parent in parents if parent in found} - found:
            found |= more
        return sorted(found)

    def cpu_seconds(self) -> float:
        """User and system time of the processes so far."""
        files = " ".join(f"/proc/{pid}/stat" for pid in self.processes())
        ticks = [line.rpartition(")")[2].split()[11:13] for line in on(self.host, f"cat {files}").splitlines()]
        return sum(int(ticks) for pair in ticks for ticks in pair) / 100

    def memory(self) -> float:
        """MiB of memory, pages that processes share counted once (PSS)."""
        files = " ".join(f"/proc/{pid}/smaps_rollup" for pid in self.processes())
        return sum(int(line.split()[1]) for line in on(self.host, f"grep -h ^Pss: {files}").splitlines()) / 1024


def _server(
    size: str, name: str, path: str = "", login: bool = False, index: str = "simple/", upload: str = ""
) -> Stack:
    port, host = PRIVATE_SERVERS[name], "others-few"
    url = f"http://{host}:{port}/{path}"
    return Stack(name, size, host, url, (), login=login, index=index, upload=upload, unit=f"{name}-{port}")


def stacks_of(size: str) -> list[Stack]:
    """All that are compared, with so many files. Of the servers there is one each, with few: filling devpi takes too long."""
    others, plain, tls = (f"{host}-{size}" for host in ("others", "plain", "tls"))

    def limit(name: str, url: str, service: str) -> Stack:
        return Stack(name, size, others, url, (service,), login=False, uploads=False, json="index.json")

    ours = ("nginx", "login", "pypiserver")
    return [
        limit("limit", f"http://{others}:8003/", "limit"),
        limit("limit, TLS", f"https://{others}/", "limit-tls"),
        limit("limit, tuned", f"http://{others}:8004/", "tuned"),
        Stack("ours", size, plain, f"http://{plain}/", ours),
        Stack("ours, TLS", size, tls, f"https://{tls}/", ours),
        Stack("by hand", size, others, f"http://{others}:8001/", ("by-hand",), json=""),
        Stack("by hand, cached", size, others, f"http://{others}:8002/", ("cached-pypiserver", "cached"), json=""),
        _server(size, "devpi", "bench/dev/", index="+simple/"),
        _server(size, "pypiron", upload="legacy/", login=True),
        _server(size, "peryx", "bench/"),
    ]


def curl(stack: Stack, url: str, options: str = "") -> str:
    """One request from the host `load`; fails unless it is answered with 2xx."""
    login = f"--user {USER}:{PASSWORD}" if stack.login else ""
    return on("load", f"curl --silent --show-error --fail --location --insecure {login} {options} {shlex.quote(url)}")


def _devpi(port: int, user: str, index: str, **values: object) -> None:
    """Make an index of a devpi, and its user where that is missing (else 409)."""
    ask = (
        "curl --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 -H 'Content-Type: application/json'"
    )

    def put(path: str, options: str, **values: object) -> str:
        return on("load", f"{ask} {options} http://others-few:{port}/{path} -d {shlex.quote(json.dumps(values))}")

    put(user, "-X PUT", password=PASSWORD, email="bench@example.com")
    login = json.loads(put("+login", "-X POST", user=user, password=PASSWORD))
    token = b64encode(f"{user}:{login['result']['password']}".encode()).decode()
    put(f"{user}/{index}", f"-X PUT -H 'X-Devpi-Auth: {token}'", **values)


def make_devpi_index() -> None:
    """Its files are not mirrored from anywhere."""
    _devpi(3141, USER, "dev", bases=[], type="stage", volatile=True)


def make_devpi_mirror(port: int, url: str) -> None:
    """`root/counting`, beside the mirror of PyPI that a new devpi has."""
    _devpi(port, "root", "counting", type="mirror", mirror_url=url)


def give(host: str, directory: Path, names: list[str]) -> None:
    """Put files where the stacks of a host look for packages."""
    if host.startswith("others"):
        send(directory, names, host, "/srv/packages")
    else:
        volume = on(host, "docker volume inspect --format '{{.Mountpoint}}' pypi_packages").strip()
        send(directory, names, host, volume)


def rebuild(host: str) -> float:
    """Seconds that the documented command takes to bring our pages up to date."""
    start = time.monotonic()
    on(host, "docker compose --project-directory /opt/pypi exec -T pypiserver python3 -m static_index rebuild 2>&1")
    return time.monotonic() - start


def copy_pages(size: str) -> None:
    """The limit serves what ours does: the same pages and metadata, and the files."""
    others, plain = f"others-{size}", f"plain-{size}"
    on(others, "cp --archive --link --no-clobber --no-target-directory /srv/packages /srv/limit/packages")
    for part, target in (("simple", "/srv/limit/simple"), ("metadata", "/srv/limit/packages")):
        pack = ["docker", "exec", f"{LAB}-{plain}", "tar", "-C", f"/opt/pypi/index/{part}", "-c", "."]
        unpack = ["docker", "exec", "-i", f"{LAB}-{others}", "tar", "-C", target, "-x"]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as source:
            subprocess.run(unpack, stdin=source.stdout, check=True)


def fill_by_twine(stack: Stack, names: list[str]) -> None:
    """Upload files of /root/files on the host `load`."""
    on("load", "cat >/root/names", "\n".join(names).encode())
    on(
        "load",
        f"cd /root/files && xargs -a /root/names twine upload --non-interactive --disable-progress-bar "
        f"--repository-url {stack.upload_url} -u {USER} -p {PASSWORD} >/root/{stack.name}.log 2>&1",
    )
