"""Ask an index what its clients will: without a login, with one, a page, a file, an upload. Leaves no trace.

Sent to the host's Python (3.9 or newer) on its standard input, and never written to a disk: what it is given has a password.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import ssl
import sys
import time
from typing import Any
from urllib.parse import unquote, urljoin

PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN, which Python has a name for from 3.10 on
PATIENCE = 60
JSON = "application/vnd.pypi.simple.v1+json"
LIMIT = "limit-of-the-probe"


class Wrong(Exception):
    """What is answered otherwise than it should be."""


class Index:
    """As one account sees it. `address`, `port`: where it is; `authority`: what clients call it; `certificate`: path, or ""."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        login = f"{given['username']}:{given['password']}".encode()
        self.login = {"Authorization": "Basic " + base64.b64encode(login).decode()}

    def ask(self, path: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, str, bytes]:
        """Status, its reason, and the body. OSError when there is no answer."""
        connection = http.client.HTTPConnection("index", timeout=PATIENCE)
        raw: socket.socket = socket.create_connection((self.given["address"], self.given["port"]), PATIENCE)
        if self.given["certificate"]:  # exactly this one, whoever signed it
            context = ssl.create_default_context(cafile=self.given["certificate"])
            context.check_hostname = False
            context.verify_flags |= PARTIAL_CHAIN
            raw = context.wrap_socket(raw, server_hostname=self.given["authority"].partition(":")[0])
        connection.sock = raw
        try:
            headers = {"Host": self.given["authority"], "Accept-Encoding": "identity", **headers}
            connection.request("POST" if body is not None else "GET", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.reason, answer.read()
        finally:
            connection.close()

    def expect(self, status: int, what: str, path: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
        seen, reason, content = self.ask(path, headers, body)
        if seen != status:
            raise Wrong(f"{what}: {path} answered {seen} {reason} instead of {status}")
        return content

    def page(self, path: str) -> Any:
        return json.loads(self.expect(200, "a page", path, {**self.login, "Accept": JSON}))


def probe(index: Index) -> str:
    """What was seen. Wrong, OSError, ValueError or LookupError if the index does not serve as it should."""
    if not index.given["anonymous"]:
        index.expect(401, "nobody gets in without a login", "/simple/", {})
    wrong = {"Authorization": "Basic " + base64.b64encode(f"{index.given['username']}:no".encode()).decode()}
    index.expect(401, "a wrong password", "/simple/", wrong)
    projects = [each["name"] for each in index.page("/simple/")["projects"]]
    said = ["a login", "pages"]
    for project in projects:
        path = f"/simple/{project}/"
        files = index.page(path)["files"]
        if not files:
            continue
        file = min(files, key=lambda file: int(file["size"]))
        content = index.expect(200, "a file", urljoin(path, file["url"]), index.login)
        if hashlib.sha256(content).hexdigest() != file["hashes"]["sha256"]:
            raise Wrong(f"{unquote(file['filename'])} comes with another sha256 than its page has")
        said.append(f"{file['filename']}")
        break
    refused(index, projects[0] if projects else "upgrade-probe")
    return ", ".join([*said, "an upload"])


def refused(index: Index, project: str) -> None:
    """Upload what is no archive: it is received, read and refused for that, so nothing is left of it."""
    name = f"{project.replace('-', '_')}-0+upgrade.probe-py3-none-any.whl"
    fields = {":action": "file_upload", "name": project, "version": "0+upgrade.probe", "filetype": "bdist_wheel"}
    part = f'--{LIMIT}\r\nContent-Disposition: form-data; name="'
    text = "".join(f'{part}{key}"\r\n\r\n{value}\r\n' for key, value in fields.items())
    text += f'{part}content"; filename="{name}"\r\n\r\nno archive\r\n--{LIMIT}--\r\n'
    headers = {**index.login, "Content-Type": f"multipart/form-data; boundary={LIMIT}"}
    status, reason, _ = index.ask("/", headers, text.encode())
    if status != 400 or name not in reason:
        raise Wrong(f"an upload that is no archive was answered {status} {reason}")


def main(given: str) -> int:
    """Tries again for `patience` seconds while there is no answer at all, or none but 502, 503 and 504."""
    index = Index(json.loads(given))
    deadline = time.monotonic() + float(index.given["patience"])
    while True:
        try:
            print(probe(index))
            return 0
        except (Wrong, OSError, ValueError, LookupError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        if time.monotonic() > deadline:
            print(problem)
            return 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read()))
