"""Filters of the role pypi_stack: what runs on a host, and what a change of a variable would take away from it."""

from __future__ import annotations

import ipaddress
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

Variables = Mapping[str, str]  # by name


@dataclass(frozen=True)
class Place:
    """Something that a container has from the host, and that a variable says where to find."""

    what: str
    mount: str


# Containers know what they have; nobody needs to keep it in another file.
PLACES = {
    "pypi_stack_packages": Place("the packages", "/data/packages"),
    "pypi_stack_users_directory": Place("the users' hashes", "/users"),
    "pypi_stack_tls_directory": Place("the certificate and its key", "/tls"),
    "pypi_stack_directory": Place("the index", ""),
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
IMAGES = {"nginx": "pypi_stack_nginx_image", "pypiserver": "pypi_stack_pypiserver_image"}


def by_content(files: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The same files, each one directory deeper in one that is named by what is in them."""
    digest = sha256("".join(file["content"] for file in files).encode()).hexdigest()[:12]
    return [
        {**file, "name": str(path.with_name(digest) / path.name)} for file in files for path in [Path(file["name"])]
    ]


def relative(contents: Mapping[str, str], directory: str) -> list[dict[str, str]]:
    """What host_look read, path to base64, as host_files takes it; nothing where no Compose file is."""
    texts = {
        path[len(directory) + 1 :]: b64decode(content).decode(errors="replace") for path, content in contents.items()
    }
    return [{"name": name, "content": text} for name, text in texts.items()] if "compose.yml" in texts else []


def is_address(text: object) -> bool:
    """Whether Docker can publish on it: an IPv4 or IPv6 address without a zone."""
    try:
        return "%" not in str(ipaddress.ip_address(str(text)))
    except ValueError:
        return False


def published(address: str, port: int | str) -> str:
    """The host's part of a published port as Compose writes it; without an address Docker takes IPv4 and IPv6."""
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" if host else str(port)


def bindings(address: str, ports: Iterable[int | str]) -> list[dict[str, Any]]:
    """The addresses and ports that Docker will listen at."""
    return [
        {"address": each, "port": int(port)} for port in ports for each in ([address] if address else ["0.0.0.0", "::"])
    ]


@dataclass
class Present:
    """What runs, or ran until somebody stopped it."""

    places: dict[str, str] = field(default_factory=dict)  # variable → path or name of a volume
    images: dict[str, tuple[str, str]] = field(default_factory=dict)  # variable → name, identity
    ports: set[tuple[str, int]] = field(default_factory=set)

    @classmethod
    def of_containers(cls, containers: Sequence[Mapping[str, Any]]) -> Present:
        present = cls()
        for container in containers:
            labels = container["Config"]["Labels"]
            present.places["pypi_stack_directory"] = labels["com.docker.compose.project.working_dir"]
            mounts = {mount["Destination"]: mount.get("Name") or mount["Source"] for mount in container["Mounts"]}
            present._add_places(mounts)
            if (service := labels["com.docker.compose.service"]) in IMAGES:
                present.images[IMAGES[service]] = (container["Config"]["Image"], container["Image"])
            for bound in (container["NetworkSettings"]["Ports"] or {}).values():
                present.ports |= {(one["HostIp"], int(one["HostPort"])) for one in bound or []}
        return present

    @classmethod
    def of_compose(cls, text: str) -> Present:
        """From the file alone, after a `docker compose down`."""
        present = cls()
        for service in yaml.safe_load(text)["services"].values():
            present._add_places({where: source for source, where, *_ in (v.split(":") for v in service["volumes"])})
        return present

    def _add_places(self, mounts: Mapping[str, str]) -> None:
        self.places |= {name: mounts[place.mount] for name, place in PLACES.items() if place.mount in mounts}


def _present(seen: Mapping[str, Any], directory: str) -> Present:
    """From what host_look returned."""
    if containers := json.loads(seen["commands"]["containers"]["stdout"] or "[]"):
        return Present.of_containers(containers)
    compose = seen["files"].get(f"{directory}/compose.yml")
    return Present.of_compose(b64decode(compose).decode()) if compose else Present()


def compose_problem(seen: Mapping[str, Any], directory: str) -> str:
    """Why it cannot be known what the host has; empty when it can."""
    try:
        _present(seen, directory)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"{directory}/compose.yml does not say where the packages are ({' '.join(str(error).split())})"
    return ""


def left(seen: Mapping[str, Any], wanted: Variables) -> dict[str, str]:
    """What the variables would leave: variable → path or name of a volume."""
    places = _present(seen, wanted["pypi_stack_directory"]).places
    moved = {name: place for name, place in places.items() if place != wanted[name]}
    if old := moved.get("pypi_stack_directory"):  # what lies in it goes along with it
        return {name: place for name, place in moved.items() if not place.startswith(f"{old}/")}
    return moved


def move_problems(filled: Variables, wanted: Variables) -> list[str]:
    """What would be out of sight, with the commands that move it. `filled` has the places that are left and hold something."""
    directory = filled.get("pypi_stack_directory", wanted["pypi_stack_directory"])
    return [
        f"{name} is {wanted[name]}, but this host has {PLACES[name].what} in {place}, which would be lost from sight."
        f" Set it back to that, or move everything, as root: docker compose --project-directory {directory} down && "
        + _move(place, wanted[name])
        for name, place in filled.items()
    ]


def _move(old: str, new: str) -> str:
    """Shell that moves all that is in a directory or volume."""

    def path(place: str) -> str:
        return place if place.startswith("/") else f"$(docker volume inspect --format '{{{{.Mountpoint}}}}' {place})"

    make = f"mkdir -p {new}" if new.startswith("/") else f"docker volume create {new}"
    return f"{make} && find {path(old)} -mindepth 1 -maxdepth 1 -exec mv -t {path(new)} {{}} +"


def port_problems(seen: Mapping[str, Any], wanted: Variables) -> list[str]:
    """Ports that something else uses, and an address that the host does not have."""
    own = _present(seen, wanted["pypi_stack_directory"]).ports
    found = []
    for port in seen["ports"]:
        address, number, error = port["address"], port["port"], port["error"]
        others = [
            w for w in port["listeners"] if _in_the_way(w["address"], address) and (w["address"], number) not in own
        ]
        if error == "EADDRINUSE" and others:
            found.append(
                f"port {number} is to be the index's, but {others[0]['program'] or 'something'} listens at"
                f" {published(others[0]['address'], number)}. Stop that, or set pypi_stack_http_port, pypi_stack_https_port"
                " or pypi_stack_listen_address to what is free"
            )
        elif error not in ("", "EADDRINUSE") and wanted["pypi_stack_listen_address"]:
            found.append(
                f"pypi_stack_listen_address is {address}, which this host does not have ({error})."
                " Give one of its addresses, or leave it empty for all"
            )
    return list(dict.fromkeys(found))


def running(seen: Mapping[str, Any], directory: str) -> dict[str, str]:
    """Names of the images that run, or ran until somebody stopped them, and their identities."""
    return dict(_present(seen, directory).images.values())


def newer(offered: Sequence[Mapping[str, Any]], present: str, wanted: Variables) -> list[str]:
    """What registries have for the names wanted, unless it runs. From `imagetools inspect`, and `docker image inspect` of what runs."""
    here = {digest.partition("@")[2] for image in json.loads(present) for digest in image["RepoDigests"] or []}
    found = {wanted[each["__pypi_stack_image"]]: _DIGEST.findall(each["stdout"]) for each in offered}
    return [f"{name} is now {digests[0]}" for name, digests in found.items() if digests and digests[0] not in here]


def candidate(compose: str, project: str, wanted: Variables) -> str:
    """A Compose file, as JSON, with the images wanted: of another project, without its ports, and gone after a failure."""
    document = json.loads(compose)
    document["name"] = project
    for name, service in document["services"].items():
        service.pop("ports", None)
        service["restart"] = "no"
        service["healthcheck"]["interval"] = "2s"  # somebody waits for the first
        service["image"] = wanted[IMAGES.get(name, "pypi_stack_pypiserver_image")]
    for network in document["networks"].values():
        if not network.get("external"):
            network.pop("name", None)
    return json.dumps(document)


def inside(text: str) -> str:
    """The address that is in the network: of a line with addresses, and one with the network."""
    addresses, network = text.splitlines()
    return next(each for each in addresses.split() if ipaddress.ip_address(each) in ipaddress.ip_network(network))


def _in_the_way(listener: str, wanted: str) -> bool:
    """A listener at :: may take IPv4 as well."""
    same_kind = (":" in listener) == (":" in wanted)
    return listener == "::" or same_kind and (listener == wanted or bool({listener, wanted} & {"0.0.0.0", "::"}))


def image_problems(seen: Mapping[str, Any], wanted: Variables) -> list[str]:
    """Images that got another content under the same name since they were started."""
    found = []
    for variable, (name, identity) in _present(seen, wanted["pypi_stack_directory"]).images.items():
        now = seen["commands"][variable]["stdout"]
        if name == wanted[variable] and now and now != identity:
            found.append(
                f"{variable} is {name}, but that name stands for another image ({now[:19]}…) than the one that runs ({identity[:19]}…)."
                " Say with -e pypi_stack_pull=true that you want the newest, or pin one as NAME:TAG@sha256:…"
            )
    return found


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        functions = (
            by_content,
            relative,
            is_address,
            published,
            bindings,
            compose_problem,
            left,
            move_problems,
            port_problems,
            image_problems,
            running,
            newer,
            candidate,
            inside,
        )
        return {f"pypi_stack_{function.__name__}": function for function in functions}
