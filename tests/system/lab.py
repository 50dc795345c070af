"""The scenario under test: its inventory, its hosts, and one way of speaking to the index."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import testinfra  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]

# The accounts after tests/system/side_effect.yml. Both scenarios have the same; one of them keeps two as hashes only.
PASSWORDS = {
    "alice": "alice-Wonderland-1865",  # publisher
    "bob": "bob-Builder-1999",  # reader
    "dave": "dave-New-2020",  # reader, was a publisher with another password
    "erin": "erin-Arrives-2022",  # publisher of acme-*
}
TOKENS = {
    "erin/laptop": "ppi_AcPeb3s0jFNrrGkRYanvBFTMQOtXq2rtJu9IMylABar2Kutcl",
    "erin/release": "ppi_5YFAS3eIDAZKVVMs0HiTWI2EI7oazYWr6n93sYUZzcr0HNx5r",
    "erin/old": "ppi_8Lb9SxoN8K4p2NOdmHRZzi5xQBEMATXoihT0ePDow7d3DFhuo",
    "robot/nightly": "ppi_ZPXWXfcn5wlpyH4fB2CCyeJwEmhmDx8HG5OJxOTDtGb3WvX2S",
}
GONE = {"carol": "carol-Leaves-2001", "dave": "dave-Old-2010"}

SURVIVOR = "survivor-1.0-py3-none-any.whl"


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def right(user: str) -> dict[str, str]:
    """The header of a user who knows the password."""
    return {"Authorization": basic(user, PASSWORDS[user])}


def bearer(token: str) -> dict[str, str]:
    """The header of who has that token, ACCOUNT/TOKEN."""
    return {"Authorization": basic("__token__", TOKENS[token])}


def wait_until(what: str, condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until the condition held; fails, saying what did not happen, when it never did."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


def best(attempt: Callable[[], float], bound: float) -> float:
    """The least of three attempts, or the first below the bound: the machine may have other things to do for a while."""
    seen: list[float] = []
    while len(seen) < 3 and (not seen or min(seen) >= bound):
        seen.append(attempt())
    return min(seen)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    reason: str
    """Of the status line: all that twine shows."""


@dataclass(frozen=True)
class Edge:
    """The published port, reached from this machine, trusting what the clients trust."""

    address: str
    port: int
    hostname: str
    context: ssl.SSLContext

    @property
    def host_header(self) -> str:
        return self.hostname if self.port == 443 else f"{self.hostname}:{self.port}"

    def connect(self, timeout: float = 60) -> ssl.SSLSocket:
        raw = socket.create_connection((self.address, self.port), timeout)
        return self.context.wrap_socket(raw, server_hostname=self.hostname)

    def session(self, timeout: float = 60) -> http.client.HTTPConnection:
        """A connection that is kept open between requests."""
        connection = http.client.HTTPConnection(self.hostname, self.port, timeout=timeout)
        connection.sock = self.connect(timeout)
        connection.auto_open = 0
        return connection

    def request(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
        session: http.client.HTTPConnection | None = None,
    ) -> Answer:
        connection = session or self.session()
        try:
            connection.request(method, path, body, {"Host": self.host_header, **(headers or {})})
            response = connection.getresponse()
            joined = {name.lower(): str(response.getheader(name)) for name in response.headers}  # several lines as one
            return Answer(response.status, joined, response.read(), response.reason)
        finally:
            if session is None:
                connection.close()

    @staticmethod
    def form(wheel: Path, user: str) -> tuple[dict[str, str], bytes]:
        """What twine sends, as far as the index looks at it."""
        name, version = wheel.name.split("-")[:2]
        fields = {":action": "file_upload", "protocol_version": "1", "filetype": "bdist_wheel"}
        fields |= {"metadata_version": "2.1", "name": name.replace("_", "-"), "version": version, "pyversion": "py3"}
        part = "--limit\r\nContent-Disposition: form-data; name="
        text = "".join(f'{part}"{key}"\r\n\r\n{value}\r\n' for key, value in fields.items())
        text += f'{part}"content"; filename="{wheel.name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        body = text.encode() + wheel.read_bytes() + b"\r\n--limit--\r\n"
        return {"Content-Type": "multipart/form-data; boundary=limit", **right(user)}, body

    def upload(self, wheel: Path, user: str, path: str = "/") -> Answer:
        headers, body = self.form(wheel, user)
        return self.request(path, headers, "POST", body)

    def takes_uploads(self) -> bool:
        """Whether pypiserver answers, which nothing but an upload asks: here an empty one."""
        return self.request("/", right("alice"), "POST").status == 400


@dataclass(frozen=True)
class Lab:
    directory: Path
    variables: Mapping[str, Mapping[str, Any]] = field(repr=False)
    groups: Mapping[str, list[str]] = field(repr=False)

    @classmethod
    def load(cls) -> Lab:
        directory = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
        listing = subprocess.run(
            ["ansible-inventory", "-i", directory / "inventory", "--list"], check=True, capture_output=True, text=True
        )
        inventory = json.loads(listing.stdout)
        hosts = {group: inventory[group]["hosts"] for group in ("pypi_servers", "pypi_clients")}
        return cls(directory, inventory["_meta"]["hostvars"], hosts)

    @property
    def server_name(self) -> str:
        return self.groups["pypi_servers"][0]

    @property
    def of_server(self) -> Mapping[str, Any]:
        return self.variables[self.server_name]

    @property
    def of_client(self) -> Mapping[str, Any]:
        return self.variables[self.groups["pypi_clients"][0]]

    def container(self, host: str) -> str:
        return f"{self.of_server['lab_name']}-{host}"

    @cached_property
    def server(self) -> Any:
        """root on the server."""
        return testinfra.get_host(f"docker://{self.container(self.server_name)}")

    @cached_property
    def client(self) -> Any:
        """The user of the tools on the client, with nothing but their configuration files."""
        return testinfra.get_host(f"docker://admin@{self.container(self.groups['pypi_clients'][0])}")

    @cached_property
    def root_of_client(self) -> Any:
        return testinfra.get_host(f"docker://root@{self.container(self.groups['pypi_clients'][0])}")

    @property
    def project(self) -> str:
        """Where the Compose project lives."""
        return str(self.of_server.get("pypi_directory", "/opt/pypi"))

    @property
    def hostname(self) -> str:
        return str(self.of_server.get("pypi_hostname", self.server_name))

    @property
    def port(self) -> int:
        return int(self.of_server.get("pypi_stack_https_port", 443))

    @property
    def plain_port(self) -> int:
        return int(self.of_server.get("pypi_stack_http_port", 80))

    @property
    def url(self) -> str:
        return f"https://{self.edge.host_header}"

    def address(self, host: str) -> str:
        """On the lab's network."""
        where = f'{{{{(index .NetworkSettings.Networks "{self.of_server["lab_name"]}").IPAddress}}}}'
        command = ["docker", "inspect", "--format", where, self.container(host)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    @cached_property
    def trusted(self) -> str:
        """The certificates that the client trusts."""
        return str(self.client.check_output("cat /etc/ssl/certs/ca-certificates.crt"))

    @cached_property
    def edge(self) -> Edge:
        context = ssl.create_default_context(cadata=self.trusted)
        return Edge(self.address(self.server_name), self.port, self.hostname, context)

    def compose(self, arguments: str) -> str:
        return str(self.server.check_output(f"docker compose --project-directory {self.project} {arguments}"))

    def containers(self) -> dict[str, Any]:
        """`docker inspect` of the stack, by service; the service for public packages is a project of its own."""
        listed = json.loads(self.server.check_output("docker inspect $(docker ps --all --quiet)"))
        named = {c["Config"]["Labels"].get("com.docker.compose.service", c["Name"]): c for c in listed}
        return {name: c for name, c in named.items() if name != "public"}

    def healthy(self) -> bool:
        states = [container["State"] for container in self.containers().values()]
        return all(state["Running"] and state["Health"]["Status"] == "healthy" for state in states)

    def cut_the_power(self) -> None:
        """Of the server: every process of it ends at once. What the kernel has not written yet is not lost, as it would be."""
        container = self.container(self.server_name)
        for verb in ("kill", "start"):
            subprocess.run(["docker", verb, container], check=True, capture_output=True)

        def back() -> bool:
            try:
                return self.healthy()
            except (AssertionError, RuntimeError, json.JSONDecodeError):
                return False  # no engine yet

        wait_until("every container is healthy after the power cut", back, 120)

    def bring(self, path: Path) -> str:
        """Copies a file to the client's user; returns where it is."""
        target = f"/home/admin/{path.name}"  # not /tmp, a tmpfs that `docker cp` cannot reach
        container = self.container(self.groups["pypi_clients"][0])
        subprocess.run(["docker", "cp", "--quiet", path, f"{container}:{target}"], check=True)
        return target

    def site(self, *arguments: str, playbook: str = "site.yml", **variables: Any) -> subprocess.CompletedProcess[str]:
        """Runs the playbook as a user would, against the scenario's hosts."""
        with self.started(*arguments, playbook=playbook, **variables) as run:
            output, errors = run.communicate()
        return subprocess.CompletedProcess(run.args, run.returncode, output, errors)

    def interrupted(self, task: str, **variables: Any) -> None:
        """site.yml, with ctrl-C the moment a task begins whose name does so, `ROLE : …`."""
        with self.started(**variables) as run:
            assert run.stdout is not None
            assert any(line.startswith(f"TASK [{task}") for line in run.stdout), f"no such task: {task}"
            os.killpg(run.pid, signal.SIGINT)
            said, _ = run.communicate()
        assert run.returncode != 0 and "PLAY RECAP" not in said, said

    def started(self, *arguments: str, playbook: str = "site.yml", **variables: Any) -> subprocess.Popen[str]:
        """The playbook as it begins to run, in a process group of its own."""
        command = [
            *(
                "env",
                "--default-signal=INT",
            ),  # a shell's job in the background ignores it, and so would all that it starts
            "ansible-playbook",
            f"--inventory={self.directory}/inventory",
            f"--extra-vars=@{ROOT}/.cache/lab/vars.yml",
            f"--extra-vars={json.dumps({'pypi_users_accounts': '{{ accounts_later }}', **variables})}",
            *arguments,
            playbook,
        ]
        # Molecule sets FORCE_COLOR, which wins over NOCOLOR, and nobody could read the numbers of the recap.
        plain = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        environment = os.environ | plain | {"ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def logs(self) -> str:
        """What the services said lately."""
        commands = [
            f"docker compose --project-directory {shlex.quote(self.project)} ps --all",
            f"docker compose --project-directory {shlex.quote(self.project)} logs --tail 50 --no-color",
            "journalctl --unit docker --lines 30 --no-pager",
            "journalctl --unit pypi-tls-renew --lines 60 --no-pager",
        ]
        return "\n".join(f"$ {command}\n{self.server.run(command).stdout}" for command in commands)


def recap(output: str) -> dict[str, dict[str, int]]:
    """Ansible's last lines: counts by host."""
    lines = [line for line in output.partition("PLAY RECAP")[2].splitlines() if " : " in line]
    return {
        line.split(" : ")[0].strip(): {k: int(v) for k, v in (item.split("=") for item in line.split(" : ")[1].split())}
        for line in lines
    }
