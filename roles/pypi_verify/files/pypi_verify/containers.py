"""What runs, of which image; and the index, which is read where it is readable: in pypiserver's container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from .findings import SITE, Config, Finding, said


def containers(config: Config) -> Iterator[Finding]:
    """Each is there, healthy, and of the image that its name stands for."""
    running = _running()
    for service, image in config.containers.items():
        if not (container := running.get(service)):
            yield Finding("container", f"{service} is not there", SITE)
            continue
        state = container["State"]
        health = state.get("Health", {}).get("Status", "healthy")
        logs = f"docker logs --tail 50 {container['Name'].lstrip('/')}"
        if state["Status"] != "running" or health not in ("healthy", "starting"):
            memory = ", for want of memory" if state.get("OOMKilled") else ""
            yield Finding("container", f"{service} is {state['Status']}{memory}, health: {health}", f"See why: {logs}")
        if container["Config"]["Image"] != image:
            yield Finding("image", f"{service} runs {container['Config']['Image']} instead of {image}", SITE)
        elif container["Image"] != _identity(image):
            text = f"{service} runs another image than the one that {image} stands for now"
            yield Finding("image", text, "ansible-playbook playbooks/upgrade.yml takes it, or pin it by its digest")


def versions() -> dict[str, str]:
    """Of the engine, its plugin, and the images by service."""
    return {
        "docker": said("docker", "version", "--format", "{{.Server.Version}}"),
        "compose": said("docker", "compose", "version", "--short"),
        **{name: f"{each['Config']['Image']} {each['Image']}" for name, each in sorted(_running().items())},
    }


def index(config: Config, counts: dict[str, int]) -> Iterator[Finding]:
    """What pypiserver's container finds in the index; its progress goes to where errors go."""
    command = ["docker", "compose", f"--project-directory={config.directory}", "exec", "-T", "pypiserver"]
    with subprocess.Popen(
        [*command, "python3", "-m", "static_index", "verify", "--json"], stdout=subprocess.PIPE
    ) as run:
        for line in run.stdout or ():
            try:
                found = json.loads(line)
                if "kind" in found:
                    yield Finding(**found)
                else:
                    counts.update(found)
            except (ValueError, TypeError):
                yield Finding("index", f"it was not read to its end: {line.decode(errors='replace').strip()}", SITE)
    if not counts:
        yield Finding("index", "it was not read to its end; above is why", "See that pypiserver runs, then once more")


def _running() -> dict[str, Any]:
    """`docker inspect` by PROJECT/SERVICE."""
    listed = said("docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project").split()
    found = json.loads(said("docker", "inspect", *listed)) if listed else []
    labelled = ((container["Config"]["Labels"], container) for container in found)
    return {f"{x['com.docker.compose.project']}/{x['com.docker.compose.service']}": y for x, y in labelled}


def _identity(image: str) -> str:
    try:
        return said("docker", "image", "inspect", "--format", "{{.Id}}", image)
    except OSError:
        return "gone"
