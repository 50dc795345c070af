"""Reads and writes the files of a host for the role pypi_client, all of them in one go.

A file is a base (a directory that only root decides about, such as /etc or a home) and a path below it. Below the base no link
is followed, neither when reading nor when writing: it is the user's ground, and root goes there. Runs on Python 3.9.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import secrets
import select
import signal
import stat
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

LIMIT = 1 << 20  # bytes of a file: who has more in a .netrc has something else
SPECIAL = "is a link or a special file, or lies behind one"
UV_PLACES = (".local/bin", ".cargo/bin", "/usr/local/bin", "/usr/bin")  # in a home, and anybody's
UV_SECONDS, UV_BYTES = 10, 200  # for `uv --version`
FILE = {"base": {"type": "path", "required": True}, "path": {"type": "str", "required": True}}
ARGUMENTS = {
    # The record of earlier runs; the files that it names are read as well.
    "record": {"type": "dict", "options": FILE},
    "read": {"type": "list", "elements": "dict", "default": []},
    # Is `certificates` in the bundle, and what is in the anchor?
    "store": {
        "type": "dict",
        "options": {
            "anchor": {"type": "path", "required": True},
            "bundle": {"type": "path", "required": True},
            "certificates": {"type": "str", "required": True},
        },
    },
    # Accounts that are asked which uv they have.
    "uv": {"type": "list", "elements": "str", "default": []},
    # In this order; without content the file is removed, and its directory if that is empty then.
    "write": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **FILE,
            "content": {"type": "str", "no_log": True},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
            "mode": {"type": "str", "required": True},
        },
    },
}


@contextmanager
def folder(base: str, parents: Sequence[str], owner: tuple[int, int] | None = None) -> Iterator[int]:
    """The directory below the base, as a descriptor; what is missing is made when there is an owner."""
    here = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in parents:
            made = False
            if owner:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=here)
                    made = True
            there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
            if owner and made:
                os.fchown(here, *owner)
                os.fchmod(here, 0o755)
        yield here
    finally:
        os.close(here)


def read(base: str, path: str) -> dict[str, Any]:
    """Content (Base64), owner and mode. `problem` says why a file that is there was not read."""
    *parents, name = path.split("/")
    if not os.path.isdir(base):
        return {"exists": False, "base": False}
    known = {"exists": True, "base": True}
    try:
        with folder(base, parents) as here:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
        with open(descriptor, "rb") as file:
            of = os.fstat(descriptor)
            if not stat.S_ISREG(of.st_mode):
                return {**known, "problem": SPECIAL}
            content = file.read(LIMIT + 1)
    except FileNotFoundError:
        return {"exists": False, "base": True}
    except OSError as error:
        special = error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)
        return {**known, "problem": SPECIAL if special else f"cannot be read: {error.strerror}"}
    if len(content) > LIMIT:
        return {**known, "problem": f"is larger than {LIMIT} bytes"}
    mode = f"{stat.S_IMODE(of.st_mode):04o}"
    return {**known, "content": b64encode(content).decode(), "uid": of.st_uid, "gid": of.st_gid, "mode": mode}


def write(step: Mapping[str, Any]) -> None:
    """Whole or not at all, and never readable by others than before."""
    try:
        replace(step)
    except OSError as error:
        raise ValueError(f"{step['base']}/{step['path']} cannot be written: {error.strerror}") from None


def replace(step: Mapping[str, Any]) -> None:
    *parents, name = step["path"].split("/")
    owner = (step["uid"], step["gid"])
    if step["content"] is None:
        with folder(step["base"], parents) as here, suppress(FileNotFoundError):
            os.unlink(name, dir_fd=here)
        if parents:
            with folder(step["base"], parents[:-1]) as here, suppress(OSError):  # it is not empty
                os.rmdir(parents[-1], dir_fd=here)
        return
    with folder(step["base"], parents, owner) as here:
        temporary = f".{name}.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=here)
        try:
            with open(descriptor, "wb") as file:
                file.write(b64decode(step["content"]))
                os.fchown(descriptor, *owner)
                os.fchmod(descriptor, int(step["mode"], 8))
            os.rename(temporary, name, src_dir_fd=here, dst_dir_fd=here)
        except BaseException:
            os.unlink(temporary, dir_fd=here)
            raise


def remembered(base: str, path: str) -> list[dict[str, Any]]:
    """What earlier runs put where."""
    found = read(base, path)
    if not found["exists"]:
        return []
    try:
        records: list[dict[str, Any]] = list(json.loads(b64decode(found["content"])))
        for record in records:
            for file in record["files"]:
                os.path.join(file["base"], file["path"], file["kind"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{base}/{path} on the host is no record of this role: remove it, then run again") from None
    return records


def bare(pem: str) -> list[str]:
    """The certificates as Base64 without line ends, which differ."""
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END", pem, re.DOTALL)
    return ["".join(block.split()) for block in blocks]


def trust(store: Mapping[str, str]) -> dict[str, Any]:
    """What the host's trust store has."""
    anchor, bundle = (Path(store[key]) for key in ("anchor", "bundle"))
    here = set(bare(bundle.read_text(errors="replace"))) if bundle.is_file() else set()
    return {
        "bundle": bundle.is_file(),
        "trusted": set(bare(store["certificates"])) <= here,
        "anchor": anchor.read_text(errors="replace") if anchor.is_file() else None,
    }


def said_by(command: Sequence[str], entry: pwd.struct_passwd) -> str:
    """The first words of a program of a user's, which runs as that user, reads nothing and may neither stay nor flood us."""
    identity: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"HOME": entry.pw_dir, "PATH": "/usr/bin:/bin"},
        start_new_session=True,
        **(identity if os.geteuid() == 0 else {}),
    )
    said, deadline = b"", time.monotonic() + UV_SECONDS
    with process, process.stdout as out:  # type: ignore[union-attr]
        while len(said) < UV_BYTES and select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
            more = os.read(out.fileno(), UV_BYTES)
            if not more:
                break
            said += more
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return said.decode(errors="replace")


def uv_versions(account: str) -> list[str]:
    """Of every uv that an account finds."""
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        return []
    found = []
    for place in UV_PLACES:
        with suppress(OSError):  # there is none
            program = os.path.join(entry.pw_dir, place, "uv")
            found += re.findall(r"\Auv (\d+\.\d+\.\d+)", said_by([program, "--version"], entry))
    return found


def look(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the plan is made of."""
    records = remembered(**asked["record"]) if asked["record"] else []
    files = [*asked["read"], *(file for record in records for file in record["files"])]
    return {
        "records": records,
        "files": {f"{file['base']}/{file['path']}": read(file["base"], file["path"]) for file in files},
        "store": trust(asked["store"]) if asked["store"] else {},
        "uv": {account: uv_versions(account) for account in asked["uv"]},
    }


def difference(step: Mapping[str, Any]) -> dict[str, str]:
    """Before and after, as Ansible shows it."""
    place = f"{step['base']}/{step['path']}"
    old, new = read(step["base"], step["path"]).get("content", ""), step["content"] or ""
    texts = {"before": b64decode(old).decode(errors="replace"), "after": b64decode(new).decode()}
    return {"before_header": place, "after_header": place, **texts}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    steps = module.params["write"]
    shown = [difference(step) for step in steps] if module._diff else []
    try:
        for step in [] if module.check_mode else steps:
            write(step)
        module.exit_json(changed=bool(steps), diff=shown, **look(module.params))
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
