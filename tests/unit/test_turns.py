"""Turns go round: between sources, and between the lanes of one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from turns import TooManyAttempts, Turns


def order(turns: Turns, asked: str, gone: Callable[[str], bool] = lambda _: False) -> list[str]:
    """Who is served, in order, of those who came one after the other while somebody else was: "A1x" is x, in lane 1 of A."""
    served: list[str] = []
    entered, hold = threading.Event(), threading.Event()

    def first() -> None:
        with turns.turn("first", "", bool):
            entered.set()
            assert hold.wait(10)

    def ask(name: str) -> None:
        with turns.turn(name[0], name[1], lambda: gone(name)):
            served.append(name)

    futures: list[Future[None]] = []
    with ThreadPoolExecutor(100) as pool:
        pool.submit(first)
        assert entered.wait(10)
        for name in asked.split():
            before = turns.waiting, sum(future.done() for future in futures)
            futures.append(pool.submit(ask, name))
            end = time.monotonic() + 10
            while before == (
                turns.waiting,
                sum(future.done() for future in futures),
            ):  # in line, refused, or another one is out
                assert time.monotonic() < end
                time.sleep(0.001)
        hold.set()
    assert all(isinstance(future.exception(), TooManyAttempts | None) for future in futures)
    return served


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("A1a A1b A1c", "A1a A1b A1c"),
        ("A1a A1b A1c B1a", "A1a B1a A1b A1c"),
        ("A1a A1b A1c A2a", "A1a A2a A1b A1c"),
        ("A1a A1b A2a A2b B1a B1b", "A1a B1a A2a B1b A1b A2b"),
    ],
)
def test_turns_go_round(asked: str, served: str) -> None:
    assert order(Turns(40, 10), asked) == served.split()


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("A1a A1b A1c A1d", "A1a A1b A1c"),  # nobody has more in line than who comes
        ("A1a A1b A1c A2a", "A1a A2a A1b"),
        ("A1a A1b A1c B1a", "A1a B1a A1b"),
        ("A1a A2a B1a A1b", "A1a B1a A2a"),  # who comes would have the most
        ("A1a A2a A3a B1a", "A1a B1a A2a"),
        ("A1a A1b B1a A2a", "A1a B1a A2a"),
        ("A1a B1a C1a D1a", "A1a B1a C1a"),
    ],
)
def test_who_has_the_most_in_line_gives_way(asked: str, served: str) -> None:
    assert order(Turns(3, 10), asked) == served.split()


def test_who_is_gone_has_no_turn_and_no_place() -> None:
    assert order(Turns(40, 10), "A1x A1y B1x A1a", lambda name: name[2] in "xy") == ["A1a"]
    assert order(Turns(3, 10), "A1x B1x C1a D1a", lambda name: name[2] == "x") == ["C1a", "D1a"]


def test_who_waits_too_long_is_told_so_and_the_others_have_their_turns() -> None:
    turns = Turns(40, 0.1)
    with turns.turn("A", "1", bool):
        for _ in range(3):
            with pytest.raises(TooManyAttempts), turns.turn("A", "1", bool):
                pass
        assert turns.waiting == 0
    with turns.turn("A", "1", bool):
        pass


def test_a_turn_ends_with_an_error_too() -> None:
    turns = Turns(40, 10)
    with pytest.raises(KeyError), turns.turn("A", "1", bool):
        raise KeyError
    assert order(turns, "A1a") == ["A1a"]


def test_one_at_a_time_whoever_comes_and_goes() -> None:
    """A thousand of them, some of which give up: nobody is forgotten, and never are there two."""
    turns, inside, most = Turns(1000, 0.05), 0, 0

    def ask(number: int) -> bool:
        nonlocal inside, most
        try:
            with turns.turn(f"{number % 7}", f"{number % 5}", lambda: number % 3 == 0):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1
        except TooManyAttempts:
            return False
        return True

    with ThreadPoolExecutor(100) as pool:
        served = sum(pool.map(ask, range(1000)))
    assert most == 1 and 50 < served < 1000 and turns.waiting == 0
