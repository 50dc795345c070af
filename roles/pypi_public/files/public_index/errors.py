"""Why a request is refused, in words for the client."""

from __future__ import annotations


class Refusal(Exception):
    """The text says why, and how to mend it. `status` is the HTTP status, `retry_after` in seconds (0: not said)."""

    status = 400

    def __init__(self, reason: str, retry_after: int = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unknown(Refusal):
    """No such project or file, or none that may be known."""

    status = 404


class Forbidden(Refusal):
    """It exists, and a rule of the operator's forbids it."""

    status = 403


class Failed(Refusal):
    """The upstream cannot be reached, or what it says makes no sense."""

    status = 502


class Late(Failed):
    """The upstream takes longer than it may."""

    status = 504


class Busy(Refusal):
    """Not now; `retry_after` says when."""

    status = 503
