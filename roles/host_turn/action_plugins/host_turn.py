"""One run at a time changes a host: the part on the controller, which knows whose run it is. docs/decisions/0015."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.plugins.action import ActionBase  # type: ignore[import-untyped]
from ansible.utils.display import Display  # type: ignore[import-untyped]

DOCUMENTATION = r"""
action: host_turn
short_description: Take the turn at a host, or give it back
description:
  - Changes nothing in check mode. The fact C(host_turn) is the run's mark, which has to be in the environment of its further tasks.
options:
  state: {type: str, choices: [begun, ended], required: true, description: Whether to take the turn or to give it back.}
  path: {type: path, required: true, description: The note on the host.}
  patience: {type: int, default: 0, description: Seconds to wait for another run.}
"""

QUIET = 120.0  # seconds; longer than what a run does on the controller between two tasks on the host
LOOK = 5.0  # seconds on the host at a time

Run = dict[str, Any]


def machine() -> str:
    """Where process numbers mean the same: this boot and its namespace, or on other systems than Linux the machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():x}"


def myself(pid: int, play: str) -> Run:
    """This run, of ansible-playbook's process; `id` is the same in all of its tasks."""
    where = machine()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())  # a container's, without a name
    return {
        "id": hashlib.sha256(f"{where} {pid}".encode()).hexdigest()[:16],
        "machine": where,
        "pid": pid,
        "who": f"{user}@{socket.gethostname()}",
        "play": play,
        "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
    }


def described(run: Run) -> str:
    return f"{run['who']} ({run['play']}, process {run['pid']}, since {run['since']})"


def gone(run: Run, me: Run) -> bool:
    """Whether that run's process was one of this machine, and is no more."""
    if run["machine"] != me["machine"]:
        return False
    try:
        os.kill(run["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's
    return False


def take(
    ask: Callable[[float, str], Mapping[str, Any]],
    me: Run,
    patience: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Run | None:
    """None when the turn is ours; the run that has it, when that is at work for longer than we wait.

    `ask` takes seconds and the id of a run whose turn may be taken, and is answered as by host_turn_note.
    """
    start = quiet_since = clock()
    seconds, seen, instead_of = 0.0, "", ""
    while True:
        answer = ask(seconds, instead_of)
        if answer["mine"]:
            return None
        holder: Run = answer["holder"]
        now = clock()
        if holder["id"] != seen:
            say(f"waits for {described(holder)}")
        if answer["alive"] or holder["id"] != seen:
            quiet_since = now
        seen, instead_of, seconds = holder["id"], "", LOOK
        # What a killed run began on the host goes on there for a while.
        if (gone(holder, me) and not answer["alive"]) or now - quiet_since >= QUIET:
            say(f"goes on: nothing is left of {described(holder)}")
            instead_of = holder["id"]
        elif now - start >= patience:
            return holder


class ActionModule(ActionBase):  # type: ignore[misc]
    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return {**result, "skipped": True, "msg": "A dry run changes nothing, so it needs no turn."}
        variables = task_vars or {}
        host, path = variables["inventory_hostname"], self._task.args["path"]
        me = myself(
            os.getppid(), str(variables.get("ansible_play_name", ""))
        )  # a task's process is a child of the run's

        def ask(state: str, **arguments: Any) -> dict[str, Any]:
            answer: dict[str, Any] = self._execute_module(
                module_name="host_turn_note",
                module_args={"path": path, "run": me, "state": state, **arguments},
                task_vars=task_vars,
            )
            if "mine" not in answer:
                raise RuntimeError(answer.get("msg", "The host did not answer."))
            return answer

        def fail(message: str) -> dict[str, Any]:
            return {**result, "failed": True, "msg": message}

        try:
            if self._task.args["state"] == "ended":
                answer = ask("ended")
                if answer["mine"]:
                    return {**result, "changed": False}
                return fail(
                    f"Nothing of this run was seen on {host} for {QUIET:.0f} s, and {described(answer['holder'])} took its turn. "
                    "Run this again, for the two may be mixed."
                )
            holder = take(
                lambda seconds, instead_of: ask("begun", seconds=seconds, instead_of=instead_of),
                me,
                float(self._task.args.get("patience", 0)),
                lambda text: Display().display(f"{host} {text}"),
            )
        except RuntimeError as error:
            return fail(str(error))
        if holder:
            return fail(
                f"{host} is being changed by {described(holder)}. Run this again when that has ended; nothing has been changed by this run. "
                f"Where it will never end, end its process on its controller, or remove {path} on {host}."
            )
        return {**result, "changed": False, "ansible_facts": {"host_turn": me["id"]}}
