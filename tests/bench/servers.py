"""The servers that are one process on the host of the others: how each is begun afresh, and where it then answers.

Every one is started as its README does it. What differs is forced by the machine: its CA, that PyPI may have a private address here, and
that no advisories can be read; ours goes without them then, too.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from .stacks import JSON, PASSWORD, USER, Stack, on

HOST = "others-few"
PROGRAMS = "/opt/servers"
PYTHON = f"PYTHONPATH={PROGRAMS} python3"


@dataclass(frozen=True)
class Upstreams:
    """Simple indexes: PyPI, and one of the bench that counts. `hosts` are where their files are."""

    pypi: str
    counting: str
    hosts: tuple[str, ...]


def _pypiron(port: int, data: str, upstreams: Upstreams | None, counting: bool = False) -> str:
    environment = f"PYPIRON_UPLOADER_USER={USER} PYPIRON_UPLOADER_PASS={PASSWORD}"
    environment += f" PYPIRON_READ_USER={USER} PYPIRON_READ_PASS={PASSWORD}"
    options = f"--data-dir {data} --bind-addr 0.0.0.0:{port}"
    if upstreams:
        upstream = (upstreams.counting if counting else upstreams.pypi).removesuffix("simple/")
        options += f" --proxy-upstream {upstream} --upstream-ca-cert /srv/ca.pem --advisory-feed ''"
        options += "".join(f" --proxy-allow-host {host}" for host in upstreams.hosts)
    if counting:
        options += " --allow-insecure-upstream"
    return f"{environment} exec {PROGRAMS}/bin/pypiron serve {options}"


def _pypiron_counting(port: int, data: str, upstreams: Upstreams | None) -> str:
    return _pypiron(port, data, upstreams, counting=True)


def _peryx(port: int, data: str, upstreams: Upstreams | None) -> str:
    lines = ['[[index]]\nname = "bench"\nroute = "bench"\necosystem = "pypi"\nhosted = true']
    lines += [f'[[index.access_token]]\nname = "{USER}"\nsecret = "{PASSWORD}"\nactions = ["read", "write"]']
    for name, url in (("pypi", upstreams.pypi), ("counting", upstreams.counting)) if upstreams else ():
        lines += [f'[[index]]\nname = "{name}"\nroute = "{name}"\necosystem = "pypi"']
        trusted = ", ".join(f'"{host}"' for host in upstreams.hosts) if upstreams else ""
        lines += [f'[[index.upstream]]\nname = "{name}"\nurl = "{url}"\ntrusted_hosts = [{trusted}]']
    config = shlex.quote("\n".join(lines))
    serve = f"{PROGRAMS}/bin/peryx serve --host 0.0.0.0 --port {port} --data-dir {data}/data --config {data}/peryx.toml"
    return f"echo {config} >{data}/peryx.toml && exec {serve}"


def _devpi(port: int, data: str, upstreams: Upstreams | None) -> str:
    init = f"{PYTHON} {PROGRAMS}/bin/devpi-init --serverdir {data}/data"
    init += f" --root-passwd {PASSWORD}" if upstreams else " --no-root-pypi"
    return f"{init} && {PYTHON} {PROGRAMS}/bin/devpi-server --serverdir {data}/data --host 0.0.0.0 --port {port}"


def _proxpi(port: int, data: str, upstreams: Upstreams | None) -> str:
    assert upstreams
    environment = (
        f"PROXPI_INDEX_URL={upstreams.pypi} PROXPI_EXTRA_INDEX_URLS={upstreams.counting} PROXPI_CACHE_DIR={data}"
    )
    return (
        f"{environment} {PYTHON} {PROGRAMS}/bin/gunicorn --preload --threads 2 --bind 0.0.0.0:{port} proxpi.server:app"
    )


COMMANDS: dict[str, Callable[[int, str, Upstreams | None], str]] = {
    "pypiron": _pypiron,
    "pypiron-counting": _pypiron_counting,
    "peryx": _peryx,
    "devpi": _devpi,
    "proxpi": _proxpi,
}


def begin(name: str, port: int, upstreams: Upstreams | None = None) -> None:
    """Start it with nothing in it, in place of the one that ran; back when it answers."""
    unit, data = f"{name}-{port}", f"/srv/servers/{name}-{port}"
    on(
        HOST,
        f"systemctl stop {unit} 2>/dev/null; systemctl reset-failed {unit} 2>/dev/null; rm -rf {data}; mkdir -p {data}",
    )
    trust = " ".join(f"--setenv {name}=/srv/ca.pem" for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    command = shlex.quote(COMMANDS[name](port, data, upstreams))
    on(HOST, f"systemd-run --quiet --unit {unit} {trust} bash -c {command}")
    answers = (
        f"curl --silent --output /dev/null --retry 60 --retry-connrefused --retry-delay 1 http://127.0.0.1:{port}/"
    )
    on(HOST, f"{answers} || {{ journalctl --unit {unit} --no-pager | tail -20; exit 1; }}")


def stack(name: str, port: int, path: str, index: str = "simple/") -> Stack:
    """Where it is asked; `path` is that of the index's own root."""
    program = name.partition("-")[0]
    return Stack(
        program,
        "few",
        HOST,
        f"http://{HOST}:{port}/{path}",
        (),
        login=program == "pypiron",
        json=JSON,
        index=index,
        unit=f"{name}-{port}",
    )
