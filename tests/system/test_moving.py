"""The posts' own stack: its packages come in over the network, and then it gives way altogether, and comes back.

Written down as the posts have it, with two things replaced: the images are the lab's stand-ins, and nginx's settings are the least that
works. The project's name is the one that Compose v1 makes of its directory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from .conftest import MakeWheel
from .lab import PASSWORDS, Edge, Lab, recap, right, wait_until

pytestmark = pytest.mark.scenario("default")

DIRECTORY, PROJECT = "/home/ec2-user/my-pypi", "mypypi"
SECRET = "bob-Posted-1999"
COMPOSE = """\
version: "3.7"
services:
  pypiserver:
    image: pypiserver/pypiserver:v2.4.1
    command: run -P /data/.htpasswd -a update,download,list /data/packages
    restart: always
    volumes:
      - ./auth/.htpasswd:/data/.htpasswd
      - packages:/data/packages
    ports: ["8081:8080"]
  nginx:
    image: nginx:1.28
    restart: always
    volumes: ["./nginx.conf:/etc/nginx/conf.d/default.conf:ro"]
    ports: ["80:80"]
    depends_on: [pypiserver]
volumes:
  packages:
"""
NGINX = """\
server {
    listen 80;
    location / { proxy_pass http://pypiserver:8080; proxy_set_header Host $http_host; }
}
"""


def htpasswd() -> str:
    """`htpasswd -B` and `htpasswd -s`."""
    kept = bcrypt.hashpw(PASSWORDS["alice"].encode(), bcrypt.gensalt(5)).decode()
    weak = base64.b64encode(hashlib.sha1(SECRET.encode()).digest()).decode()
    return f"alice:{kept}\nbob:{{SHA}}{weak}\n"


class Post:
    """The old stack on the server."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self.address = lab, lab.address(lab.server_name)

    def compose(self, arguments: str) -> None:
        name = f"--project-name {PROJECT} --project-directory {DIRECTORY} --file {DIRECTORY}/docker-compose.yml"
        self._lab.server.check_output(f"docker compose {name} {arguments}")

    def write(self, path: str, content: str) -> None:
        encoded = base64.b64encode(content.encode()).decode()
        self._lab.server.check_output(
            f"mkdir -p $(dirname {DIRECTORY}/{path}) && echo {encoded} | base64 -d >{DIRECTORY}/{path}"
        )

    def publish(self, wheel: Path) -> None:
        where = self._lab.bring(wheel)
        login = f"--username bob --password {SECRET} --non-interactive --disable-progress-bar"
        self._lab.client.check_output(f"twine upload --repository-url http://{self.address}:8081/ {login} {where}")

    def volume(self) -> str:
        """Names, times and contents of all that is in it."""
        where = f"/var/lib/docker/volumes/{PROJECT}_packages/_data"
        return str(self._lab.server.check_output(f"cd {where} && stat -c '%n %y %U' * && sha256sum *"))

    def page(self, project: str) -> str:
        """A project's, through its nginx; pypiserver itself has to answer as well."""
        pages = [
            self._lab.server.check_output(
                f"curl -fsS --user bob:{SECRET} http://{self.address}:{port}/simple/{project}/"
            )
            for port in (8081, 80)
        ]
        return str(pages[-1])

    def containers(self) -> list[str]:
        listed = f"docker ps --all --filter label=com.docker.compose.project={PROJECT} --format '{{{{.Names}}}} {{{{.State}}}}'"
        return sorted(self._lab.server.check_output(listed).splitlines())


@pytest.fixture(scope="module")
def post(lab: Lab, make: MakeWheel) -> Iterator[Post]:
    """It has ports 8081 and 80, and three packages that twine has uploaded."""
    stack = Post(lab)
    lab.client.check_output("python3 -m venv --clear ~/moved")
    for path, content in {"docker-compose.yml": COMPOSE, "nginx.conf": NGINX, "auth/.htpasswd": htpasswd()}.items():
        stack.write(path, content)
    try:
        stack.compose("up --detach --wait pypiserver")
        for name in ("acme-one", "acme-two", "acme-three"):
            stack.publish(make(name, 5_000))
        yield stack
    finally:
        stack.compose("down --volumes")
        lab.compose("up --detach --wait")
        lab.server.check_output("systemctl enable --now pypi-verify.timer")


def installs(lab: Lab, name: str, version: str) -> None:
    options = "--no-input --no-cache-dir --disable-pip-version-check --no-deps --force-reinstall"
    lab.client.check_output(f"~/moved/bin/pip install {options} {name}=={version}")


def test_a_pypiserver_comes_in_over_the_network_and_all_goes_out(
    lab: Lab, post: Post, edge: Edge, version: str
) -> None:
    source: dict[str, Any] = {"move_in_source": f"http://{post.address}:8081/simple/", "move_in_projects": ["acme-one"]}
    login = {"move_in_username": "bob", "move_in_password": SECRET}
    refused = lab.site(playbook="playbooks/move_in.yml", **source)
    assert refused.returncode != 0 and "give move_in_username and move_in_password" in " ".join(refused.stdout.split())
    run = lab.site("-vvv", playbook="playbooks/move_in.yml", **source, **login)
    assert run.returncode == 0 and "1 of 1 files were taken" in run.stdout, run.stdout
    assert SECRET not in run.stdout
    assert lab.server.run(f"journalctl --since=-10min --no-pager | grep -F {shlex.quote(SECRET)}").rc == 1
    installs(lab, "acme-one", version)
    again = lab.site(playbook="playbooks/move_in.yml", **source, **login)
    assert recap(again.stdout)[lab.server_name]["changed"] == 0 and "1 were there" in again.stdout, again.stdout
    out = lab.site(playbook="playbooks/move_out.yml", move_out_directory="/srv/moved-out")
    assert out.returncode == 0, out.stdout
    document = json.loads(lab.server.check_output("cat /srv/moved-out/private-pypi.json"))
    (file,) = [f for f in document["projects"]["acme-one"] if f["filename"].split("-")[1] == version]
    page = json.loads(
        edge.request("/simple/acme-one/", right("alice") | {"Accept": "application/vnd.pypi.simple.v1+json"}).body
    )
    (listed,) = [f for f in page["files"] if f["filename"] == file["filename"]]
    assert file["hashes"] == listed["hashes"] and file["upload-time"][:19] == listed["upload-time"][:19]
    assert lab.server.file(f"/srv/moved-out/acme-one/{file['filename']}").sha256sum == file["hashes"]["sha256"]
    back = lab.site(playbook="playbooks/move_in.yml", move_in_source="/srv/moved-out")
    assert re.search(r"\b0 of \d+ files were taken", " ".join(back.stdout.split())), back.stdout
    assert recap(back.stdout)[lab.server_name]["changed"] == 0
    lab.server.check_output("rm -r /srv/moved-out")


def test_a_directory_of_this_machine_comes_in(lab: Lab, make: MakeWheel, version: str) -> None:
    wheel = make("acme-here", 5_000)
    source: dict[str, Any] = {"move_in_source": str(wheel.parent), "move_in_here": True}
    dry = lab.site("--check", playbook="playbooks/move_in.yml", **source)
    assert dry.returncode == 0 and "1 of 1 files would be taken" in " ".join(dry.stdout.split()), dry.stdout
    run = lab.site(playbook="playbooks/move_in.yml", **source)
    assert run.returncode == 0 and "1 of 1 files were taken" in " ".join(run.stdout.split()), run.stdout
    assert lab.server.run("ls -d /var/tmp/pypi-moving.*").rc != 0
    lab.client.check_output("python3 -m venv --clear ~/moved")
    installs(lab, "acme-here", version)


@pytest.mark.reliability
def test_the_posts_stack_runs_on_where_the_new_one_does_not_serve(
    lab: Lab, post: Post, version: str, tmp_path: Path
) -> None:
    lab.compose("stop")  # as on the day before there was anything of ours
    post.compose("up --detach --wait")
    before, theirs = post.volume(), post.containers()
    acme = {"pypi_tls_mode": "acme", "pypi_tls_acme_agree_terms": True, "pypi_tls_acme_email": "a@example.com"}
    refused = lab.site(
        "--check", playbook="playbooks/adopt.yml", pypi_adopt_users_file=str(tmp_path / "users.yml"), **acme
    )
    assert f"asks on port 80, which {PROJECT} has" in " ".join(refused.stdout.split()), refused.stdout
    # From the old one's end on, pypiserver is ended again and again.
    stopped = f"docker ps --quiet --filter label=com.docker.compose.project={PROJECT} | grep -q ."
    ending = "while test -e /run/ends; do docker kill pypi-pypiserver-1; sleep 0.5; done"
    lab.server.check_output(
        f"touch /run/ends && systemd-run --unit=ends sh -c 'while {stopped}; do sleep 0.2; done; {ending}'"
    )
    try:
        run = lab.site(playbook="playbooks/adopt.yml", pypi_adopt_users_file=str(tmp_path / "users.yml"))
    finally:
        lab.server.check_output("rm -f /run/ends")
    assert run.returncode != 0 and "The old stack runs as before" in " ".join(run.stdout.split()), run.stdout
    assert post.containers() == theirs and post.volume() == before
    assert f"acme_two-{version}" in post.page("acme-two")


def test_the_posts_stack_gives_way_and_comes_back(
    lab: Lab, post: Post, edge: Edge, version: str, tmp_path: Path
) -> None:
    lab.compose("stop")  # as on the day before there was anything of ours
    post.compose("up --detach --wait")
    before, theirs = post.volume(), post.containers()
    wanted = {"pypi_adopt_users_file": str(tmp_path / "users.yml")}
    run = lab.site(playbook="playbooks/adopt.yml", **wanted)
    assert run.returncode == 0, run.stdout
    assert post.containers() == [] and post.volume() == before
    wait_until("every container is healthy", lab.healthy, 60)
    for name in ("acme-one", "acme-two", "acme-three"):
        installs(lab, name, version)
        module = name.replace("-", "_")
        assert edge.request(f"/packages/{module}-{version}-py3-none-any.whl", right("alice")).status == 200
    text = (tmp_path / "users.yml").read_text()
    assert "alice" in text and "# - {name: bob" in text and "{SHA}" not in text
    assert (tmp_path / "users.yml").stat().st_mode & 0o077 == 0
    assert SECRET not in run.stdout and "$2b$" not in run.stdout

    back = lab.site(playbook="playbooks/adopt_back.yml")
    assert back.returncode == 0, back.stdout
    assert post.containers() == theirs and post.volume() == before
    assert f"acme_two-{version}" in post.page("acme-two")
    left = lab.server.run("systemctl list-units --all --no-legend --state=active 'pypi-*.timer' 'pypi-*.path'").stdout
    assert left == ""
