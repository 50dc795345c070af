"""One run at a time: who gets the turn, who waits, and whose turn is taken because nothing is left of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from host_turn import LOOK, QUIET, described, gone, machine, myself, take
from host_turn_note import MARK, at_work, begin, give_back, opened, write

ME = myself(os.getpid(), "Deploy the index")
OTHER = {**ME, "id": "other", "machine": "elsewhere", "who": "bob@laptop"}


@pytest.fixture
def note(tmp_path: Path) -> str:
    return str(tmp_path / "note")


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_first_gets_the_turn_and_the_second_when_it_is_given_back(note: str) -> None:
    assert begin(note, ME, 0, "") == {"mine": True}
    assert begin(note, ME, 0, "") == {"mine": True}, "a later play of the same run"
    assert begin(note, OTHER, 0, "") == {"mine": False, "holder": ME, "alive": False}
    assert give_back(note, OTHER) == {"mine": False, "holder": ME}
    assert give_back(note, ME) == {"mine": True}
    assert begin(note, OTHER, 0, "") == {"mine": True}


def test_a_turn_is_taken_from_the_one_that_is_named_only(note: str) -> None:
    begin(note, ME, 0, "")
    assert not begin(note, OTHER, 0, "a third")["mine"]
    assert begin(note, OTHER, 0, ME["id"])["mine"]
    assert give_back(note, ME) == {"mine": False, "holder": OTHER}


def test_half_a_note_is_nobodys(note: str) -> None:
    Path(note).write_text('{"id": "oth')
    assert begin(note, ME, 0, "")["mine"]
    assert json.loads(Path(note).read_text()) == ME


def test_who_asks_while_another_one_writes_finds_what_that_wrote(note: str) -> None:
    with ThreadPoolExecutor() as threads:
        with opened(note) as file:
            asked = threads.submit(begin, note, OTHER, 0, "")
            wait([asked], timeout=0.5)
            write(file, json.dumps(ME))
        assert not asked.result()["mine"]


def test_a_run_is_seen_by_what_it_started(note: str) -> None:
    begin(note, OTHER, 0, "")
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: "other"}) as process:
        try:
            assert begin(note, ME, 0, "")["alive"]
            assert not at_work("othe") and not at_work("another")
        finally:
            process.kill()
    assert not at_work("other")


class Host:
    """Answers as host_turn_note does, from a list of (holder, alive); each look takes its time."""

    def __init__(self, *answers: tuple[dict[str, Any] | None, bool], then: tuple[dict[str, Any] | None, bool]) -> None:
        self.answers: Iterator[tuple[dict[str, Any] | None, bool]] = iter(answers)
        self.then = then
        self.now = 0.0
        self.said: list[str] = []

    def ask(self, seconds: float, instead_of: str) -> dict[str, Any]:
        self.now += seconds
        holder, alive = next(self.answers, self.then)
        if holder is None or holder["id"] == instead_of:
            return {"mine": True}
        return {"mine": False, "holder": holder, "alive": alive}

    def take(self, patience: float) -> dict[str, Any] | None:
        return take(self.ask, ME, patience, self.said.append, lambda: self.now)


def test_a_free_turn_is_taken_without_a_word() -> None:
    host = Host(then=(None, False))
    assert host.take(0) is None and host.now == 0 and host.said == []


def test_who_waits_says_once_for_whom() -> None:
    host = Host((OTHER, True), (OTHER, True), (OTHER, False), then=(None, False))
    assert host.take(900) is None
    assert host.said == [f"waits for {described(OTHER)}"] and "bob@laptop" in host.said[0]


def test_patience_ends() -> None:
    host = Host(then=(OTHER, True))
    assert host.take(60) == OTHER and 60 <= host.now < 60 + 2 * LOOK
    assert Host(then=(OTHER, True)).take(0) == OTHER


def test_a_run_that_is_seen_now_and_then_keeps_its_turn() -> None:
    rarely = int(QUIET / LOOK) - 1
    host = Host(*([(OTHER, False)] * rarely + [(OTHER, True)]) * 5, then=(OTHER, True))
    assert host.take(10 * QUIET) == OTHER


def test_a_run_of_elsewhere_that_is_not_seen_any_more_loses_it() -> None:
    host = Host((OTHER, True), then=(OTHER, False))
    assert host.take(900) is None and QUIET <= host.now < QUIET + 3 * LOOK
    assert host.said[-1] == f"goes on: nothing is left of {described(OTHER)}"


def test_the_quiet_of_one_is_not_that_of_the_next() -> None:
    half = int(QUIET / LOOK / 2) + 2
    third = {**OTHER, "id": "third"}
    host = Host(*[(OTHER, False)] * half, *[(third, False)] * half, then=(None, False))
    assert host.take(900) is None
    assert not any("nothing is left" in text for text in host.said) and len(host.said) == 2


def test_a_dead_run_of_this_machine_loses_it_at_once() -> None:
    dead = {**ME, "id": "dead", "pid": dead_process()}
    host = Host(then=(dead, False))
    assert host.take(0) is None and host.now <= LOOK


def test_what_a_dead_run_left_at_work_is_waited_for() -> None:
    dead = {**ME, "id": "dead", "pid": dead_process()}
    host = Host(*[(dead, True)] * 3, then=(dead, False))
    assert host.take(900) is None and 3 * LOOK <= host.now <= 4 * LOOK


def test_gone_is_what_this_machine_can_say() -> None:
    dead = dead_process()
    assert gone({**ME, "pid": dead}, ME) and not gone(ME, ME)
    assert not gone({**OTHER, "pid": dead}, ME), "the same number of another machine says nothing"


def test_a_run_has_one_id_in_all_of_its_tasks_and_no_other_run_has_it() -> None:
    assert myself(4, "a")["id"] == myself(4, "b")["id"] != myself(5, "a")["id"]
    assert ME["machine"] == machine() != "" and ME["id"].isalnum()
