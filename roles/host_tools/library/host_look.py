"""Look at many things of a host in one go: as tasks of their own, each would cost a third of a second."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
from base64 import b64encode
from glob import glob
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
module: host_look
short_description: Look at files, commands and ports of a host
description: Changes nothing, also runs in check mode. Whoever reads secrets with it says no_log.
options:
  files:
    description: Paths or patterns of files; returned is the content of those that there are, in base64.
    type: list
    elements: path
  checksums:
    description: Paths of files; returned is the SHA-256 (hex) of those that there are.
    type: list
    elements: path
  commands:
    description: >-
      Name to list of arguments; returned are rc, stdout and stderr, rc 127 where there is no such program and 124 after a minute.
    type: dict
  ports:
    description: TCP ports, each with an address; returned is what keeps a service from using it, and who listens there.
    type: list
    elements: dict
    suboptions:
      address: {type: str, required: true, description: IPv4 or IPv6 address.}
      port: {type: int, required: true, description: Number of the port.}
"""

PATIENCE = 60  # seconds; docker waits for ever for an engine that does not start
LISTENING = "0A"  # of the kernel's states of a TCP socket


def contents(patterns: list[str]) -> dict[str, str]:
    """Path to content in base64."""
    found = {}
    for pattern in patterns:
        for path in glob(pattern, recursive=True):
            if path == pattern or os.path.isfile(path):  # what is named must be one; `**` also finds directories
                with open(path, "rb") as file:
                    found[path] = b64encode(file.read()).decode()
    return found


def checksums(paths: list[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        if os.path.isfile(path):
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
            found[path] = digest.hexdigest()
    return found


def run(command: list[str]) -> dict[str, Any]:
    environment = dict(os.environ, LC_ALL="C.UTF-8")
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, env=environment, stdin=subprocess.DEVNULL, timeout=PATIENCE
        )
    except FileNotFoundError as error:
        return {"rc": 127, "stdout": "", "stderr": str(error)}
    except subprocess.TimeoutExpired as error:
        return {"rc": 124, "stdout": "", "stderr": str(error)}
    output = (text.decode("utf-8", "replace").rstrip("\n") for text in (done.stdout, done.stderr))
    return {"rc": done.returncode, **dict(zip(("stdout", "stderr"), output))}


def bind_error(address: str, port: int) -> str:
    """The kernel's name for why nothing can listen there, such as EADDRINUSE; empty when something can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # connections that ended lately are in nobody's way
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def readable(address: str) -> str:
    """An address of /proc/net/tcp and tcp6, which have it in words of the machine's own byte order."""
    raw = bytes.fromhex(address)
    if sys.byteorder == "little":
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def listeners(port: int) -> list[dict[str, str]]:
    """Who listens at the port: address, and the program as far as it can be told."""
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for row in rows:
            address, _, number = row[1].partition(":")
            if row[3] == LISTENING and int(number, 16) == port:
                inodes[row[9]] = readable(address)
    names = programs(set(inodes)) if inodes else {}
    return [{"address": address, "program": names.get(inode, "")} for inode, address in inodes.items()]


def programs(inodes: set[str]) -> dict[str, str]:
    """Inode of a socket to the name and number of the process that holds it."""
    found = {}
    for link in glob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
            if target.startswith("socket:[") and target[8:-1] in inodes:
                process = link.split("/")[2]
                with open(f"/proc/{process}/comm") as file:
                    found[target[8:-1]] = f"{file.read().strip()} (process {process})"
        except OSError:
            continue  # it has ended meanwhile
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "path", "default": []},
            "checksums": {"type": "list", "elements": "path", "default": []},
            "commands": {"type": "dict", "default": {}},
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"address": {"type": "str", "required": True}, "port": {"type": "int", "required": True}},
            },
        },
        supports_check_mode=True,
    )
    wanted = module.params
    try:
        module.exit_json(
            changed=False,
            files=contents(wanted["files"]),
            checksums=checksums(wanted["checksums"]),
            commands={name: run(command) for name, command in wanted["commands"].items()},
            ports=[
                {**where, "error": bind_error(**where), "listeners": listeners(where["port"])}
                for where in wanted["ports"]
            ],
        )
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
