"""The index as clients ask for it: its forms, what may be cached, the addresses of old; and what the operator does to it."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeWheel
from .lab import PASSWORDS, Answer, Edge, Lab, recap, right, wait_until
from .packages import make_wheel

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
LATEST_JSON, LATEST_HTML = (f"application/vnd.pypi.simple.latest+{form}" for form in ("json", "html"))
ACCEPTED = {
    "nothing": ("", "text/html"),
    "anything": ("*/*", "text/html"),
    "a browser's": ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
    "html": ("text/html", "text/html"),
    "html of version 1": (HTML, "text/html"),  # its other name, says PEP 691
    "the latest html": (LATEST_HTML, "text/html"),
    "json": (JSON, JSON),
    "the latest json": (LATEST_JSON, JSON),
    "pip's": (f"{JSON}, {HTML}; q=0.1, text/html; q=0.01", JSON),
    "uv's": (f"{JSON}, {HTML};q=0.2, text/html;q=0.01", JSON),
    "pdm's": (f"{JSON}, {HTML};q=0.1, text/html;q=0.01, */*;q=0.001", JSON),
    "json in capitals": (JSON.upper(), JSON),
    "json and anything": (f"{JSON}, */*;q=0.1", JSON),
    "json like html": (f"{JSON}, text/html", JSON),
    "json like anything": (f"*/*, {JSON}", JSON),
    "no json": (f"{JSON};q=0, text/html", "text/html"),
    "no json, by a long zero": (f"{JSON}; Q=0.000", "text/html"),
    "json rather not": (f"{JSON};q=0.5, text/html", "text/html"),
    "json rather not, html of version 1": (f"{JSON};q=0.5, {HTML};q=0.9", "text/html"),
    "json rather than html": (f"text/html;q=0.5, {JSON};q=0.6", JSON),
    "no html": ("text/html;q=0, */*", JSON),
    "only applications": ("application/*", JSON),
    "texts rather than json": (f"text/*;q=0.5, {JSON};q=0.4", "text/html"),
    "with parameters": (f"{JSON};charset=utf-8;q=0.9, text/html;level=1;q=0.1", JSON),
    "more than everything": (f"{JSON};q=2, text/html;q=0.1", "text/html"),
    "no weight": (f"{JSON};q=, text/html;q=x", "text/html"),
    "what does not exist": ("image/png", "text/html"),
    "what is like it": (f"{JSON}x, application/vnd.pypi.simple.v2+json", "text/html"),
    "commas only": (",,;,", "text/html"),
}


@pytest.fixture(scope="module")
def wheel(edge: Edge, make: MakeWheel) -> Path:
    path = make("acme-forms", 100_000)
    assert edge.upload(path, "alice").status == 200
    return path


def get(edge: Edge, path: str, **headers: str) -> Answer:
    return edge.request(path, right("alice") | {name.replace("_", "-"): value for name, value in headers.items()})


def page(edge: Edge, project: str) -> dict[str, Any]:
    answer = get(edge, f"/simple/{project}/", Accept=JSON)
    assert answer.status == 200, answer
    document: dict[str, Any] = json.loads(answer.body)
    return document


def files(edge: Edge, project: str) -> dict[str, Any]:
    return {file["filename"]: file for file in page(edge, project)["files"]}


# Forms


@pytest.mark.parametrize("accept", ACCEPTED)
@pytest.mark.parametrize("path", ["/simple/", "/simple/acme-forms/"])
def test_a_page_comes_in_the_form_that_is_asked_for(edge: Edge, wheel: Path, path: str, accept: str) -> None:
    header, expected = ACCEPTED[accept]
    answer = get(edge, path, **({"Accept": header} if header else {}))
    assert answer.status == 200
    assert answer.headers["content-type"].split(";")[0] == expected
    assert "accept" in answer.headers["vary"].lower().split(", ")  # not only accept-encoding
    assert (
        (json.loads(answer.body)["meta"]["api-version"] == "1.1")
        if expected == JSON
        else b"<!DOCTYPE html>" in answer.body
    )


@pytest.mark.parametrize("accept", ["text/html", JSON])
def test_a_compressed_page_is_the_same(edge: Edge, wheel: Path, accept: str) -> None:
    plain = get(edge, "/simple/acme-forms/", Accept=accept)
    packed = get(edge, "/simple/acme-forms/", Accept=accept, Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert "accept-encoding" in packed.headers["vary"].lower().split(", ")


def test_no_two_forms_have_one_etag(edge: Edge, wheel: Path) -> None:
    ways = [
        {"Accept": accept, "Accept-Encoding": packed}
        for accept in ("text/html", JSON)
        for packed in ("identity", "gzip")
    ]
    etags = [edge.request("/simple/acme-forms/", right("alice") | way).headers["etag"] for way in ways]
    assert len(set(etags)) == 4


def test_the_metadata_is_that_of_the_wheel(edge: Edge, wheel: Path) -> None:
    answer = get(edge, f"/packages/{wheel.name}.metadata")
    with zipfile.ZipFile(wheel) as archive:
        [inside] = [archive.read(name) for name in archive.namelist() if name.endswith("METADATA")]
    assert answer.status == 200 and answer.body == inside
    assert files(edge, "acme-forms")[wheel.name]["core-metadata"]["sha256"] == hashlib.sha256(inside).hexdigest()


# Caching


def test_a_page_is_asked_for_again(edge: Edge, wheel: Path) -> None:
    first = get(edge, "/simple/acme-forms/")
    assert first.headers["cache-control"] == "private, no-cache"
    again = get(edge, "/simple/acme-forms/", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("suffix", ["", ".metadata"])
def test_a_file_is_kept_for_ever_by_its_owner_only(edge: Edge, wheel: Path, suffix: str) -> None:
    first = get(edge, f"/packages/{wheel.name}{suffix}")
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    again = get(edge, f"/packages/{wheel.name}{suffix}", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def test_a_part_of_a_file(edge: Edge, wheel: Path) -> None:
    """As pip asks for the end of a wheel when there is no metadata."""
    content = wheel.read_bytes()
    for asked, expected in (("bytes=10-19", content[10:20]), ("bytes=-100", content[-100:])):
        answer = get(edge, f"/packages/{wheel.name}", Range=asked)
        assert (answer.status, answer.body) == (206, expected)
        assert answer.headers["content-range"].endswith(f"/{len(content)}")


@pytest.mark.parametrize("path", ["/simple/", "/simple/acme-forms/", "/packages/{}", "/packages/{}.metadata"])
def test_head_says_what_get_would(edge: Edge, wheel: Path, path: str) -> None:
    whole = get(edge, path.format(wheel.name))
    head = edge.request(path.format(wheel.name), right("alice"), "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(whole.body)
    assert head.headers["etag"] == whole.headers["etag"]


# Addresses


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/simple", 301, "/simple/"),
        ("/simple/acme-forms", 301, "/simple/acme-forms/"),
        ("/simple/Acme.Forms/", 301, "/simple/acme-forms/"),
        ("/acme-forms/", 303, "/simple/acme-forms/"),
        ("/simple/no-such-project/", 404, ""),
        ("/packages/no_such-1.0-py3-none-any.whl", 404, ""),
        ("/packages/.uploads/", 404, ""),
        ("/packages/", 404, ""),
        ("/packages", 404, ""),
        ("/acme-forms/json", 404, ""),
        ("/index/simple/acme-forms/index.html", 404, ""),
        ("/simple/acme-forms/unclear", 404, ""),
        ("/_upload", 404, ""),
        ("/_refused", 404, ""),
    ],
)
def test_addresses(edge: Edge, wheel: Path, path: str, status: int, location: str) -> None:
    answer = get(edge, path)
    assert (answer.status, answer.headers.get("location", "")) == (status, location)


def test_what_does_not_exist_says_where_pages_are(lab: Lab, edge: Edge) -> None:
    answer = get(edge, "/packages/")
    assert (
        answer.headers["content-type"] == "text/plain; charset=utf-8" and f"{lab.url}/simple/" in answer.body.decode()
    )


def test_the_welcome_page_says_how_to_use_the_index(lab: Lab, edge: Edge) -> None:
    answer = get(edge, "/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for line in (f"index-url = {lab.url}/simple/", f'url = "{lab.url}/simple/"', f"--repository-url {lab.url}/ "):
        assert line in answer.body.decode()


@pytest.mark.parametrize("index", ["", "simple", "simple/"])
def test_old_index_addresses_install(lab: Lab, edge: Edge, wheel: Path, index: str) -> None:
    command = "~/addresses/bin/pip download --no-input --no-cache-dir --disable-pip-version-check --no-deps --dest ~/addresses"
    lab.client.check_output("test -e ~/addresses || python3 -m venv ~/addresses")
    lab.client.check_output(f"{command} --index-url {lab.url}/{index} acme-forms 2>&1")


# Uploads

TUTORIALS = ["/", "/legacy/", "/legacy", "/simple/", "/simple", "/pypi/", "/pypi", "/upload/", "/upload", "/?:action=x"]


@pytest.mark.parametrize("path", TUTORIALS)
def test_an_upload_is_taken_at_every_address_of_the_tutorials(edge: Edge, make: MakeWheel, path: str) -> None:
    wheel = make(f"acme-at-{TUTORIALS.index(path)}", 1_000)
    answer = edge.upload(wheel, "alice", path)
    assert answer.status == 200, answer
    assert get(edge, f"/packages/{wheel.name}").body == wheel.read_bytes()


@pytest.mark.parametrize(
    "path", ["/simple/acme-forms/", "/acme-forms/", "/acme.forms", "/packages/", "/no/such", "/_x"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_nothing_else_is_changed_and_the_refusal_says_where_uploads_go(
    lab: Lab, edge: Edge, wheel: Path, path: str, method: str
) -> None:
    """And no redirect, behind which a client would ask by GET and take what it gets for success."""
    headers, body = edge.form(wheel, "alice")
    answer = edge.request(path, headers, method, body[:1000])
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD"), answer
    assert f"POST to {lab.url}/ " in answer.body.decode()
    assert path == "/_x" or answer.reason == answer.body.decode().strip()


def test_twine_and_uv_say_where_uploads_go(lab: Lab, edge: Edge, make: MakeWheel) -> None:
    wheel = lab.bring(make("acme-astray", 1_000))
    for command in (
        "twine upload --non-interactive --disable-progress-bar --repository-url {0}/no/such/ -u alice -p {1} {2} 2>&1",
        "uv publish --no-progress --publish-url {0}/no/such/ -u alice -p {1} {2} 2>&1",
    ):
        run = lab.client.run(command.format(lab.url, PASSWORDS["alice"], wheel))
        assert run.rc != 0 and f"to {lab.url}/ and nowhere else" in " ".join(run.stdout.split()), run.stdout


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_what_is_too_large_says_whose_limit_it_is(lab: Lab, edge: Edge, user: str) -> None:
    """In the status line as well. It is known from the length: nothing has to be sent."""
    limit = str(lab.of_server.get("pypi_stack_max_upload_size", "1g"))
    size = int(limit[:-1]) * {"m": 2**20, "g": 2**30}[limit[-1]] + 1
    session = edge.session()
    session.putrequest("POST", "/legacy/", skip_host=True)
    for name, value in {"Host": edge.host_header, "Content-Length": str(size), **right(user)}.items():
        session.putheader(name, value)
    session.endheaders()
    response = session.getresponse()
    assert response.status == 413
    assert f"Larger than {limit}" in response.reason and "pypi_stack_max_upload_size" in response.reason
    assert response.read().decode().strip() == response.reason
    session.close()


def test_an_account_gets_a_quarter_of_what_uploads_there_can_be(
    lab: Lab, edge: Edge, wheel: Path, version: str, tmp_path: Path
) -> None:
    """When that many of its uploads stand still. Others publish from the same address, and nobody's reading is in their way; and
    when they are over, the next one is taken.
    """
    share = int(lab.of_server.get("pypi_stack_pypiserver_workers", 4)) * 6
    headers = {
        "Host": edge.host_header,
        "Content-Length": "1000",
        "Content-Type": "multipart/form-data; boundary=limit",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | right("alice")).items())
    with ExitStack() as stack:

        def begun() -> socket.socket:
            slow = stack.enter_context(edge.connect(timeout=2))
            slow.sendall(f"POST / HTTP/1.1\r\n{lines}\r\n--limit".encode())
            return slow

        def refused() -> bool:
            try:
                return begun().recv(1000).startswith(b"HTTP/1.1 429 Too many uploads at once")
            except TimeoutError:
                return False

        for _ in range(share):
            begun()
        assert any(refused() for _ in range(3))
        answer = edge.upload(wheel, "alice")
        assert (answer.status, answer.headers["retry-after"]) == (429, "60") and "uploads at once" in answer.reason
        assert edge.upload(make_wheel("acme-beside", version, 100_000, tmp_path), "erin").status == 200
        assert get(edge, "/simple/acme-forms/").status == get(edge, f"/packages/{wheel.name}").status == 200
        assert edge.request("/", right("bob"), "POST").status == 403, "who is refused anyway takes no place"
    wait_until("uploads are taken again", edge.takes_uploads, 30)


# Changes


@pytest.mark.scenario("default")
def test_an_upload_is_there_in_the_next_instant(edge: Edge, version: str, tmp_path: Path) -> None:
    """1,000 times, by four clients side by side, each on other connections than the upload's; nginx keeps files open."""

    def upload_and_look(number: int) -> None:
        project, session = f"acme-instant-{number % 10}", edge.session()
        edge.request(f"/simple/{project}/", right("bob"), session=session)
        path = make_wheel(project, f"{version}.{number}", 0, tmp_path)
        assert edge.upload(path, "alice").status == 200
        for accept in ("text/html", JSON):
            answer = edge.request(f"/simple/{project}/", right("bob") | {"Accept": accept}, session=session)
            assert path.name.encode() in answer.body
        assert edge.request(f"/packages/{path.name}", right("bob"), session=session).body == path.read_bytes()
        session.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload_and_look, range(1000)))


def release(lab: Lab, action: str, name: str, version: str, reason: str = "") -> None:
    about = {"release_action": action, "release_name": name, "release_version": version}
    run = lab.site(playbook="playbooks/release.yml", **about, **({"release_reason": reason} if reason else {}))
    assert run.returncode == 0, run.stdout
    assert recap(run.stdout)[lab.server_name]["changed"] == 1


def test_the_operator_yanks_unyanks_and_deletes(lab: Lab, edge: Edge, make: MakeWheel, version: str) -> None:
    name = f"acme-release-{version.partition('.')[2]}"
    wheel = make(name, 1_000)
    assert edge.upload(wheel, "alice").status == 200
    release(lab, "yank", name.title().replace("-", "."), f"{version}.0", "broken on <Windows>")
    assert files(edge, name)[wheel.name]["yanked"] == "broken on <Windows>"
    assert b'data-yanked="broken on &lt;Windows&gt;"' in get(edge, f"/simple/{name}/").body
    release(lab, "unyank", name.replace("-", "_"), version)
    assert "yanked" not in files(edge, name)[wheel.name]
    release(lab, "delete", name, version)
    assert get(edge, f"/packages/{wheel.name}").status == get(edge, f"/simple/{name}/").status == 404
    assert edge.upload(wheel, "alice").status == 200


def test_what_does_not_exist_is_not_yanked(lab: Lab) -> None:
    about = {"release_action": "yank", "release_name": "acme-nothing", "release_version": "1.0"}
    run = lab.site(playbook="playbooks/release.yml", **about)
    assert run.returncode != 0 and "acme-nothing (1.0) not found" in run.stdout, run.stdout


def test_what_is_put_into_the_directory_appears_and_goes(lab: Lab, edge: Edge, make: MakeWheel, version: str) -> None:
    name = f"acme-by-hand-{version.partition('.')[2]}"
    wheel = make(name, 1_000)
    mounts = lab.containers()["pypiserver"]["Mounts"]
    [packages] = [mount["Source"] for mount in mounts if mount["Destination"] == "/data/packages"]
    subprocess.run(["docker", "cp", "--quiet", wheel, f"{lab.container(lab.server_name)}:{packages}/"], check=True)

    def status() -> int:
        return get(edge, f"/simple/{name}/").status

    wait_until("it is on its page", lambda: status() == 200, 15)
    assert get(edge, f"/packages/{wheel.name}").body == wheel.read_bytes()
    wait_until("the list of projects has it", lambda: f'"{name}/"'.encode() in get(edge, "/simple/").body, 15)
    lab.server.check_output(f"rm {packages}/{wheel.name}")
    wait_until("it is gone", lambda: status() == 404, 15)


def test_a_page_of_very_many_files(lab: Lab, edge: Edge, version: str, tmp_path: Path) -> None:
    """It is there compressed only, and unpacked for the few who want it plain."""
    name = f"acme-many-{version.partition('.')[2]}"
    for number in range(1_030):
        make_wheel(name, f"1.{number}", 0, tmp_path)
    mounts = lab.containers()["pypiserver"]["Mounts"]
    [packages] = [mount["Source"] for mount in mounts if mount["Destination"] == "/data/packages"]
    subprocess.run(
        ["docker", "cp", "--quiet", f"{tmp_path}/.", f"{lab.container(lab.server_name)}:{packages}/"], check=True
    )

    def count() -> int:
        answer = get(edge, f"/simple/{name}/", **{"Accept": JSON, "Accept-Encoding": "gzip"})
        return len(json.loads(gzip.decompress(answer.body))["files"]) if answer.status == 200 else 0

    wait_until("all of it is on its page", lambda: count() == 1_030, 180)
    for accept in ("text/html", JSON, "text/html;q=0.5, */*;q=0.1"):
        packed = get(edge, f"/simple/{name}/", **{"Accept": accept, "Accept-Encoding": "gzip"})
        plain = get(edge, f"/simple/{name}/", Accept=accept)
        assert (packed.headers["content-encoding"], plain.headers.get("content-encoding")) == ("gzip", None)
        assert packed.headers["content-type"] == plain.headers["content-type"]
        assert gzip.decompress(packed.body) == plain.body and plain.body.count(b"acme_many_") >= 1_030
    lab.server.check_output(f"find {packages} -name '{name.replace('-', '_')}-*' -delete")
    wait_until("it is gone", lambda: count() == 0, 60)
