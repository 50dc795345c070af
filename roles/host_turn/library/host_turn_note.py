"""The note on a host that says whose run changes it, and a look whether that run is still at work there."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from glob import glob
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
module: host_turn_note
short_description: Take the turn at a host, or give it back
description:
  - What the action C(host_turn) does on the host. The note is locked while it is read and written, so two runs never both get the turn.
options:
  path: {type: path, required: true, description: The note. In a directory that a boot empties, for no run outlives one.}
  run: {type: dict, required: true, description: "Who asks: C(id), the same in all tasks of a run, and what is shown of it."}
  state: {type: str, choices: [begun, ended], required: true, description: Whether to take the turn or to give it back.}
  seconds: {type: float, default: 0, description: How long to wait for a turn that another run has.}
  instead_of: {type: str, default: "", description: C(id) of a run that has ended without giving it back.}
"""

MARK = "PRIVATE_PYPI_TURN"  # what a run starts on the host has it in its environment: __site_turn in playbooks/group_vars/all.yml
PAUSE = 0.2  # seconds; most tasks take longer


def at_work(run: str, processes: str = "/proc") -> bool:
    """Whether a process of that run is on the host at this moment."""
    mark = f"{MARK}={run}".encode()
    for path in glob(f"{processes}/[0-9]*/environ"):
        try:
            with open(path, "rb") as environment:
                if mark in environment.read().split(b"\0"):
                    return True
        except OSError:
            continue  # it has ended meanwhile
    return False


@contextmanager
def opened(path: str) -> Generator[IO[str]]:
    """The note, locked as long as it is open."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        yield note


def read(note: IO[str]) -> dict[str, Any] | None:
    """The run whose turn it is, None for nobody."""
    try:
        holder: dict[str, Any] = json.load(note)
        return holder
    except ValueError:
        return None  # nothing in it, or a half


def write(note: IO[str], text: str) -> None:
    note.seek(0)
    note.truncate()
    note.write(text)


def begin(path: str, run: dict[str, Any], seconds: float, instead_of: str) -> dict[str, Any]:
    """Whether the turn is the run's now; if not, whose it is and whether that one was seen at work."""
    end = time.monotonic() + seconds
    alive = False
    while True:
        with opened(path) as note:
            holder = read(note)
            if holder is None or holder["id"] in (run["id"], instead_of):
                write(note, json.dumps(run))
                return {"mine": True}
        alive = alive or at_work(holder["id"])
        if time.monotonic() >= end:
            return {"mine": False, "holder": holder, "alive": alive}
        time.sleep(PAUSE)


def give_back(path: str, run: dict[str, Any]) -> dict[str, Any]:
    """Whether the turn was the run's, or nobody's, until now; if not, whose it is."""
    with opened(path) as note:
        holder = read(note)
        if holder is not None and holder["id"] != run["id"]:
            return {"mine": False, "holder": holder}
        write(note, "")
        return {"mine": True}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "run": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["begun", "ended"], "required": True},
            "seconds": {"type": "float", "default": 0},
            "instead_of": {"type": "str", "default": ""},
        }
    )
    wanted = module.params
    try:
        if wanted["state"] == "begun":
            answer = begin(wanted["path"], wanted["run"], wanted["seconds"], wanted["instead_of"])
        else:
            answer = give_back(wanted["path"], wanted["run"])
        module.exit_json(changed=False, **answer)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
