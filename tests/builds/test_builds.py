"""The bundle of playbooks/client_bundle.yml, and the image builds that use it, as docs/image-builds.md and the README have them.

BuildKit really builds them, and what it leaves behind is taken apart in search of the password. What the documents warn of is built as
well: there the same search has to find it.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import secrets
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from index.artifacts import tar, wheel
from index.serve import certified, reading, serving
from system.secrets import encodings

from .apart import found_in

ROOT = Path(__file__).parents[2]
LAB = ROOT / ".cache/lab"
DOCUMENT = (ROOT / "docs/image-builds.md").read_text()
PASSWORD = secrets.token_hex(16)
NEEDLES = encodings(PASSWORD)
SECRETS = {"netrc": "netrc", "pip.conf": "pip.conf", "uv.toml": "uv.toml", "ca": "ca.pem"}
PROJECT = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["app"]\n'
INSTALLED = {"pip": "python -c 'import app'", "uv": ".venv/bin/python -c 'import app'", "none": "true"}
GOOD = ("pip", "uv", "readme", "compose", "dev-container")


def examples(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


PIP, UV = examples(DOCUMENT, "dockerfile")
(README,) = examples((ROOT / "README.md").read_text(), "dockerfile")
(COMPOSE,) = examples(DOCUMENT, "yaml")
(DEV_CONTAINER,) = map(json.loads, examples(DOCUMENT, "json"))
PREPARE = "FROM python:3.13\nCOPY requirements.txt ca.pem ./\n"
ARGUMENT = PREPARE + "ARG PASSWORD\nRUN pip install --cert ca.pem --index-url {url} -r requirements.txt\n"
COPIED = (
    "COPY netrc /root/.netrc\nRUN pip install --cert ca.pem --index-url {url} -r requirements.txt && rm /root/.netrc\n"
)
STAGES = "FROM python:3.13\nCOPY --from=0 /requirements.txt .\n"


@dataclass
class Found:
    """Where the password is in an image, by what whoever has the image looks at."""

    history: list[str]
    configuration: list[str]
    layers: list[str]


NOWHERE = Found([], [], [])


@dataclass
class Group:
    """Images by name of the recipe, and the files on the builder's disk with the password."""

    images: dict[str, Found]
    cache: list[str]


@dataclass
class Builder:
    base: Path
    url: str
    start: float = field(default_factory=time.time)
    repository: str = field(default_factory=lambda: f"private-pypi-lab/build-{secrets.token_hex(4)}")

    def playbook(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """With an index that is where ours is, and its CA."""
        accounts = [{"name": "alice", "password": PASSWORD}, {"name": "bob", "password_hash": "$2b$04$"}]
        inventory: dict[str, Any] = {"pypi_servers": {"hosts": {"index.invalid": {"pypi_users_accounts": accounts}}}}
        (self.base / "hosts.yml").write_text(yaml.safe_dump(inventory))
        extra = {"pypi_client_index_url": self.url, "pypi_client_ca_file": str(self.base / "ca.pem"), **variables}
        options = [
            word
            for name, value in extra.items()
            for word in ("-e", yaml.safe_dump({name: value}, default_flow_style=True))
        ]
        command = [
            "ansible-playbook",
            "-vvv",
            "--diff",
            "-i",
            str(self.base / "hosts.yml"),
            "playbooks/client_bundle.yml",
            *options,
        ]
        environment = os.environ | {"ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    @property
    def bundle(self) -> Path:
        return self.base / "bundle"

    def docker(self, *command: str, cwd: Path | None = None, **more: Any) -> str:
        """With the lab's plugins, where this machine has none."""
        own = {"DOCKER_CONFIG": str(LAB / "docker")} if (LAB / "docker").is_dir() else {}
        environment = os.environ | {"DOCKER_BUILDKIT": "1"} | own
        done = subprocess.run(
            ["docker", *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False, **more
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def context(self, name: str, dockerfile: str, *files: str) -> Path:
        """A project with its Dockerfile, its uv.lock as its author made it, and files of the bundle."""
        directory = self.base / name
        directory.mkdir()
        (directory / "Dockerfile").write_text(here(dockerfile))
        (directory / "requirements.txt").write_text("app\n")
        (directory / "pyproject.toml").write_text(PROJECT)
        login = {"NETRC": str(self.bundle / "netrc"), "SSL_CERT_FILE": str(self.bundle / "ca.pem")}
        lock = ["uv", "lock", "--quiet", "--no-cache", "--config-file", str(self.bundle / "uv.toml")]
        subprocess.run(lock, cwd=directory, env=os.environ | login, check=True)
        for file in files:
            (directory / file).write_bytes((self.bundle / file).read_bytes())
        return directory

    def tag(self, name: str) -> str:
        return f"{self.repository}:{name}"

    def build(self, context: Path, tool: str, *options: str) -> None:
        """Without the cache, since secrets are no part of its keys; the index is on this machine. What it installed is there."""
        tag = self.tag(context.name)
        self.docker("build", "--no-cache", "--network", "host", "--tag", tag, *options, ".", cwd=context)
        self.docker("run", "--rm", tag, "sh", "-c", INSTALLED[tool])

    def apart(self, *names: str) -> dict[str, Found]:
        """Images, saved together: layers that they share are looked at once."""
        saved, needles = self.base / "saved", [needle.encode() for needle in NEEDLES]
        saved.mkdir()
        self.docker("save", "--output", f"{saved}.tar", *map(self.tag, names))
        subprocess.run(["tar", "-xf", f"{saved}.tar", "-C", saved], check=True)
        manifest = {image["RepoTags"][0]: image for image in json.loads((saved / "manifest.json").read_text())}
        known: dict[str, list[str]] = {}
        images = {}
        for name in names:
            image = manifest[self.tag(name)]
            configuration = (saved / image["Config"]).read_bytes()
            digests = json.loads(configuration)["rootfs"]["diff_ids"]
            for digest, path in zip(digests, image["Layers"], strict=True):
                if digest not in known:
                    known[digest] = found_in((saved / path).read_bytes(), needles)
            images[name] = Found(
                found_in(self.docker("history", "--no-trunc", self.tag(name)).encode(), needles, "history"),
                found_in(configuration, needles, "configuration"),
                [found for digest in digests for found in known[digest]],
            )
        for path in (f"{saved}.tar", saved):
            subprocess.run(["rm", "-r", path], check=True)
        return images

    def cache(self) -> list[str]:
        """Files on the engine's disk that have it: the build cache, its records, and all else that is not a volume."""
        root = self.docker("info", "--format", "{{.DockerRootDir}}").strip()
        places = [f"/host{root}", "/host/var/lib/containerd"]
        asked = {"directories": places, "since": self.start, "needles": sorted(NEEDLES)}
        volumes = ["--volume=/:/host:ro", f"--volume={Path(__file__).with_name('apart.py')}:/apart.py:ro"]
        run = ["run", "--rm", "--interactive", "--network=none", *volumes, stand_in(), "python", "/apart.py"]
        found = self.docker(*run, input=json.dumps(asked))
        records = self.docker("buildx", "du", "--verbose").encode()
        return [*found.splitlines(), *found_in(records, [needle.encode() for needle in NEEDLES], "du")]


def stand_in() -> str:
    """What the lab has for the images of the examples."""
    return str(yaml.safe_load((LAB / "vars.yml").read_text())["lab_python"])


def here(text: str) -> str:
    return re.sub(r"python:3\.13|ghcr\.io/astral-sh/uv:[0-9.]+", stand_in(), text)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    base = tmp_path_factory.mktemp("builds")
    tls = certified(base)
    with (
        serving(base / "index") as server,
        reading(server.store, tls, f"alice:{PASSWORD}", server.url) as (url, _),
    ):
        assert server.upload(wheel("app", "1.0")).ok
        made = Builder(base, url)
        yield made
        if tags := made.docker("image", "ls", "--quiet", made.repository).split():
            made.docker("image", "rm", "--force", *tags)


@pytest.fixture(scope="module")
def bundle(builder: Builder) -> Path:
    login = {"bundle_directory": str(builder.bundle), "bundle_username": "alice"}
    first = builder.playbook(**login)
    assert first.returncode == 0, first.stdout + first.stderr
    assert PASSWORD not in first.stdout + first.stderr
    again = builder.playbook(**login)
    assert "changed=0" in again.stdout, again.stdout
    return builder.bundle


def test_it_is_its_owner_s_alone(bundle: Path) -> None:
    assert bundle.stat().st_mode & 0o777 == 0o700
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in bundle.iterdir()} == dict.fromkeys(
        SECRETS.values(), "0o600"
    )
    assert {file.name for file in bundle.iterdir() if PASSWORD in file.read_text()} == {"netrc"}


def test_the_search_opens_what_is_packed() -> None:
    login = b64encode(f"alice:{PASSWORD}".encode())
    packed = gzip.compress(tar({"wheel": wheel(content=login)[1]}))
    assert found_in(packed, [needle.encode() for needle in NEEDLES]) == ["/gzip/wheel/acme_tool/__init__.py"]


def build_by_compose(builder: Builder) -> None:
    context = builder.context("compose", PIP)
    (context / "compose.yaml").write_text(COMPOSE.replace("/dev/shm/pypi", str(builder.bundle)))
    ours = {"image": builder.tag("compose"), "build": {"network": "host"}, "network_mode": "none"}
    (context / "compose.override.yaml").write_text(yaml.safe_dump({"services": {"app": ours}}))
    builder.docker("compose", "build", "--no-cache", cwd=context)
    builder.docker(
        "compose", "run", "--rm", "app", "sh", "-c", f"{INSTALLED['pip']} && ! ls /run/secrets/*", cwd=context
    )


def run_a_dev_container(builder: Builder) -> None:
    """Docker stands for the tools that read devcontainer.json: @devcontainers/cli 0.89 gives it these options. An image is made of what is left."""
    home = builder.base / "home"
    (home / ".config").mkdir(parents=True)
    (home / ".config/private-pypi").symlink_to(builder.bundle)
    context = builder.context("dev-container", "")
    options = [f"--mount={each.replace('${localEnv:HOME}', str(home))}" for each in DEV_CONTAINER["mounts"]]
    options += [f"--env={name}={value}" for name, value in DEV_CONTAINER["containerEnv"].items()]
    options += ["--network=host", f"--volume={context}:/workspace", "--workdir=/workspace"]
    container = builder.docker("run", "--detach", *options, here(DEV_CONTAINER["image"]), "sleep", "infinity").strip()
    try:
        uv = "/uv sync --no-cache --project ."
        for command in (DEV_CONTAINER["postCreateCommand"], INSTALLED["pip"], uv, INSTALLED["uv"]):
            builder.docker("exec", container, "sh", "-c", command)
        builder.docker("commit", container, builder.tag("dev-container"))
    finally:
        builder.docker("rm", "--force", "--volumes", container)


@pytest.fixture(scope="module")
def good(builder: Builder, bundle: Path) -> Group:
    """What the documents say."""
    given = [f"--secret=id={name},src={bundle / file}" for name, file in SECRETS.items()]
    for name, dockerfile, tool in (("pip", PIP, "pip"), ("uv", UV, "uv"), ("readme", README, "pip")):
        builder.build(builder.context(name, dockerfile), tool, *given)
    build_by_compose(builder)
    run_a_dev_container(builder)
    return Group(builder.apart(*GOOD), builder.cache())


@pytest.fixture(scope="module")
def bad(builder: Builder, good: Group) -> Group:
    """What the documents warn of, built afterwards: records of the engine's are searched whole."""
    login = builder.url.replace("//", "//alice:${PASSWORD}@")
    argument = builder.context("argument", ARGUMENT.format(url=login), "ca.pem")
    builder.build(argument, "pip", "--build-arg", f"PASSWORD={PASSWORD}")
    copied = PREPARE + COPIED.format(url=builder.url)
    builder.build(builder.context("copied", copied, "netrc", "ca.pem"), "pip")
    builder.build(builder.context("stages", copied + STAGES, "netrc", "ca.pem"), "none")
    return Group(builder.apart("argument", "copied", "stages"), builder.cache())


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_left_in_an_image(good: Group, name: str) -> None:
    assert good.images[name] == NOWHERE


def test_nothing_is_left_in_the_build_cache(good: Group) -> None:
    assert good.cache == []


def test_an_argument_is_found(bad: Group) -> None:
    found = bad.images["argument"]
    assert found.history and found.configuration and not found.layers


def test_a_copy_is_found(bad: Group) -> None:
    found = bad.images["copied"]
    assert found.layers and not found.history


def test_a_copy_in_an_earlier_stage_is_found_in_the_build_cache(bad: Group) -> None:
    assert bad.images["stages"] == NOWHERE
    assert [found for found in bad.cache if found.endswith("/root/.netrc")]


def test_what_is_missing_is_said(builder: Builder) -> None:
    said = builder.playbook(bundle_username="bob").stdout
    assert "bundle_directory is missing" in said and "bundle_password is missing" in said
    assert "bundle_username is missing" in builder.playbook().stdout
