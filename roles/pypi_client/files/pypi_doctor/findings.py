"""What can be found, and the exit code of each."""

from __future__ import annotations

from typing import NamedTuple

CODES = {
    10: "no index is set",
    11: "its name is not known",
    12: "no connection",
    13: "certificate not trusted",
    14: "certificate for another name",
    15: "certificate expired",
    16: "certificate not valid yet",
    17: "no TLS",
    18: "clock",
    19: "HTTP proxy",
    20: "something else answers",
    21: "the index is not well",
    30: "no login",
    31: "login refused",
    32: "token refused",
    33: "may not publish",
    34: "may not publish this project",
    40: "another setting wins",
    41: "a second index",
    42: "verification switched off",
    43: "CA bundle",
    44: "secret that others can read",
    45: "a tool is too old",
}
"""1 and 2 are Python's own."""


class Finding(NamedTuple):
    code: int
    what: str
    fix: str


class Trouble(Exception):
    """A finding after which the index cannot be asked anything else."""

    def __init__(self, code: int, what: str, fix: str) -> None:
        super().__init__(what)
        self.finding = Finding(code, what, fix)
