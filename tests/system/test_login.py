"""Nobody gets anything without the right password, whatever way they ask and whatever else is down."""

from __future__ import annotations

import secrets
import statistics
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Generator
from math import inf

import pytest

from .conftest import MakeWheel
from .lab import GONE, PASSWORDS, SURVIVOR, Answer, Edge, Lab, basic, best, right, wait_until

PATHS = [
    "/",
    "/simple/",
    "/simple",
    "/simple/survivor/",
    "/simple/Survivor/",
    "/simple/no-such-project/",
    "/survivor/",
    "/survivor/json",
    "/packages/",
    f"/packages/{SURVIVOR}",
    f"/packages/{SURVIVOR}.metadata",
    f"/packages/{SURVIVOR}?x=/health",
    f"/packages/{SURVIVOR.replace('s', '%73')}",
    f"/simple/../packages/{SURVIVOR}",
    f"/simple/%2e%2e/packages/{SURVIVOR}",
    f"/health/../packages/{SURVIVOR}",
    f"/health/%2e%2e/packages/{SURVIVOR}",
    f"/%70ackages/{SURVIVOR}",
    f"//packages//{SURVIVOR}",
    f"/./packages/./{SURVIVOR}",
    "/packages/.htpasswd",
    "/no-such-page",
]
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "GET": ("GET", {}),
    "HEAD": ("HEAD", {}),
    "POST": ("POST", {}),
    "PUT": ("PUT", {}),
    "DELETE": ("DELETE", {}),
    "OPTIONS": ("OPTIONS", {}),
    "range": ("GET", {"Range": "bytes=0-9"}),
    "json": ("GET", {"Accept": "application/vnd.pypi.simple.v1+json"}),
    "not modified": ("GET", {"If-None-Match": "*", "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    "other host": ("GET", {"Host": "localhost"}),
    "forged user": ("GET", {"X-Remote-User": "alice", "X-Login-User": "alice", "X-Forwarded-User": "alice"}),
    "forged address": (
        "GET",
        {"X-Original-URL": "/health", "X-Rewrite-URL": "/health", "X-Forwarded-For": "127.0.0.1"},
    ),
}
CREDENTIALS = {
    "nothing": "",
    "wrong password": basic("alice", "wrong"),
    "unknown user": basic("mallory", "wrong"),
    "empty password": basic("alice", ""),
}


def b64(text: bytes) -> str:
    return b64encode(text).decode()


MALFORMED = {
    "no value": "Basic",
    "no value but a space": "Basic ",
    "not base64": "Basic !!!!",
    "base64 with garbage": f"Basic {b64(b'alice:wrong')}%%",
    "no colon": f"Basic {b64(b'alice')}",
    "no user": f"Basic {b64(b':alice-Wonderland-1865')}",
    "empty": f"Basic {b64(b'')}",
    "not UTF-8": f"Basic {b64(bytes([0xFF, 0xFE]) + b':x')}",
    "NUL after the right one": f"Basic {b64(b'alice:alice-Wonderland-1865' + bytes([0]) + b'x')}",
    "longer than bcrypt reads": f"Basic {b64(b'alice:' + b'x' * 100)}",
    "four kilobytes": f"Basic {b64(b'a' * 3000)}",
    "a token": "Bearer 0123456789",
    "digest": 'Digest username="alice", realm="x", nonce="x", uri="/", response="x"',
    "plain": "alice:alice-Wonderland-1865",
    "two in one": f"{basic('mallory', 'x')}, {basic('alice', 'wrong')}",
}


def assert_unauthorized(answer: Answer) -> None:
    assert answer.status == 401, answer
    assert answer.headers["www-authenticate"].startswith("Basic realm="), answer
    assert b"survivor" not in answer.body.lower()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_refused_on_every_path(edge: Edge, path: str, credential: str) -> None:
    value = CREDENTIALS[credential]
    assert_unauthorized(edge.request(path, {"Authorization": value} if value else {}))


@pytest.mark.parametrize("path", ["/", "/simple/survivor/", f"/packages/{SURVIVOR}"])
@pytest.mark.parametrize("way", WAYS)
def test_refused_in_every_way_of_asking(edge: Edge, path: str, way: str) -> None:
    method, headers = WAYS[way]
    assert_unauthorized(edge.request(path, headers, method))


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_header_is_refused(edge: Edge, value: str) -> None:
    assert_unauthorized(edge.request("/simple/survivor/", {"Authorization": value}))


def test_a_refusal_takes_the_same_time_whatever_was_wrong(edge: Edge) -> None:
    """Everyone's typical time within a third of everyone else's. Of three tries the fastest counts: the machine may be busy."""
    nobody = secrets.token_hex
    names = {user: nobody() for user in PASSWORDS}
    fastest: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(PASSWORDS, inf))

    def attempt() -> float:
        for user, name in names.items():
            wrong = {
                "password": basic(user, nobody()),
                "user": basic(name, nobody()),
                "length": basic(name, nobody(64)),
                "header": f"Basic {nobody()}!",
            }
            for what, header in wrong.items():
                session = edge.session()
                start = time.monotonic()
                assert_unauthorized(edge.request("/simple/survivor/", {"Authorization": header}, session=session))
                fastest[what][user] = min(fastest[what][user], time.monotonic() - start)
                session.close()
        typical = [statistics.median(times.values()) for times in fastest.values()]
        return max(typical) / min(typical)

    assert best(attempt, 4 / 3) < 4 / 3, dict(fastest)


def test_the_login_s_own_address_cannot_be_asked(edge: Edge) -> None:
    assert edge.request("/_login", right("alice")).status == 404


def test_anonymous_gets_nothing_that_alice_has_just_got(edge: Edge) -> None:
    for path in ("/simple/", "/simple/survivor/", f"/packages/{SURVIVOR}"):
        assert edge.request(path, right("alice")).status == 200
        assert_unauthorized(edge.request(path))


def test_a_connection_is_not_a_session(edge: Edge) -> None:
    """On one kept connection: alice, then nobody, then alice."""
    session = edge.session()
    path = f"/packages/{SURVIVOR}"
    assert edge.request(path, right("alice"), session=session).status == 200
    assert_unauthorized(edge.request(path, session=session))
    assert edge.request(path, right("alice"), session=session).status == 200


@pytest.mark.parametrize("option", ["--http1.0", "--http1.1", "--http2"])
def test_every_version_of_http(lab: Lab, option: str) -> None:
    ask = f"curl --silent --output /dev/null --write-out '%{{http_version}} %{{http_code}}' {option}"
    url = f"{lab.url}/packages/{SURVIVOR}"
    spoken = option.removeprefix("--http").removesuffix(".0") if option == "--http2" else option.removeprefix("--http")
    # Without --netrc curl does not look at the file; with it, the user's own is used.
    assert lab.client.check_output(f"{ask} {url}").split()[1] == "401"
    assert lab.client.check_output(f"{ask} --netrc {url}").split()[1] == "200"
    assert lab.client.check_output(f"{ask} {url}").split()[0] in (spoken, "1.1"), "the server speaks it"


def test_http_2_is_spoken(lab: Lab) -> None:
    url = f"{lab.url}/simple/"
    assert (
        lab.client.check_output(f"curl --silent --output /dev/null --write-out '%{{http_version}}' --http2 {url}")
        == "2"
    )


def test_a_lower_case_scheme_and_more_spaces_are_the_same_login(edge: Edge) -> None:
    value = right("alice")["Authorization"].replace("Basic ", "basic   ")
    assert edge.request("/simple/survivor/", {"Authorization": value}).status == 200


class TestWhilePypiserverIsDown:
    @pytest.fixture(autouse=True, scope="class")
    def down(self, lab: Lab) -> Generator[None]:
        lab.server.check_output(f"docker stop --time 1 {lab.containers()['pypiserver']['Id']}")
        yield
        lab.compose("start pypiserver 2>&1")
        wait_until("pypiserver answers", lambda: lab.edge.request("/packages/", right("alice")).status == 200, 30)

    @pytest.mark.parametrize("path", ["/", "/packages/", "/simple/", "/simple/survivor/", f"/packages/{SURVIVOR}"])
    def test_who_has_no_password_is_refused(self, edge: Edge, path: str) -> None:
        assert_unauthorized(edge.request(path))
        assert_unauthorized(edge.request(path, {"Authorization": CREDENTIALS["wrong password"]}))
        assert_unauthorized(edge.request(path, method="POST", body=b"x"))

    @pytest.mark.parametrize("path", ["/simple/", "/simple/survivor/", f"/packages/{SURVIVOR}"])
    def test_reads_go_on(self, edge: Edge, path: str) -> None:
        assert edge.request(path, right("alice")).status == 200

    def test_an_upload_is_told_to_come_back(self, edge: Edge, make: MakeWheel) -> None:
        """Soon: neither a name that is not found nor an address where nobody is makes it wait."""
        start = time.monotonic()
        assert edge.upload(make("acme-too-early", 2_000), "alice").status == 503
        assert time.monotonic() - start < 20


@pytest.mark.parametrize("user", PASSWORDS)
def test_everyone_reads(edge: Edge, user: str) -> None:
    assert edge.request(f"/packages/{SURVIVOR}", right(user)).status == 200


@pytest.mark.parametrize("user", GONE)
def test_who_left_and_what_was_replaced_is_refused(edge: Edge, user: str) -> None:
    """The moment after the run itself is looked at by side_effect.yml: a reboot lies between it and this."""
    assert_unauthorized(edge.request("/simple/survivor/", {"Authorization": basic(user, GONE[user])}))


@pytest.mark.parametrize("user", ["bob", "dave"])
def test_a_reader_is_told_why_they_cannot_upload(edge: Edge, make: MakeWheel, user: str) -> None:
    name = f"acme-of-{user}"
    answer = edge.upload(make(name, 2_000), user)
    assert answer.status == 403, answer
    assert user in answer.body.decode() and "publisher" in answer.body.decode()
    assert edge.request(f"/simple/{name}/", right("alice")).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_a_reader_changes_nothing_by_another_method(edge: Edge, method: str) -> None:
    assert edge.request(f"/packages/{SURVIVOR}", right("bob"), method).status in (403, 405)
    assert edge.request(f"/packages/{SURVIVOR}", right("bob")).status == 200


def test_a_publisher_of_some_projects_publishes_those(edge: Edge, make: MakeWheel) -> None:
    assert edge.upload(make("acme-by-erin", 2_000), "erin").status == 200
    answer = edge.upload(make("other-by-erin", 2_000), "erin")
    assert answer.status == 403 and b"acme-*" in answer.body, answer
    assert edge.request("/simple/other-by-erin/", right("alice")).status == 404


def test_removing_through_the_api_is_off(edge: Edge) -> None:
    form = b":action=remove_pkg&name=survivor&version=1.0"
    headers = {**right("alice"), "Content-Type": "application/x-www-form-urlencoded"}
    assert edge.request("/", headers, "POST", form).status in (403, 405)
    assert edge.request(f"/packages/{SURVIVOR}", right("alice")).status == 200


def test_a_login_that_cannot_be_verified_is_not_called_wrong(lab: Lab, edge: Edge) -> None:
    """503, so that no client drops a good password; who is known goes on. It takes seconds, also when nginx knows the old address."""
    assert edge.request("/simple/survivor/", right("bob")).status == 200
    assert_unauthorized(edge.request("/simple/survivor/", {"Authorization": basic("nobody", secrets.token_hex())}))
    lab.server.check_output(f"docker stop --time 1 {lab.containers()['login']['Id']}")
    try:
        unknown = {"Authorization": basic("nobody", secrets.token_hex())}
        assert edge.request("/simple/survivor/", unknown, session=edge.session(30)).status == 503
        assert edge.request("/simple/survivor/", right("bob")).status == 200
        assert_unauthorized(edge.request("/simple/survivor/"))
    finally:
        lab.compose("start login 2>&1")
        wait_until("login answers", lambda: edge.request("/simple/", unknown).status == 401, 30)


def test_the_access_log_names_the_user(lab: Lab, edge: Edge) -> None:
    mark = secrets.token_hex(8)
    edge.request(f"/simple/survivor/?{mark}", right("bob"))
    edge.request(f"/simple/survivor/?{mark}", {"Authorization": basic("forged", "x")})

    def lines() -> dict[str, str]:
        """By status: every worker writes when it pleases."""
        written = [line for line in lab.compose("logs --no-log-prefix --tail 50 nginx").splitlines() if mark in line]
        return {line.partition('" ')[2].split()[0]: line for line in written}

    wait_until("nginx has written both lines", lambda: lines().keys() == {"200", "401"}, 5)
    assert " bob " in lines()["200"]
    assert "forged" not in lines()["401"]
