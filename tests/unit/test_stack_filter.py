"""What the role pypi_stack makes of a host: what would be left behind, ports that others use, images that are others by now."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import host_tools
import pypi_stack
import pytest

ROLE = Path(__file__).parents[2] / "roles/pypi_stack"

COMPOSE = """
services:
  nginx: {volumes: ["./nginx:/etc/pypi:ro,z", "/opt/pypi/tls:/tls:ro,z", "pypi_packages:/data/known/packages:ro"]}
  pypiserver: {volumes: ["pypi_packages:/data/packages", "/opt/pypi/users:/users:ro,z"]}
"""
WANTED = {
    "pypi_stack_directory": "/opt/pypi",
    "pypi_stack_packages": "pypi_packages",
    "pypi_stack_users_directory": "/opt/pypi/users",
    "pypi_stack_tls_directory": "/opt/pypi/tls",
    "pypi_stack_listen_address": "",
    "pypi_stack_nginx_image": "nginx:1.28",
    "pypi_stack_pypiserver_image": "pypiserver/pypiserver:v2.4.1",
}


def container(service: str, image: str, mounts: dict[str, str], ports: list[tuple[str, int]]) -> dict[str, Any]:
    """As `docker inspect` says it."""
    volumes = [{"Name": s} if s[0] != "/" else {} for s in mounts.values()]
    return {
        "Image": f"sha256:{service}",
        "Config": {
            "Image": image,
            "Labels": {
                "com.docker.compose.service": service,
                "com.docker.compose.project.working_dir": "/opt/pypi",
            },
        },
        "Mounts": [
            {
                "Destination": where,
                "Source": source if source[0] == "/" else f"/var/lib/docker/volumes/{source}/_data",
                **volume,
            }
            for (where, source), volume in zip(mounts.items(), volumes, strict=True)
        ],
        "NetworkSettings": {
            "Ports": {"8443/tcp": [{"HostIp": ip, "HostPort": str(p)} for ip, p in ports], "80/tcp": None}
        },
    }


RUNNING = [
    container("nginx", "nginx:1.28", {"/tls": "/opt/pypi/tls"}, [("0.0.0.0", 443), ("::", 443)]),
    container(
        "pypiserver",
        WANTED["pypi_stack_pypiserver_image"],
        {"/data/packages": "pypi_packages", "/users": "/opt/pypi/users"},
        [],
    ),
]


def seen(
    containers: list[dict[str, Any]], compose: str = "", ports: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """As host_look says it."""
    return {
        "commands": {
            "containers": {"stdout": json.dumps(containers) if containers else ""},
            "pypi_stack_nginx_image": {"stdout": "sha256:nginx"},
            "pypi_stack_pypiserver_image": {"stdout": ""},
        },
        "files": {"/opt/pypi/compose.yml": b64encode(compose.encode()).decode()} if compose else {},
        "ports": ports or [],
    }


@pytest.mark.parametrize("host", [seen(RUNNING), seen([], COMPOSE), seen([])], ids=["running", "stopped", "empty"])
def test_nothing_is_left_where_nothing_changes(host: dict[str, Any]) -> None:
    assert pypi_stack.left(host, WANTED) == {}
    assert pypi_stack.compose_problem(host, "/opt/pypi") == ""


@pytest.mark.parametrize("host", [seen(RUNNING), seen([], COMPOSE)], ids=["running", "stopped"])
@pytest.mark.parametrize(
    ("variable", "value", "present"),
    [
        ("pypi_stack_packages", "/srv/packages", "pypi_packages"),
        ("pypi_stack_packages", "pypi_packages2", "pypi_packages"),
        ("pypi_stack_users_directory", "/srv/users", "/opt/pypi/users"),
        ("pypi_stack_tls_directory", "/srv/tls", "/opt/pypi/tls"),
    ],
)
def test_a_place_that_would_be_left(host: dict[str, Any], variable: str, value: str, present: str) -> None:
    assert pypi_stack.left(host, {**WANTED, variable: value}) == {variable: present}


def test_what_lies_in_a_directory_that_moves_goes_along() -> None:
    moved = {name: value.replace("/opt/pypi", "/srv/index") for name, value in WANTED.items()}
    assert pypi_stack.left(seen(RUNNING), moved) == {"pypi_stack_directory": "/opt/pypi"}
    elsewhere = {**moved, "pypi_stack_packages": "/srv/packages"}
    assert set(pypi_stack.left(seen(RUNNING), elsewhere)) == {"pypi_stack_directory", "pypi_stack_packages"}


@pytest.mark.parametrize(
    ("variable", "old", "new", "move"),
    [
        ("pypi_stack_packages", "pypi_packages", "/srv/p", "mkdir -p /srv/p && find $(docker volume inspect --format '{{.Mountpoint}}' pypi_packages) -mindepth 1 -maxdepth 1 -exec mv -t /srv/p {} +"),
        ("pypi_stack_packages", "/srv/p", "other", "docker volume create other && find /srv/p -mindepth 1 -maxdepth 1 -exec mv -t $(docker volume inspect --format '{{.Mountpoint}}' other) {} +"),
        ("pypi_stack_users_directory", "/opt/pypi/users", "/srv/u", "mkdir -p /srv/u && find /opt/pypi/users -mindepth 1 -maxdepth 1 -exec mv -t /srv/u {} +"),
    ],
)  # fmt: skip
def test_the_refusal_says_how_to_move_it(variable: str, old: str, new: str, move: str) -> None:
    problem = pypi_stack.move_problems({variable: old}, {**WANTED, variable: new})[0]
    assert problem.startswith(f"{variable} is {new}, but this host has ") and f" in {old}, " in problem
    assert problem.endswith(f"docker compose --project-directory /opt/pypi down && {move}")


def test_the_stack_that_is_stopped_is_the_one_that_runs() -> None:
    moved = {**WANTED, "pypi_stack_directory": "/srv/index"}
    assert (
        "--project-directory /opt/pypi down"
        in pypi_stack.move_problems({"pypi_stack_directory": "/opt/pypi"}, moved)[0]
    )


@pytest.mark.parametrize("compose", ["services: [", "- a", "services: {a: {}}", "services: {a: {volumes: [a]}}", "\0"])
def test_a_compose_file_that_says_nothing_is_named(compose: str) -> None:
    assert pypi_stack.compose_problem(seen([], compose), "/opt/pypi").startswith("/opt/pypi/compose.yml does not say")
    assert pypi_stack.compose_problem(seen(RUNNING, compose), "/opt/pypi") == ""


def at(address: str, port: int, error: str = "EADDRINUSE", *listeners: str) -> dict[str, Any]:
    return {
        "address": address,
        "port": port,
        "error": error,
        "listeners": [{"address": who, "program": "other (process 7)"} for who in listeners],
    }


@pytest.mark.parametrize(
    ("port", "says"),
    [
        (at("0.0.0.0", 443, "EADDRINUSE", "0.0.0.0", "::"), ""),  # its own
        (at("0.0.0.0", 443, ""), ""),
        (at("0.0.0.0", 80, "EADDRINUSE", "0.0.0.0"), "other (process 7) listens at 0.0.0.0:80"),
        (at("0.0.0.0", 80, "EADDRINUSE", "127.0.0.1"), "other (process 7) listens at 127.0.0.1:80"),
        (at("127.0.0.1", 80, "EADDRINUSE", "0.0.0.0"), "other (process 7) listens at 0.0.0.0:80"),
        (at("0.0.0.0", 80, "EADDRINUSE", "::"), "other (process 7) listens at [::]:80"),  # takes IPv4 too
        (at("::", 80, "EADDRINUSE", "::1"), "other (process 7) listens at [::1]:80"),
        (at("192.0.2.1", 443, "EADDRINUSE", "0.0.0.0", "::", "127.0.0.1"), ""),  # only its own are in the way
        (at("0.0.0.0", 443, "EADDRINUSE", "0.0.0.0", "::", "127.0.0.1"), "other (process 7) listens at 127.0.0.1:443"),
        (at("::", 443, "EADDRNOTAVAIL"), ""),  # a host without IPv6, and nobody asked for it
    ],
)
def test_ports(port: dict[str, Any], says: str) -> None:
    problems = pypi_stack.port_problems(seen(RUNNING, ports=[port, port]), WANTED)
    assert (
        (len(problems) == 1 and says in problems[0] and "pypi_stack_https_port" in problems[0])
        if says
        else not problems
    )


def test_an_address_that_the_host_does_not_have() -> None:
    host = seen(RUNNING, ports=[at("192.0.2.1", port, "EADDRNOTAVAIL") for port in (80, 443)])
    problems = pypi_stack.port_problems(host, {**WANTED, "pypi_stack_listen_address": "192.0.2.1"})
    assert len(problems) == 1 and "pypi_stack_listen_address is 192.0.2.1" in problems[0]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("192.0.2.1", True),
        ("::", True),
        ("2001:db8::1", True),
        ("[::]", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("192.0.2.256", False),
        ("192.0.2.0/24", False),
        ("", False),
    ],
)
def test_addresses(text: str, good: bool) -> None:
    assert pypi_stack.is_address(text) == good


def test_how_compose_and_the_kernel_are_told_of_them() -> None:
    assert [pypi_stack.published(address, 80) for address in ("", "192.0.2.1", "::")] == [
        "80",
        "192.0.2.1:80",
        "[::]:80",
    ]
    assert pypi_stack.bindings("::1", [80]) == [{"address": "::1", "port": 80}]
    assert [(b["address"], b["port"]) for b in pypi_stack.bindings("", ["80"])] == [("0.0.0.0", 80), ("::", 80)]


def test_an_image_that_became_another_under_its_name() -> None:
    assert pypi_stack.image_problems(seen(RUNNING), WANTED) == []
    host = seen(RUNNING)
    host["commands"]["pypi_stack_nginx_image"]["stdout"] = "sha256:other"
    assert "pypi_stack_nginx_image is nginx:1.28, but" in pypi_stack.image_problems(host, WANTED)[0]
    assert pypi_stack.image_problems(host, {**WANTED, "pypi_stack_nginx_image": "nginx:1.30"}) == []


def test_the_code_is_all_there_and_nothing_else() -> None:
    names = [file["name"] for file in host_tools.files(str(ROLE / "files"), "login", "pypiserver")]
    assert {"login/login.py", "login/gunicorn.conf.py", "pypiserver/static_index/app.py"} <= set(names)
    on_disk = [p for d in ("login", "pypiserver") for p in (ROLE / "files" / d).rglob("*") if p.is_file()]
    assert names == sorted(names) and len(names) == len([p for p in on_disk if "__pycache__" not in p.parts])


def test_what_was_there_before() -> None:
    there = {"/opt/pypi/compose.yml": b64encode(b"a").decode(), "/opt/pypi/nginx/n.conf": b64encode(b"b\xff").decode()}
    before = [{"name": "compose.yml", "content": "a"}, {"name": "nginx/n.conf", "content": "b\ufffd"}]
    assert pypi_stack.relative(there, "/opt/pypi") == before
    there.pop("/opt/pypi/compose.yml")
    assert pypi_stack.relative(there, "/opt/pypi") == []


def test_code_lies_where_its_content_says() -> None:
    code = [{"name": "nginx/a.js", "content": "1"}, {"name": "nginx/b.js", "content": "2"}]
    named = pypi_stack.by_content(code)
    (directory,) = {Path(file["name"]).parent for file in named}
    assert [Path(file["name"]).name for file in named] == ["a.js", "b.js"]
    assert directory.parent == Path("nginx")
    other = pypi_stack.by_content([code[0], {**code[1], "content": "3"}])
    assert Path(other[0]["name"]).parent != directory


def test_what_is_newer_is_told_by_digests() -> None:
    offered = [
        {
            "__pypi_stack_image": "pypi_stack_nginx_image",
            "stdout": f"Name: nginx\nDigest: sha256:{'a' * 64}\n sha256:{'c' * 64}",
        },
        {"__pypi_stack_image": "pypi_stack_pypiserver_image", "stdout": f"Digest: sha256:{'b' * 64}\n"},
    ]
    present = json.dumps([{"RepoDigests": [f"nginx@sha256:{'a' * 64}"]}, {"RepoDigests": None}])
    assert pypi_stack.newer(offered, present, WANTED) == [f"pypiserver/pypiserver:v2.4.1 is now sha256:{'b' * 64}"]


def test_a_candidate_has_no_ports_no_restarts_and_networks_of_its_own() -> None:
    service = {"ports": [1], "restart": "always", "image": "old", "healthcheck": {"interval": "15s"}}
    networks = {"front": {"name": "pypi_front"}, "public": {"name": "pypi_public", "external": True}}
    compose = {"name": "pypi", "services": {"nginx": service, "login": dict(service)}, "networks": networks}
    made = json.loads(pypi_stack.candidate(json.dumps(compose), "other", WANTED))
    assert made["name"] == "other" and made["networks"] == {"front": {}, "public": networks["public"]}
    assert [each["image"] for each in made["services"].values()] == ["nginx:1.28", "pypiserver/pypiserver:v2.4.1"]
    assert all("ports" not in each and each["restart"] == "no" for each in made["services"].values())
    assert pypi_stack.inside("172.19.0.3 172.20.0.3\n172.20.0.0/16\n") == "172.20.0.3"
