"""Nobody gets anything without the right password, whatever way they ask and whatever else is down."""

from __future__ import annotations

import json
import secrets
import statistics
import time
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Generator
from contextlib import closing, contextmanager
from math import inf

import pytest

from .conftest import MakeWheel
from .lab import GONE, PASSWORDS, SURVIVOR, Answer, Edge, Lab, basic, best, right, wait_until

pytestmark = pytest.mark.scenario("default")

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
    assert answer.body in (b"", b"User and password, please.\n"), answer


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


class TestWhilePypiserverIsDown:
    @pytest.fixture(autouse=True, scope="class")
    def down(self, lab: Lab) -> Generator[None]:
        lab.server.check_output(f"docker stop --time 1 {lab.containers()['pypiserver']['Id']}")
        yield
        lab.compose("start pypiserver 2>&1")
        wait_until("pypiserver answers", lab.edge.takes_uploads, 30)

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
    assert answer.reason == answer.body.decode().strip(), "all that twine shows"
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
        upload = edge.request("/", right("bob"), "POST", b"x")
        assert upload.status == 403 and b"ask for the role publisher" in upload.body
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


def test_the_log_of_the_login_names_who_was_guessed_at(lab: Lab, edge: Edge) -> None:
    """And nobody whose name does not exist: it may be a password in the wrong field."""
    astray = secrets.token_hex(8)
    for name in ("dave", astray):
        assert_unauthorized(edge.request("/simple/", {"Authorization": basic(name, secrets.token_hex())}))
    said = lab.compose("logs --no-color --no-log-prefix --tail 20 login")
    assert "login of dave failed, from " in said and "login of somebody unknown (" in said
    assert astray not in said


# What nginx remembers, with another nginx.conf for a while

# Stands in for the login service: it takes no time, and says how often it was asked about what.
STUB = """
import base64, collections, http.server, json, os
open('/tmp/stub.pid', 'w').write(str(os.getpid()))
asked = collections.Counter()
class Login(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/asked':
            body = json.dumps(asked).encode()
        else:
            credential = self.headers['Authorization'].split()[-1]
            asked[credential] += 1
            right = base64.b64decode(credential + '==').startswith(b'right')
            self.send_response(204 if right else 401)
            if b'brief' in base64.b64decode(credential + '=='):
                self.send_header('X-Login-Remember', '2000')
            self.send_header('X-Login-User', 'right')
            self.send_header('X-Login-Role', 'reader')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('', 8081), Login).serve_forever()
"""


@contextmanager
def edited(lab: Lab, *changes: tuple[str, str]) -> Generator[None]:
    """nginx with these texts in its configuration instead of others."""
    file = f"{lab.project}/nginx/nginx.conf"
    present = lab.server.check_output(f"cat {file}")
    edits = " ".join(f"-e 's|{before}|{after}|'" for before, after in changes)
    assert all(before in present for before, _ in changes), changes

    def workers() -> set[str]:
        return set(lab.server.check_output(f"pgrep -P {lab.containers()['nginx']['State']['Pid']}").split())

    def reload() -> None:
        old = workers()
        lab.compose("exec -T nginx nginx -t -q -c /etc/pypi/nginx.conf 2>&1")
        lab.compose("kill --signal HUP nginx 2>&1")
        wait_until("nginx has new workers only", lambda: not old & workers(), 30)

    lab.server.check_output(f"cp --preserve {file} {file}.kept && sed -i {edits} {file}")
    try:
        reload()
        yield
    finally:
        lab.server.check_output(f"mv {file}.kept {file}")
        reload()


ASKED = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8081/asked').read().decode())"


def asked(lab: Lab) -> dict[str, int]:
    """How often the stand-in was asked about which name and password, in whatever spelling."""
    counted: dict[str, int] = defaultdict(int)
    for credential, times in json.loads(lab.compose(f'exec -T login python3 -c "{ASKED}"')).items():
        counted[b64decode(f"{credential}==").decode("latin-1")] += times
    return counted


@contextmanager
def stub(lab: Lab, *changes: tuple[str, str]) -> Generator[None]:
    inside = f"docker compose --project-directory {lab.project} exec"
    lab.server.check_output(f"{inside} -d login python3 -c %s", STUB)
    try:
        ready = f'{inside} -T login python3 -c "{ASKED}"'
        wait_until("the stand-in answers", lambda: lab.server.run(ready).rc == 0, 10)
        with edited(lab, ("login http://login:8080/;", "login http://login:8081/;"), *changes):
            yield
    finally:
        lab.server.check_output(f"{inside} -T login sh -c 'kill $(cat /tmp/stub.pid)'")


def spellings(credential: str) -> list[str]:
    value = b64encode(credential.encode()).decode()
    schemes = ["Basic", "basic", "BASIC", "bAsIc"]
    return [
        *(f"{scheme}{' ' * spaces}{value}" for scheme in schemes for spaces in (1, 2, 70, 7000)),
        *(f"Basic {value.rstrip('=')}{'=' * padding}" for padding in range(5)),
        f"Basic {value}  ",
    ]


def test_a_credential_is_one_in_whatever_spelling(lab: Lab, edge: Edge) -> None:
    """Who could fill the memory with spellings of their own would make nginx forget others."""
    mark = secrets.token_hex(4)
    names = {f"right-{mark}:password": 200, f"wrong-{mark}:passwords": 401}
    with stub(lab):
        for name, status in names.items():
            answers = {edge.request("/simple/", {"Authorization": spelling}).status for spelling in spellings(name)}
            assert answers == {status}
        assert {name: times for name, times in asked(lab).items() if mark in name} == dict.fromkeys(names, 1)


def test_a_full_memory_refuses_nobody_and_wrong_passwords_push_out_no_right_one(lab: Lab, edge: Edge) -> None:
    mark = secrets.token_hex(4)
    small = ("zone=wrong:1m", "zone=wrong:32k"), ("zone=right:4m timeout=300s evict", "zone=right:36k timeout=300s")
    with stub(lab, *small), closing(edge.session()) as session:

        def ask(name: str) -> int:
            return edge.request("/simple/", {"Authorization": basic(name, mark)}, session=session).status

        assert ask("right") == 200
        assert {ask(f"wrong-{number}") for number in range(450)} == {401}
        assert ask("right") == 200 and asked(lab)[f"right:{mark}"] == 1
        assert {ask(f"right-{number}") for number in range(450)} == {200}
        assert ask("right") == 200 and asked(lab)[f"right:{mark}"] == 1


def test_a_verdict_ends(lab: Lab, edge: Edge) -> None:
    mark = secrets.token_hex(4)

    def again(name: str) -> bool:
        edge.request("/simple/", {"Authorization": basic(name, mark)})
        return asked(lab)[f"{name}:{mark}"] == 2

    short = ("right:4m timeout=300s", "right:4m timeout=2s"), ("wrong:1m timeout=10s", "wrong:1m timeout=2s")
    with stub(lab, *short):
        wait_until("a right one is verified again", lambda: again("right"), 30)
        wait_until("and a wrong one", lambda: again("wrong"), 30)


def test_a_verdict_ends_with_its_token(lab: Lab, edge: Edge) -> None:
    """Long before what nginx would keep it for, and not what has no end."""
    mark = secrets.token_hex(4)

    def times(name: str) -> int:
        assert edge.request("/simple/", {"Authorization": basic(name, mark)}).status == 200
        return asked(lab)[f"{name}:{mark}"]

    with stub(lab):
        wait_until("it is verified again", lambda: times("right-brief") == 2, 30)
        assert times("right") == times("right") == 1


SET_BACK = 's|Date.now()|& - (fs.existsSync("/users/back") ? 3600000 : 0)|'


def test_what_was_to_end_does_not_live_on_when_the_clock_is_set_back(lab: Lab, edge: Edge) -> None:
    """The hosts of the lab share their clock with this machine: nginx's code is told another time instead."""
    mark = secrets.token_hex(4)
    code, flag = f"{lab.project}/nginx/*/login.js", f"{lab.project}/users/back"
    lab.server.check_output(f"sed -i.kept '{SET_BACK}' {code}")
    try:
        with stub(lab), closing(edge.session()) as session:

            def times() -> int:
                assert edge.request("/simple/", {"Authorization": basic("right", mark)}, session=session).status == 200
                return asked(lab)[f"right:{mark}"]

            assert times() == times() == 1
            lab.server.check_output(f"touch {flag}")
            wait_until("it is verified again", lambda: times() > 1, 30)
            wait_until("and kept again", lambda: times() == times(), 30)
    finally:
        lab.server.check_output(f"rm -f {flag}; for file in {code}; do mv $file.kept $file; done")


def test_who_is_removed_is_out_whatever_the_clock_does(lab: Lab, edge: Edge) -> None:
    """What nginx keeps ends by the time of day. Stepped back by an hour, that makes an hour of the second that the users' seal has."""
    users = f"{lab.project}/users/htpasswd"
    with edited(lab, ("zone=users:32k timeout=1s", "zone=users:32k timeout=1h")):
        session = edge.session()
        assert edge.request("/simple/survivor/", right("bob"), session=session).status == 200
        lab.server.check_output(f"cp --preserve {users} {users}.kept && sed -i /^bob:/d {users}")
        try:
            out = wait_until(
                "bob is out",
                lambda: edge.request("/simple/survivor/", right("bob"), session=session).status == 401,
                10,
            )
        finally:
            lab.server.check_output(f"mv {users}.kept {users}")
    assert out < 5  # a tenth of a second, and a verification
    wait_until("bob is in again", lambda: edge.request("/simple/survivor/", right("bob")).status == 200, 10)
    session.close()
