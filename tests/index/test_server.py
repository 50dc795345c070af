"""The whole application over HTTP, with four workers: who may do what, in which words, and what is left when it dies."""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from static_index import sync
from static_index.store import Store

from .artifacts import wheel
from .serve import Server, serving
from .state import check_whole, eventually, links, page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def listed(store: Store, project: str) -> set[str]:
    return set(store.index.records.load(project).files)


# Who may do what


def test_uploaded_and_listed_in_the_next_instant(server: Server) -> None:
    """1,000 times, by four clients side by side: the workers share nothing but the disk."""

    def upload_and_look(number: int) -> None:
        project, version = f"instant-{number % 10}", f"1.{number}"
        artifact = wheel(project, version)
        assert server.upload(artifact, name=project.title(), version=version).status_code == 200
        assert artifact[0] in {file["filename"] for file in page(server.store, project)["files"]}
        assert artifact[0] in links(server.store, project)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload_and_look, range(1000)))
    check_whole(server.store)


@pytest.mark.parametrize(
    ("user", "project", "status", "reason"),
    [
        ("bob", "Acme.Thing", 200, "OK"),
        ("bob", "tools", 200, "OK"),
        ("bob", "other", 403, "bob may publish acme-*, tools; other is none of these"),
        ("carol", "acme-x", 403, "carol may read only: uploading needs the role publisher"),
        ("mallory", "acme-x", 401, "user and password, please"),
        ("bob/tools", "tools", 200, "OK"),
        ("bob/tools", "acme-x", 403, "bob/tools may publish t*; acme-x is none of these"),
        ("bob/tools", "things", 403, "bob/tools may publish acme-*, tools; things is none of these"),
        ("bob/wide", "acme-wide", 200, "OK"),
        ("bob/wide", "other", 403, "bob/wide may publish acme-*, tools; other is none of these"),
        ("bob/read", "tools", 403, "bob/read may read only: uploading needs the role publisher"),
        ("carol/wide", "acme-x", 403, "carol/wide may read only: uploading needs the role publisher"),
        ("bob/old", "tools", 401, "The token bob/old has expired: its last day was 2020-01-31 (UTC)."),
        ("bob/withdrawn", "tools", 401, "This token is unknown here, or was withdrawn."),
    ],
)
def test_roles(server: Server, user: str, project: str, status: int, reason: str) -> None:
    answer = server.upload(wheel(project, "7"), user)
    assert (answer.status_code, answer.reason) == (status, reason)
    assert not answer.text or answer.text == f"{reason}\n"
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_the_log_names_the_token_and_never_has_it(server: Server) -> None:
    assert server.upload(wheel("acme-told"), "bob/wide").status_code == 200
    assert server.upload(wheel("acme-told", "2"), "bob/old").status_code == 401
    said = server.log.read_text()
    assert "bob/wide uploaded acme_told-1.0-py3-none-any.whl" in said
    assert "login of bob/old failed" in said
    assert "ppi_" not in said


@pytest.mark.parametrize(
    "path", ["", "simple/", "simple/instant/", "packages/", "packages/x.whl", "instant/json", "instant/"]
)
def test_nothing_is_open(server: Server, path: str) -> None:
    assert requests.get(server.url + path, timeout=10).status_code == 401
    assert requests.get(server.url + path, auth=("alice", "wrong"), timeout=10).status_code == 401


@pytest.mark.parametrize("path", ["", "simple/", "packages/", "packages/x.whl", "instant/json", "instant/", "RPC2"])
def test_nothing_is_read_here(server: Server, path: str) -> None:
    """nginx reads from disk; a list made here of 20,000 files would cost a worker."""
    answer = requests.get(server.url + path, auth=("alice", "alicealice"), timeout=10)
    assert (answer.status_code, answer.reason) == (404, "only uploads are taken here")


# What is refused


REFUSED = {
    "path": (("../evil-1.0.tar.gz", b""), {}, "Bad filename: ../evil-1.0.tar.gz"),
    "signature": (("acme-1.0.tar.gz.asc", b""), {}, "neither a wheel"),
    "no zip": (("bad-1.0.zip", b"junk"), {}, "bad-1.0.zip: broken archive: File is not a zip file"),
    "no file name": (("", b""), {}, "the file in content has no name"),
    "corrupt": (("bad-1.0-py3-none-any.whl", b"junk"), {}, "broken archive"),
    "digest": (wheel("bad"), {"sha256_digest": "0" * 64}, "the sha256 digest sent is not that of the bytes received"),
    "md5": (wheel("bad"), {"md5_digest": "0" * 32}, "the md5 digest"),
    "name in the form": (wheel("bad"), {"name": "good"}, "the form names the project 'good'"),
    "reason beyond ASCII": (wheel("bad"), {"name": "gøød\r\n\0"}, "the form names the project"),
    "no content": (None, {}, "Missing 'content' file-field!"),
    "no action": (wheel("bad"), {":action": "dance"}, "Unsupported ':action' field: dance"),
}


@pytest.mark.parametrize(("artifact", "fields", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusals_say_why(
    server: Server, artifact: tuple[str, bytes] | None, fields: dict[str, str], reason: str
) -> None:
    answer = server.post("alice", {":action": "file_upload", **fields}, artifact)
    assert answer.status_code == 400
    assert reason in answer.reason
    assert reason in answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert not listed(server.store, "bad")
    assert not list(server.store.spool.iterdir())


@pytest.mark.parametrize("action", ["submit", "verify", "doc_upload"])
def test_what_did_nothing_says_so(server: Server, action: str) -> None:
    answer = server.post("alice", {":action": action, "name": "x"}, ("docs.zip", bytes(1 << 20)))
    assert (answer.status_code, answer.text.startswith(answer.reason)) == (410, True)


def test_what_comes_beside_the_file_is_not_kept(server: Server) -> None:
    """Signatures and attestations, as on PyPI (twine sends one, uv the other)."""
    filename, content = wheel("signed")
    files = {"content": (filename, content), "gpg_signature": (f"{filename}.asc", b"x")}
    form = {":action": "file_upload", "attestations": "[{}]"}
    assert requests.post(server.url, form, files=files, auth=("alice", "alicealice"), timeout=10).status_code == 200
    assert [path.name for path in server.store.packages.glob("signed*")] == [filename]


def test_who_is_refused_is_heard_to_the_end(server: Server) -> None:
    """Or neither nginx nor a client that is still sending would hear the answer."""
    headers = {"Authorization": "Basic Y2Fyb2w6Y2Fyb2xjYXJvbA==", "Content-Type": "multipart/form-data; boundary=b"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/", bytes(30 << 20), headers)
    answer = connection.getresponse()
    assert (answer.status, answer.reason) == (403, "carol may read only: uploading needs the role publisher")
    assert not list(server.store.spool.iterdir())


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=\0", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\n\xff"),
        ("multipart/form-data; boundary=b", b"--b--"),
        ("multipart/form-data; boundary=b", b""),
        ("application/octet-stream", b"x"),
    ],
)
def test_a_malformed_form_is_the_clients_fault(server: Server, content_type: str, body: bytes) -> None:
    headers = {"Content-Type": content_type}
    answer = requests.post(server.url, body, auth=("alice", "alicealice"), headers=headers, timeout=10)
    assert answer.status_code == 400


@pytest.mark.parametrize(("agent", "status"), [("twine/6.2.0", 400), ("uv/0.9", 409)])
def test_a_taken_name(server: Server, agent: str, status: int) -> None:
    server.upload(wheel("taken"))
    answer = server.post("alice", {":action": "file_upload"}, wheel("taken", content=b"x"), **{"User-Agent": agent})
    assert answer.status_code == status
    assert answer.reason.startswith("taken-1.0-py3-none-any.whl already exists with other content")
    again = server.post("alice", {":action": "file_upload"}, wheel("taken"), **{"User-Agent": agent})
    assert again.status_code == 200


def test_fifty_uploads_of_one_name(server: Server) -> None:
    contents = [b"%d" % number + os.urandom(200_000) for number in range(50)]
    artifacts = [wheel("contested", content=content) for content in contents]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(server.upload, artifacts))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 49}
    winner = next(artifact for artifact, answer in zip(artifacts, answers, strict=True) if answer.ok)
    assert (server.store.packages / winner[0]).read_bytes() == winner[1]
    check_whole(server.store)


# Removing


def test_removing_is_off_unless_allowed(server: Server, tmp_path: Path) -> None:
    form = {":action": "remove_pkg", "name": "Some.Thing", "version": "1.0.0"}
    server.upload(wheel("some-thing", "1.0"))
    answer = server.post("alice", form, None)
    assert (answer.status_code, answer.reason[:42]) == (403, "removing through the API is switched off; ")
    assert listed(server.store, "some-thing")

    with serving(tmp_path, PYPI_ALLOW_REMOVE="true", PYPI_WORKERS="1") as allowing:
        allowing.upload(wheel("some-thing", "1.0"))
        assert allowing.post("carol", form, None).status_code == 403
        assert allowing.post("bob", form, None).reason.startswith("bob may publish")
        assert allowing.post("alice", form, None).status_code == 200
        assert allowing.post("alice", form, None).status_code == 404
        assert not listed(allowing.store, "some-thing")
        assert allowing.post("alice", {**form, "version": "x"}, None).status_code == 400


# Death and full disks


def test_kill_9_of_the_server_in_an_upload(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for round_ in range(4):
            artifact = wheel("large", str(round_), content=os.urandom(30 << 20), compression=0)
            uploads = threading.Thread(target=lambda artifact=artifact: quietly(server, artifact), daemon=True)
            uploads.start()
            time.sleep(0.15 + 0.15 * round_)
            server.kill()
            uploads.join()
            check_whole(server.store, settled=False)
            server.start()
            answer = server.upload(artifact)
            assert answer.status_code in (200, 409)
            assert artifact[0] in listed(server.store, "large")
        check_whole(server.store)


def quietly(server: Server, artifact: tuple[str, bytes]) -> None:
    try:
        server.upload(artifact)
    except requests.RequestException:
        pass


def test_an_upload_leaves_no_open_file_behind(server: Server) -> None:
    """Bottle would hold the spooled body, and its disk space, until the thread's next request."""
    assert server.upload(wheel("spooled", content=os.urandom(1 << 20))).ok
    assert server.process
    group = subprocess.run(["pgrep", "-g", str(server.process.pid)], capture_output=True, text=True, check=True).stdout
    held = [os.readlink(fd) for pid in group.split() for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    assert not [path for path in held if path.startswith(str(server.store.spool))]


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    try:
        with serving(disk, PYPI_WORKERS="1") as server:
            artifact = os.urandom(1 << 20)
            filler = disk / "filler"
            answers = []
            for number, left in enumerate(range(0, 7 << 19, 1 << 18)):  # it gives out at the body, the form, the copy
                answers += [fill_and_upload(server, filler, left, wheel("big", f"1.{number}", content=artifact))]
            for number, left in enumerate(range(0, 20 << 12, 1 << 12)):  # at the copy, the pages, the record
                answers += [fill_and_upload(server, filler, left, wheel("big", f"2.{number}", content=b"small"))]
            assert set(answers) == {200, 507}
            check_whole(server.store)
            eventually(lambda: sync.differences(server.store) == [])
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_and_upload(server: Server, filler: Path, left: int, artifact: tuple[str, bytes]) -> int:
    """Upload with so many bytes left; the status. What was refused left nothing, and is taken when there is space."""
    usage = os.statvfs(filler.parent)
    filler.write_bytes(bytes(usage.f_bavail * usage.f_bsize - left))
    answer = server.upload(artifact)
    filler.unlink()
    if answer.status_code != 200:
        assert (answer.status_code, answer.reason) == (507, "no space left on the server; nothing was stored")
        assert artifact[0] not in listed(server.store, "big")
        assert not (server.store.packages / artifact[0]).exists()
        assert not list(server.store.spool.iterdir())
        assert server.upload(artifact).status_code == 200
    server.store.remove(artifact[0])
    return answer.status_code


# Clients
