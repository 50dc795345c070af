"""What must not be found anywhere: the tests' passwords, their hashes and keys, in the encodings that leaks take."""

from __future__ import annotations

import re
import subprocess
from base64 import b64encode
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from .lab import GONE, PASSWORDS, TOKENS, Lab


def encodings(secret: str) -> set[str]:
    """Plain, hex, and base64 at each of the three offsets that it can have in a longer text."""
    data = secret.encode()
    middles = (b64encode(b"\0" * offset + data)[(0, 2, 3)[offset] :].decode() for offset in range(3))
    # The last characters depend on what follows.
    return {secret, data.hex(), data.hex().upper(), *(middle.rstrip("=")[:-1] for middle in middles)}


@dataclass
class Watch:
    text: str = ""


@dataclass(frozen=True)
class Secrets:
    needles: frozenset[str]

    @classmethod
    def passwords(cls, more: Iterable[str] = ()) -> Secrets:
        plain = {*PASSWORDS.values(), *GONE.values(), *TOKENS.values(), *more}
        return cls(frozenset(text for secret in plain for text in encodings(secret)))

    @classmethod
    def of(cls, lab: Lab, more: Iterable[str] = ()) -> Secrets:
        """Passwords, and what the hosts keep instead of them: hashes, seals and the key of the certificate."""
        users = lab.server.check_output(f"cat {lab.project}/users/htpasswd {lab.project}/users/htpasswd.seals")
        hashes = re.findall(r"\$2[aby]\$\S{50,}", users)
        key = lab.server.check_output(f"cat {lab.project}/tls/key.pem").splitlines()[1:-1]
        passphrase = str(lab.of_server.get("pypi_tls_ca_passphrase", ""))
        assert len(hashes) >= len(PASSWORDS) and key
        return cls(cls.passwords([*more, *filter(None, [passphrase])]).needles | frozenset(hashes) | frozenset(key))

    def found_in(self, text: str) -> list[str]:
        """The lines around what was found, without the neighbours' megabytes."""
        return [text[max(0, text.find(n) - 200) : text.find(n) + 100] for n in sorted(self.needles) if n in text]

    @staticmethod
    @contextmanager
    def watched_processes(lab: Lab, account: str = "root") -> Generator[Watch]:
        """Every command line and environment that the server's process list shows this account, at ten looks a second."""
        look = "while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; sleep 0.1; done | awk '!s[$0]++'"
        command = [
            "docker",
            "exec",
            "--user",
            account,
            lab.container(lab.server_name),
            "timeout",
            "600",
            "sh",
            "-c",
            look,
        ]
        watch = Watch()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
        try:
            yield watch
        finally:
            lab.server.run("kill $(cat /proc/[0-9]*/stat | awk '$2 == \"(timeout)\" {print $1}')")
            watch.text = process.communicate(timeout=30)[0]
