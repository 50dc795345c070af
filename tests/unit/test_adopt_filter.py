"""What the role pypi_adopt makes of `docker inspect` and of an htpasswd."""

from __future__ import annotations

import json
from typing import Any

import pypi_adopt
import pytest
import yaml

OWN = ["/opt/pypi", "/opt/pypi-public"]
BCRYPT = "$2y$12$" + "abcdefghijklmnopqrstuO" + "abcdefghijklmnopqrstuvwxyzABCDu"
VOLUME = "/var/lib/docker/volumes/mypypi_packages/_data"
POST = "run -P /data/.htpasswd -a update,download,list /data/packages"


def container(service: str, image: str, command: str = "", **more: Any) -> dict[str, Any]:
    """As the engine shows it, as far as it is looked at."""
    project, directory = more.get("project", "mypypi"), more.get("directory", "/home/ec2-user/my-pypi")
    labels = {
        "com.docker.compose.project": project,
        "com.docker.compose.service": service,
        "com.docker.compose.oneoff": "False",
        "com.docker.compose.project.working_dir": directory,
        "com.docker.compose.project.config_files": f"{directory}/docker-compose.yml",
    }
    mounts = {"/data/packages": VOLUME, "/data/.htpasswd": f"{directory}/auth/.htpasswd"}
    ports = {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(port)} for port in more.get("ports", ())] or None}
    return {
        "Id": f"id-{service}",
        "Name": f"/{project}-{service}-1",
        "State": {"Running": more.get("running", True)},
        "Config": {
            "Image": image,
            "Labels": labels if project else {},
            "WorkingDir": "/data",
            "Entrypoint": ["/entrypoint.sh"],
            "Cmd": command.split() or None,
        },
        "HostConfig": {"RestartPolicy": {"Name": more.get("restart", "always"), "MaximumRetryCount": 0}},
        "NetworkSettings": {"Ports": ports},
        "Mounts": [{"Destination": k, "Source": v} for k, v in more.get("mounts", mounts).items()],
    }


def post(command: str = POST, **more: Any) -> dict[str, Any]:
    return container("pypiserver", "pypiserver/pypiserver:latest", command, ports=[8081], **more)


NGINX = container("nginx", "nginx:1.28", ports=[80], mounts={})
OURS = container("pypiserver", "pypiserver/pypiserver:v2.4.1", project="pypi", directory="/opt/pypi", mounts={})


def old(*containers: dict[str, Any], project: str = "") -> dict[str, Any]:
    return pypi_adopt.old(json.dumps(containers), project, OWN)


def test_the_posts_stack_is_found_with_all_that_is_of_it() -> None:
    found = old(NGINX, OURS, post())
    assert found["problem"] == ""
    assert [each["name"] for each in found["containers"]] == ["mypypi-pypiserver-1", "mypypi-nginx-1"]
    assert found["ports"] == [80, 8081]
    assert found["packages"] == [VOLUME]
    assert found["htpasswd"] == "/home/ec2-user/my-pypi/auth/.htpasswd"
    assert found["files"] == ["/home/ec2-user/my-pypi/docker-compose.yml"]


def test_files_that_compose_v1_was_given_are_of_its_directory() -> None:
    server = post()
    server["Config"]["Labels"]["com.docker.compose.project.config_files"] = "docker-compose.yml,/srv/more.yml"
    assert old(server)["files"] == ["/home/ec2-user/my-pypi/docker-compose.yml", "/srv/more.yml"]


def test_ports_of_what_was_stopped_are_free() -> None:
    assert old(post(running=False))["ports"] == []


@pytest.mark.parametrize(
    ("command", "htpasswd", "packages"),
    [
        ("run", "", [VOLUME]),
        ("run -P . -a .", "", [VOLUME]),
        ("run --passwords=/data/.htpasswd /data/packages/", "/home/ec2-user/my-pypi/auth/.htpasswd", [VOLUME]),
        ("run -P .htpasswd --fallback-url /x --log-file /y", "/home/ec2-user/my-pypi/auth/.htpasswd", [VOLUME]),
        ("run /data/packages/stable /data/packages/dev", "", [f"{VOLUME}/stable", f"{VOLUME}/dev"]),
    ],
)
def test_its_command_line_is_read_as_pypiserver_does(command: str, htpasswd: str, packages: list[str]) -> None:
    found = old(post(command))
    assert (found["htpasswd"], found["packages"], found["problem"]) == (htpasswd, packages, "")


def test_what_cannot_be_adopted_says_why() -> None:
    assert old()["containers"] == old(OURS, NGINX)["containers"] == []
    assert "copy them out (docker cp)" in old(post(mounts={}))["problem"]
    assert "was not started by Compose" in old(post(project=""))["problem"]
    assert "a Compose project called pypi" in old(post(project="pypi"))["problem"]
    two = [post(), post(project="other")]
    assert old(*two)["problem"].endswith("of the projects mypypi, other: say one as pypi_adopt_project")
    assert [each["name"] for each in old(*two, project="other")["containers"]] == ["other-pypiserver-1"]


HTPASSWD = f"""\
alice:{BCRYPT}
# a comment
bob:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=
carl:$apr1$lCGWRT5c$uLgyxmVJwpiKPDFDFIlvR/
dora:rl5FQwVVU1R0I
erik:$2y$03${"x" * 53}
odd name:{BCRYPT}
not a line
"""


def test_only_what_is_safe_is_carried_over() -> None:
    found = pypi_adopt.users(HTPASSWD, [{"name": "bob"}])
    assert found["kept"] == [{"name": "alice", "role": "publisher", "password_hash": BCRYPT}]
    assert dict(found["lost"]) == {
        "bob": "SHA-1 without salt",
        "carl": "MD5 (apr1)",
        "dora": "DES, or unknown",
        "erik": "bcrypt of a form or cost that is not taken",
        '"odd name"': "a name that is not taken",
    }
    assert "bob" not in found["missing"] and "alice" in found["missing"]


def test_what_is_pasted_is_yaml_without_a_weak_hash() -> None:
    text = pypi_adopt.snippet(pypi_adopt.users(HTPASSWD, []), "somewhere")
    assert yaml.safe_load(text) == {
        "pypi_users_accounts": [{"name": "alice", "role": "publisher", "password_hash": BCRYPT}]
    }
    assert "5en6G6MezRroT3XKqkdPOmY" not in text and "lCGWRT5c" not in text and "rl5FQwVVU1R0I" not in text
    assert "# - {name: bob, role: publisher" in text
