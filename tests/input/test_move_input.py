"""Bad input of moving in and out is refused before anything is done, by the variable's name and the fix."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "nothing": ("move_in", {}, ('move_in_source is "". Give the address of a simple index',)),
    "everything": (
        "move_in",
        {
            "move_in_source": "https://bob:Wonderland@nexus.example.com/simple/",
            "move_in_username": "bob",
            "move_in_ca_file": "/nowhere/ca.pem",
            "move_in_projects": "acme-*",
            "move_in_stages": "alice/prod",
        },
        (
            "move_in_source is",
            "without a password",
            'move_in_ca_file is "/nowhere/ca.pem", which is no file of this machine.',
            "Of move_in_username and move_in_password only one is set; give both or none.",
            'move_in_projects is no list: give one, such as ["acme-*", "tools"].',
            'move_in_stages is no list: give one, such as ["alice/prod"].',
        ),
    ),
    "not here": (
        "move_in",
        {"move_in_source": "/nowhere", "move_in_here": True},
        ('move_in_source is "/nowhere", which is no directory of this machine.',),
    ),
    "not there": (
        "move_in",
        {"move_in_source": "/nowhere"},
        ('move_in_source is "/nowhere", which is no directory of the server.',),
    ),
    "out": ("move_out", {"move_out_directory": "srv/out"}, ('move_out_directory is "srv/out". Give an absolute path',)),
}


def refused(tmp_path: Path, playbook: str, variables: dict[str, Any]) -> str:
    """What a playbook says of a server that is this machine."""
    here: dict[str, Any] = {"ansible_connection": "local", "ansible_become": False}
    here["ansible_python_interpreter"] = "{{ ansible_playbook_python }}"
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"children": {"pypi_servers": {"hosts": {"server": here}}}}}))
    command = ["ansible-playbook", "-i", str(inventory), "-e", json.dumps(variables), playbook]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    said = " ".join((run.stdout + run.stderr).split()).replace('\\"', '"')
    assert run.returncode != 0 and "changed=0" in said, said
    return said


@pytest.mark.parametrize("name", CASES)
def test_bad_input(tmp_path: Path, name: str) -> None:
    playbook, variables, says = CASES[name]
    said = refused(tmp_path, f"playbooks/{playbook}.yml", variables)
    assert not [each for each in says if each not in said], said
    assert "Wonderland" not in said


def test_no_device_and_no_directory_is_replaced_by_the_users_of_an_old_stack(tmp_path: Path) -> None:
    """As root, Ansible's copy would put a file in the place of /dev/null."""
    role = {"name": "pypi_adopt", "tasks_from": "validate"}
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": role}]}
    playbook = tmp_path / "play.json"
    playbook.write_text(json.dumps([play]))
    for place in ("/dev/null", str(tmp_path), ""):
        said = refused(tmp_path, str(playbook), {"pypi_adopt_users_file": place})
        assert f'pypi_adopt_users_file is "{place}". Give a file of this machine' in said, said
