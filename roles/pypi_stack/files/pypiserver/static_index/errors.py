"""What a client did wrong, in words for the client."""


class Refusal(Exception):
    """The request cannot be fulfilled as sent; the text says why. `status` is the HTTP status that fits."""

    status = 400


class Unreadable(Refusal):
    """The archive is broken or cut short."""


class Conflict(Refusal):
    """The file name is taken."""

    status = 409


class Forbidden(Refusal):
    """This user may not do that."""

    status = 403


class NotFound(Refusal):
    """No such project, version or file."""

    status = 404


class Damaged(Refusal):
    """Something of ours cannot be read; the text says what, and how to mend it."""

    status = 500


class Unavailable(Refusal):
    """What has to be asked does not answer; the same may be right later."""

    status = 503
