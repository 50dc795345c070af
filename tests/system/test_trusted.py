"""A pipeline publishes and reads without a stored secret: real nginx, timer, uv and pip.

The provider is a stand-in on the client: a GitLab and a GitHub Enterprise of one address, with real keys, discovery and signatures.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Generator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from index.serve import certified
from issuer import Key, of_github

from .conftest import MakeWheel
from .lab import Answer, Edge, Lab, basic, recap, right, wait_until
from .test_tokens import changed
from .test_verify import look

pytestmark = pytest.mark.scenario("default")

ISSUER = "https://client:8444"
WORKFLOW = "client:8444/acme/lib//.gitlab-ci.yml@refs/tags/v1"
GITLAB = {"issuer": "gitlab", "url": ISSUER, "repository": "acme/lib"}
ACCOUNTS = [
    {
        "name": "lib-release",
        "role": "publisher",
        "projects": ["acme-trusted-*"],
        "trusted": {**GITLAB, "repository_id": 12, "workflow": ".gitlab-ci.yml", "environment": "production"},
    },
    {"name": "lib-tests", "trusted": GITLAB},
    {
        "name": "hub-release",
        "role": "publisher",
        "projects": ["acme-trusted-*"],
        "trusted": {"issuer": "github", "url": ISSUER, "repository": "acme/lib", "workflow": "release.yml"},
    },
]
RSA, EC, OTHER, NEW = Key("rsa"), Key("ec", "ES256"), Key("rsa"), Key("new")


class Provider:
    """The stand-in."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        self.ca = directory / "ca.pem"
        certified(directory, "client")
        program = Path(__file__).with_name("https_files.py")
        for path in (self.ca, directory / "certificate.pem", directory / "key.pem", program):
            lab.bring(path)
        about = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys.json"}
        lab.root_of_client.check_output("mkdir -p /srv/issuer/.well-known")
        self.serve(".well-known/openid-configuration", about)
        self.has(RSA, EC)
        self.start()

    def serve(self, name: str, document: object) -> None:
        self.lab.root_of_client.check_output(f"printf %s %s > /srv/issuer/{name}", "%s", json.dumps(document))

    def has(self, *keys: Key) -> None:
        self.serve("keys.json", {"keys": [key.jwk for key in keys]})

    def start(self) -> None:
        files = "/home/admin/certificate.pem /home/admin/key.pem"
        self.lab.root_of_client.check_output(
            f"systemd-run --collect --unit issuer python3 /home/admin/https_files.py /srv/issuer 8444 {files}"
        )
        wait_until("it answers", lambda: self.lab.client.run(f"curl -sk -o /dev/null {ISSUER}/keys.json").rc == 0, 20)

    def stop(self) -> None:
        self.lab.root_of_client.check_output("systemctl stop issuer")


def deploy(lab: Lab, provider: Provider, *arguments: str) -> str:
    run = lab.site(
        *arguments,
        playbook="playbooks/server.yml",
        pypi_users_accounts="{{ accounts_later + trusting }}",
        trusting=ACCOUNTS,
        pypi_issuers_ca_file=str(provider.ca),
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.fixture(scope="module")
def provider(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Generator[Provider]:
    provider = Provider(lab, tmp_path_factory.mktemp("issuer"))
    deploy(lab, provider)
    there = f"grep -q {RSA.jwk['n']} /opt/pypi-issuers/keys/keys.json"
    wait_until("the keys were fetched", lambda: lab.server.run(there).rc == 0, 60)
    yield provider
    provider.stop()


def of_gitlab(lab: Lab, **other: Any) -> dict[str, Any]:
    """What it says of a run; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": lab.hostname,
        "iat": now,
        "nbf": now - 5,
        "exp": now + 300,
        "jti": str(uuid.uuid4()),
        "sub": "project_path:acme/lib:ref_type:tag:ref:v1",
        "project_path": "acme/lib",
        "project_id": "12",
        "ci_config_ref_uri": WORKFLOW,
        "ref_path": "refs/tags/v1",
        "environment": "production",
        "pipeline_source": "push",
        "pipeline_id": "4711",
        **other,
    }
    return {name: value for name, value in claims.items() if value is not None}


def exchange(edge: Edge, token: str) -> Answer:
    return edge.request(
        "/_/oidc/mint-token", {"Content-Type": "application/json"}, "POST", json.dumps({"token": token}).encode()
    )


def mint(edge: Edge, token: str) -> dict[str, str]:
    """The header to log in with."""
    answer = exchange(edge, token)
    assert answer.status == 200, answer
    assert answer.headers["cache-control"] == "no-store"
    return {"Authorization": basic("__token__", json.loads(answer.body)["token"])}


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["errors"][0]["code"]


def test_the_audience_is_the_index(lab: Lab, edge: Edge, provider: Provider) -> None:
    answer = edge.request("/_/oidc/audience")
    assert (answer.status, json.loads(answer.body)) == (200, {"audience": lab.hostname})


def test_a_second_run_changes_nothing(lab: Lab, provider: Provider) -> None:
    assert recap(deploy(lab, provider))[lab.server_name]["changed"] == 0


def tools(lab: Lab, command: str, **variables: str) -> tuple[int, str]:
    """Runs it on the client as in a job: none of the client's own files, and no secret but those given."""
    lab.client.check_output("cd ~ && cat /etc/ssl/certs/ca-certificates.crt ca.pem > job.pem && echo > empty")
    common = {
        "NETRC": "/dev/null",
        "PIP_CONFIG_FILE": "/dev/null",
        "UV_CONFIG_FILE": "/home/admin/empty",
        "SSL_CERT_FILE": "/home/admin/job.pem",
        "PIP_CERT": "/home/admin/job.pem",
    }
    words = " ".join(f"{name}='{value}'" for name, value in {**common, **variables}.items())
    ran = lab.client.run(f"cd /home/admin && env {words} {command} 2>&1")
    return ran.rc, ran.stdout


UV = "uv publish --trusted-publishing always"


def test_uv_publishes_from_gitlab(lab: Lab, edge: Edge, provider: Provider, make: MakeWheel) -> None:
    wheel = lab.bring(make("acme-trusted-lib", 2_000))
    variable = "".join(c if c.isalnum() else "_" for c in lab.hostname).upper() + "_ID_TOKEN"
    token = RSA.token(of_gitlab(lab))
    status, said = tools(lab, f"{UV} --publish-url {lab.url}/ {wheel}", GITLAB_CI="true", **{variable: token})
    assert status == 0, said
    assert edge.request("/simple/acme-trusted-lib/", right("alice")).status == 200
    log = "logs --no-color --no-log-prefix --since 5m"
    assert "lib-release/gitlab:4711 uploaded acme_trusted_lib" in lab.compose(f"{log} pypiserver")
    assert "minted for lib-release/gitlab:4711" in lab.compose(f"{log} login")
    status, said = tools(lab, f"{UV} --publish-url {lab.url}/ {wheel}", GITLAB_CI="true", **{variable: token})
    assert status != 0 and "invalid-reuse-token" in said, "the same identity token"


def test_uv_publishes_from_github(lab: Lab, edge: Edge, provider: Provider, make: MakeWheel) -> None:
    wheel = lab.bring(make("acme-trusted-hub", 2_000))
    provider.serve("token.json", {"value": EC.token(of_github(iss=ISSUER, aud=lab.hostname))})
    url = f"{ISSUER}/token.json?api-version=2.0"
    variables = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x", "GITHUB_ACTIONS": "true"}
    status, said = tools(lab, f"{UV} --publish-url {lab.url}/ {wheel}", **variables)
    assert status == 0, said
    assert edge.request("/simple/acme-trusted-hub/", right("alice")).status == 200


def with_the_lines_of_the_docs(lab: Lab, identity: str, command: str) -> tuple[int, str]:
    """Runs it after the lines for GitLab, whose identity token is that one."""
    text = (Path(__file__).parents[2] / "docs/trusted-pipelines.md").read_text("utf-8")
    lines = text.partition("```sh\n# GitLab")[2].partition("```")[0].partition("\n")[2]
    assert "mint-token" in lines
    script = lines.replace("pypi.example.com", lab.hostname).replace("$PYPI_EXAMPLE_COM_ID_TOKEN", "$JOB_ID_TOKEN")
    lab.client.check_output("printf %s %s > ~/job.sh", "%s", script)
    variables = {"CURL_CA_BUNDLE": "/home/admin/job.pem", "JOB_ID_TOKEN": identity, "NETRC": "/home/admin/job.netrc"}
    return tools(lab, f"bash -euc '. ./job.sh && {command}'", **variables)


def test_twine_publishes_with_the_lines_of_the_docs(lab: Lab, edge: Edge, provider: Provider, make: MakeWheel) -> None:
    wheel = lab.bring(make("acme-trusted-twine", 2_000))
    login = "TWINE_USERNAME=__token__ TWINE_PASSWORD=$token REQUESTS_CA_BUNDLE=/home/admin/job.pem"
    command = f"{login} twine upload --non-interactive --repository-url {lab.url}/ {wheel}"
    status, said = with_the_lines_of_the_docs(lab, RSA.token(of_gitlab(lab)), command)
    assert status == 0, said
    assert edge.request("/simple/acme-trusted-twine/", right("alice")).status == 200


def test_a_reader_s_pipeline_installs_with_the_lines_of_the_docs(lab: Lab, edge: Edge, provider: Provider) -> None:
    """It has no publisher's workflow, so it reads."""
    identity = RSA.token(of_gitlab(lab, ci_config_ref_uri=None, pipeline_source="merge_request_event"))
    pip = f"pip download --no-cache-dir --no-deps -d down -i {lab.url}/simple/ acme-trusted-lib"
    command = f"rm -rf down && python3 -m venv --clear trusted && trusted/bin/{pip}"
    status, said = with_the_lines_of_the_docs(lab, identity, command)
    assert status == 0, said
    assert "acme_trusted_lib" in lab.client.check_output("ls /home/admin/down")
    assert lab.client.check_output("stat -c %a /home/admin/job.netrc") == "600"


def test_it_may_what_its_account_may(lab: Lab, edge: Edge, provider: Provider, make: MakeWheel) -> None:
    reader = mint(edge, EC.token(of_gitlab(lab, environment="test")))
    for header, project, reason in (
        (reader, "acme-trusted-x", "lib-tests/gitlab:4711 may download but not upload: ask for the role publisher."),
        (
            mint(edge, RSA.token(of_gitlab(lab))),
            "other",
            "lib-release/gitlab:4711 may publish acme-trusted-*; other is",
        ),
    ):
        assert edge.request("/simple/", header).status == 200
        headers, body = edge.form(make(project, 2_000), "alice")
        answer = edge.request("/", headers | header, "POST", body)
        assert answer.status == 403 and answer.reason.startswith(reason), answer
        assert edge.request("/packages/acme.whl", header, "DELETE").status == 405


def test_it_ends_with_the_trust_on_the_next_request(lab: Lab, edge: Edge, provider: Provider) -> None:
    header = mint(edge, RSA.token(of_gitlab(lab)))
    assert edge.request("/simple/", header).status == 200
    with changed(lab, lambda rights: rights["lib-release"].pop("trusted")):
        wait_until("it is refused", lambda: edge.request("/simple/", header).status == 401, 5)
        reason = "lib-release trusts no more what the token lib-release/gitlab:4711 was made for."
        assert edge.request("/simple/", header).reason == reason
    wait_until("it is back", lambda: edge.request("/simple/", header).status == 200, 5)


def test_it_outlives_restarts_and_what_was_used_stays_used(lab: Lab, edge: Edge, provider: Provider) -> None:
    identity = RSA.token(of_gitlab(lab))
    header = mint(edge, identity)
    lab.compose("restart --timeout 10 login nginx")

    def reads() -> bool:
        try:
            return edge.request("/simple/", header).status == 200
        except (OSError, HTTPException):
            return False  # nobody listens yet

    wait_until("the token reads", reads, 60)
    assert code(exchange(edge, identity)) == (422, "invalid-reuse-token")


def test_without_the_login_there_is_a_clear_answer(lab: Lab, edge: Edge, provider: Provider) -> None:
    identity = RSA.token(of_gitlab(lab))
    lab.compose("stop login")
    try:
        assert code(exchange(edge, identity)) == (503, "unavailable")
    finally:
        lab.compose("start login")
    health = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health', timeout=9)"
    command = f'docker compose --project-directory {lab.project} exec -T login python3 -c "{health}"'
    wait_until("the login answers", lambda: lab.server.run(command).rc == 0, 60)
    mint(edge, identity)


def test_verify_tells_of_old_keys_and_of_who_may_read_tokens(lab: Lab, provider: Provider) -> None:
    def found() -> list[str]:
        return [each for each in look(lab) if "minted" in each or each.startswith("issuer: ")]

    assert found() == []
    keys = "/opt/pypi-issuers/keys/keys.json"
    lab.server.check_output(f'chmod 755 /opt/pypi/minted && sed -i \'s/"fetched": [0-9]*/"fetched": 0/\' {keys}')
    try:
        modes = "/opt/pypi/minted has the owner 9898, the group 9898 and the mode 0755 instead of 9898, 9898 and 0700"
        never = f"the keys of {ISSUER} were fetched last: never"
        assert found() == [f"permissions: {modes}", f"issuer: {never}"]
    finally:
        lab.server.check_output("chmod 700 /opt/pypi/minted && systemctl start pypi-issuers")
    assert found() == []


def test_a_key_that_is_new_is_fetched_when_a_token_names_it(lab: Lab, edge: Edge, provider: Provider) -> None:
    provider.has(RSA, EC, NEW)
    mint(edge, NEW.token(of_gitlab(lab)))


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_a_signature_has_to_be_right(lab: Lab, edge: Edge, provider: Provider, key: Key) -> None:
    """nginx verifies it; who is refused for other reasons, tests/unit/test_identity.py asks."""
    token = key.token(of_gitlab(lab))
    head, claims, signature = token.split(".")
    spoilt = [
        f"{head}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{head}.{claims}.{signature[:-8]}",
        f"{head}.{claims}.{'A' * len(signature)}",
        f"{head}.{key.token(of_gitlab(lab)).split('.')[1]}.{signature}",
        key.token(of_gitlab(lab), alg={"RS256": "ES256", "ES256": "RS256"}[key.algorithm]),
    ]
    for wrong in spoilt:
        assert code(exchange(edge, wrong)) == (422, "invalid-token"), wrong
    mint(edge, token)
    assert code(exchange(edge, token)) == (422, "invalid-reuse-token")


@pytest.mark.parametrize(
    "wrong", ["another key", "HS256", "another index", "expired", "garbage", "too long", "far too long", "another id"]
)
def test_others_are_refused_with_pypi_s_code(lab: Lab, edge: Edge, provider: Provider, wrong: str) -> None:
    token, expected = {
        "another key": (OTHER.token(of_gitlab(lab)), "invalid-token"),
        "HS256": (RSA.forged(of_gitlab(lab)), "invalid-token"),
        "another index": (RSA.token(of_gitlab(lab, aud="pypi")), "invalid-token"),
        "expired": (RSA.token(of_gitlab(lab, exp=int(time.time()) - 60)), "invalid-token"),
        "garbage": ("\0", "invalid-payload"),
        "too long": ("a" * 32_769, "invalid-payload"),
        "far too long": ("a" * 2_000_000, "invalid-payload"),
        "another id": (RSA.token(of_gitlab(lab, project_id="13", project_path="acme/other")), "invalid-publisher"),
    }[wrong]
    answer = exchange(edge, token)
    assert code(answer) == (422, expected)
    assert answer.headers["content-type"] == "application/json"


def test_while_the_issuer_is_down_what_is_known_is_good(lab: Lab, edge: Edge, provider: Provider) -> None:
    header = mint(edge, RSA.token(of_gitlab(lab)))
    provider.stop()
    try:
        assert lab.server.run("systemctl start pypi-issuers.service").rc != 0
        assert f"{ISSUER}: " in lab.server.check_output("journalctl --unit pypi-issuers --lines 20 --no-pager")
        assert edge.request("/simple/", header).status == 200
        mint(edge, RSA.token(of_gitlab(lab)))
    finally:
        provider.start()


def test_who_asks_too_often_has_to_wait(edge: Edge, provider: Provider) -> None:
    session = edge.session()
    answers = [edge.request("/_/oidc/audience", session=session) for _ in range(90)]
    late = answers[-1]
    assert (code(late), late.headers["retry-after"]) == ((429, "too-many-requests"), "60")
    session.close()


NETWORKS = """
load_module modules/ngx_http_js_module.so;
pid /tmp/networks.pid;
events {{}}
http {{
    js_path {edge};
    client_body_temp_path /tmp/networks; proxy_temp_path /tmp/networks; fastcgi_temp_path /tmp/networks;
    uwsgi_temp_path /tmp/networks; scgi_temp_path /tmp/networks;
    server {{
        listen 127.0.0.1:9000;
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Real-IP;
        location / {{
            js_import network from network.js;
            js_set $network network.of;
            return 200 $network;
        }}
    }}
}}
"""


def test_a_customer_of_ipv6_is_one(lab: Lab, provider: Provider) -> None:
    """Docker shows nginx the IPv6 addresses of its own networks only, so here nginx is told of some."""
    path = lab.compose("exec nginx sed -n 's/^ *js_path //p' /etc/pypi/nginx.conf").strip().rstrip(";")
    inside = "exec -T nginx"
    lab.server.check_output("printf %s %s > /run/networks.conf", "%s", NETWORKS.format(edge=path))
    lab.compose(f"{inside} sh -c 'cat >/tmp/networks.conf' </run/networks.conf")
    lab.compose(f"{inside} nginx -c /tmp/networks.conf")
    try:
        seen = {}
        for address in ("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"):
            seen[address] = lab.compose(f"{inside} curl -sS -H 'X-Real-IP: {address}' http://127.0.0.1:9000/")
    finally:
        lab.compose(f"{inside} nginx -c /tmp/networks.conf -s quit")
    assert list(seen.values()) == ["20010db800000000", "20010db800000000", "20010db800000001", "c0000201", "c0000202"]


def test_without_an_account_that_trusts_nothing_of_it_is_there(lab: Lab, edge: Edge, provider: Provider) -> None:
    run = lab.site(playbook="playbooks/server.yml")
    assert run.returncode == 0, run.stdout
    assert edge.request("/_/oidc/audience").status == exchange(edge, "x").status == 401
    assert lab.server.run("systemctl list-unit-files 'pypi-issuers*' --no-legend").stdout.strip() == ""
    assert lab.server.run("systemctl list-units --all 'pypi-issuers*' --no-legend").stdout.strip() == ""
    assert not lab.server.file("/opt/pypi-issuers").exists
