"""One run at a time changes the server: docs/decisions/0015."""

from __future__ import annotations

import json
import os
import shlex
from concurrent.futures import ThreadPoolExecutor

import pytest
from host_turn import described, myself

from .lab import Lab, recap, wait_until

pytestmark = pytest.mark.scenario("default")

NOTE = "/run/private-pypi-turn"
ID = "[0-9a-f]\\{16\\}"
USERS = "playbooks/users.yml"


def test_a_run_is_refused_while_another_one_is_at_work_and_not_once_that_is_dead(lab: Lab) -> None:
    """The other one is this process; its death is played by a number that no process has."""
    other = myself(os.getpid(), "A test")
    lab.server.check_output(f"echo {shlex.quote(json.dumps(other))} >{NOTE}")
    refused = lab.site(playbook=USERS, host_turn_patience=0)
    assert refused.returncode != 0 and f"being changed by {described(other)}" in " ".join(refused.stdout.split())
    assert json.loads(lab.server.check_output(f"cat {NOTE}")) == other
    dry = lab.site("--check", playbook=USERS, host_turn_patience=0)
    assert dry.returncode == 0, dry.stdout

    lab.server.check_output(f"echo {shlex.quote(json.dumps({**other, 'pid': 2**22 + 1}))} >{NOTE}")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(lab.site, playbook=USERS, host_turn_patience=0)
        # By its mark a run of another controller would be known to be at work.
        mark = f"grep -lza '^PRIVATE_PYPI_TURN={ID}$' /proc/[0-9]*/environ"
        wait_until("what the run starts on the server is seen there", lambda: lab.server.run(mark).rc == 0, 60)
        run = running.result()
    assert run.returncode == 0 and "nothing is left of" in run.stdout, run.stdout
    assert recap(run.stdout)[lab.server_name]["changed"] == 0
    assert lab.server.check_output(f"cat {NOTE}") == ""
