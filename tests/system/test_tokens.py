"""A token does what its scope says and its account may, and says whose it is; what is over is refused with the reason."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeWheel
from .lab import PASSWORDS, SURVIVOR, TOKENS, Answer, Edge, Lab, basic, bearer, recap, right, wait_until

READERS = ["erin/laptop", "erin/release", "robot/nightly"]
EXPIRED = "The token erin/old has expired: its last day was 2020-01-31 (UTC)."
UNKNOWN = "This token is unknown here, or was withdrawn."
FOREIGN = "This token is of another account: log in as __token__."


def assert_refused(answer: Answer, reason: str) -> None:
    assert (answer.status, answer.reason) == (401, reason), "the reason is all that pip -vv and twine show"
    assert answer.body.decode() == f"{reason}\n"
    assert answer.headers["www-authenticate"].startswith("Basic realm="), answer


def upload(edge: Edge, wheel: Path, token: str) -> Answer:
    headers, body = edge.form(wheel, "alice")
    return edge.request("/", headers | bearer(token), "POST", body)


@contextmanager
def changed(lab: Lab, change: Callable[[dict[str, Any]], object]) -> Generator[None]:
    """The index with other rights for a while."""
    file = f"{lab.project}/users/roles.json"
    rights = json.loads(lab.server.check_output(f"cat {file}"))
    change(rights)
    lab.server.check_output(f"cp --preserve {file} {file}.kept")
    try:
        lab.server.check_output(
            f"cp --preserve {file} {file}.new && printf %s %s > {file}.new", "%s", json.dumps(rights)
        )
        lab.server.check_output(f"mv {file}.new {file}")
        yield
    finally:
        lab.server.check_output(f"mv {file}.kept {file}")


@pytest.mark.parametrize("token", READERS)
@pytest.mark.parametrize("own_name", [False, True])
def test_every_token_reads(edge: Edge, token: str, own_name: bool) -> None:
    """By the login, and then by the door."""
    login = basic(token.partition("/")[0], TOKENS[token]) if own_name else basic("__token__", TOKENS[token])
    for _ in range(2):
        assert edge.request("/simple/", {"Authorization": login}).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/simple/", "/simple/survivor/", f"/packages/{SURVIVOR}", "/pypi/survivor/json", "/nothing"]
)
def test_an_expired_one_is_refused_on_every_path_and_every_time(edge: Edge, path: str) -> None:
    for _ in range(2):
        assert_refused(edge.request(path, bearer("erin/old")), EXPIRED)


def test_an_expired_one_uploads_nothing(edge: Edge, make: MakeWheel) -> None:
    """Also when it has sent everything before it listens."""
    answer = upload(edge, make("acme-expired", 300_000), "erin/old")
    assert_refused(answer, EXPIRED)
    assert edge.request("/simple/acme-expired/", right("alice")).status == 404


@pytest.mark.parametrize("user", PASSWORDS)
def test_it_is_no_password_of_another_account(edge: Edge, user: str) -> None:
    assert_refused(edge.request("/simple/", {"Authorization": basic(user, TOKENS["robot/nightly"])}), FOREIGN)


def test_what_is_no_whole_token_is_a_wrong_password(edge: Edge) -> None:
    """And whoever tries too many of these is slowed down, but not who has a whole one."""
    token = TOKENS["robot/nightly"]
    wrong = [
        "",
        " ",
        "ppi_",
        token[:-1],
        f"{token}0",
        f" {token}",
        f"{token}\n",
        f"{token}\0",
        PASSWORDS["bob"],
        "ppi_" + "ä" * 49,
    ]
    answers = [edge.request("/simple/", {"Authorization": basic("__token__", secret)}) for secret in [*wrong, "x"]]
    assert {answer.status for answer in answers} <= {401, 429} and answers[-1].status == 429
    assert edge.request("/simple/", bearer("robot/nightly")).status == 200


def test_a_withdrawn_one_is_refused_on_the_next_request_and_the_others_are_not(lab: Lab, edge: Edge) -> None:
    with closing(edge.session()) as session:

        def ask(token: str) -> Answer:
            return edge.request("/simple/", bearer(token), session=session)

        assert ask("erin/laptop").status == ask("erin/release").status == 200
        with changed(lab, lambda rights: rights["erin"]["tokens"].pop("laptop")):
            wait_until("it is refused", lambda: ask("erin/laptop").status == 401, 5)
            assert_refused(ask("erin/laptop"), UNKNOWN)
            assert ask("erin/release").status == 200
        wait_until("it is back", lambda: ask("erin/laptop").status == 200, 5)


def test_a_malformed_one_locks_nobody_out_and_is_named(lab: Lab, edge: Edge) -> None:
    def spoil(rights: dict[str, Any]) -> None:
        rights["erin"]["tokens"]["laptop"]["until"] = "some day"

    with changed(lab, spoil):
        wait_until("it is refused", lambda: edge.request("/simple/", bearer("erin/laptop")).status == 401, 5)
        assert edge.request("/simple/", bearer("erin/release")).status == 200
        assert edge.request("/simple/", right("alice")).status == 200
        said = lab.compose("logs --no-color --no-log-prefix --tail 20 login")
        assert "the token 'laptop' of 'erin' is malformed" in said


def test_it_publishes_what_it_and_its_account_may(edge: Edge, make: MakeWheel) -> None:
    assert upload(edge, make("acme-token-lib", 2_000), "erin/release").status == 200
    for project, reason in {
        "acme-token-app": "erin/release may publish *-lib; acme-token-app is none of these",
        "other-lib": "erin/release may publish acme-*; other-lib is none of these",
    }.items():
        answer = upload(edge, make(project, 2_000), "erin/release")
        assert (answer.status, answer.reason) == (403, reason)
        assert edge.request(f"/simple/{project}/", right("alice")).status == 404


def test_a_token_changes_nothing_by_another_way(edge: Edge, make: MakeWheel, version: str) -> None:
    answer = upload(edge, make("acme-reading-lib", 2_000), "erin/laptop")
    reason = "erin/laptop may download but not upload: ask for a token with the scope publish."
    assert (answer.status, answer.reason, answer.body.decode()) == (403, reason, f"{reason}\n")
    for token in ("erin/laptop", "erin/release"):
        for method in ("PUT", "DELETE", "PATCH"):
            assert edge.request("/packages/acme.whl", bearer(token), method).status == 405
    form = f":action=remove_pkg&name=acme-token-lib&version={version}".encode()
    headers = {**bearer("erin/release"), "Content-Type": "application/x-www-form-urlencoded"}
    assert edge.request("/", headers, "POST", form).status == 403


def test_the_logs_name_it_and_never_have_it(lab: Lab, edge: Edge) -> None:
    mark = secrets.token_hex(8)
    edge.request(f"/simple/?{mark}", bearer("erin/laptop"))
    edge.request("/simple/", bearer("erin/old"))

    def read() -> bool:
        return any(
            mark in line and " erin/laptop " in line for line in lab.compose("logs --tail 50 nginx").splitlines()
        )

    wait_until("the access log names account and token", read, 5)
    lines = [line.split() for line in lab.compose("logs --no-color --no-log-prefix nginx").splitlines()]
    last = {line[2]: line[3].strip("[]") for line in lines if len(line) > 3}
    listed = lab.site(playbook="playbooks/tokens.yml").stdout
    assert re.search(rf"last_use: '?{re.escape(last['erin/laptop'])}'?\n +scope: read\n +token: erin/laptop", listed), (
        listed
    )
    assert re.search(
        r"last_use: not since .*\n +scope: read\n +token: erin/old\n +until: 2020-01-31, which is over", listed
    )
    assert recap(listed)[lab.server_name]["changed"] == 0
    said = lab.compose("logs --no-color nginx login pypiserver")
    assert "login of erin/old failed" in said
    assert not [token for token in TOKENS.values() if token[4:20] in said + listed]


# As users have it: the token in the place of a password, in files that these tools read.


@pytest.fixture(scope="module")
def tools(lab: Lab) -> Callable[[str, str], tuple[int, str]]:
    """Runs a command on the client with a token and without the client's own files: exit code and output."""
    lab.client.check_output("python3 -m venv --clear ~/tokens")

    def run(token: str, command: str) -> tuple[int, str]:
        machine = f"machine {lab.hostname} login __token__ password {TOKENS[token]}"
        lab.client.check_output(
            "mkdir -p ~/with && umask 077 && echo %s > ~/with/.netrc && echo > ~/with/empty", machine
        )
        ca, index = "/etc/ssl/certs/ca-certificates.crt", f"{lab.url}/simple/"
        variables = {
            "NETRC": "$HOME/with/.netrc",
            "PIP_CONFIG_FILE": "$HOME/with/empty",
            "UV_CONFIG_FILE": "$HOME/with/empty",
            "PIP_INDEX_URL": index,
            "UV_DEFAULT_INDEX": index,
            "PIP_CERT": ca,
            "SSL_CERT_FILE": ca,
            "TWINE_CERT": ca,
            "TWINE_USERNAME": "__token__",
            "TWINE_PASSWORD": TOKENS[token],
            "UV_PUBLISH_TOKEN": TOKENS[token],
        }
        ran = lab.client.run(" ".join([*(f'{name}="{value}"' for name, value in variables.items()), command, "2>&1"]))
        return ran.rc, ran.stdout

    return run


@pytest.mark.parametrize(
    "read",
    [
        "~/tokens/bin/pip download -vv --no-input --no-cache-dir --no-deps -d ~/with survivor",
        "uv pip install --no-cache --reinstall --python ~/tokens survivor",
    ],
)
def test_pip_and_uv_read_with_it_and_show_why_not(tools: Callable[[str, str], tuple[int, str]], read: str) -> None:
    assert tools("robot/nightly", read)[0] == 0
    code, said = tools("erin/old", read)
    assert code != 0 and (EXPIRED if "-vv" in read else "401 Unauthorized") in said, said


@pytest.mark.parametrize(
    "tool", ["twine upload --non-interactive --config-file ~/with/empty --repository-url", "uv publish --publish-url"]
)
def test_twine_and_uv_upload_with_it_and_show_why_not(
    lab: Lab, tools: Callable[[str, str], tuple[int, str]], make: MakeWheel, tool: str
) -> None:
    wheel = lab.bring(make(f"acme-{tool.split()[0]}-token-lib", 2_000))
    for token, reason in {"erin/old": EXPIRED, "robot/nightly": "ask for a token with the scope publish"}.items():
        code, said = tools(token, f"{tool} {lab.url}/ {wheel}")
        assert code != 0 and reason in " ".join(said.split()), said
    code, said = tools("erin/release", f"{tool} {lab.url}/ {wheel}")
    assert code == 0, said
