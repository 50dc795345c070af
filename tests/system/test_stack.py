"""What the containers can do, and who can reach them: as Docker and the kernel have it, not as compose.yml says."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import pytest

from .lab import Edge, Lab, right, wait_until

SERVICES = ["nginx", "login", "pypiserver"]


@pytest.fixture(scope="module")
def stack(lab: Lab) -> dict[str, Any]:
    return lab.containers()


def status(lab: Lab, container: Any) -> dict[str, str]:
    """/proc/PID/status of a container's first process."""
    lines = lab.server.check_output(f"cat /proc/{container['State']['Pid']}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def address(container: Any) -> str:
    """In the network that all three share."""
    networks = container["NetworkSettings"]["Networks"]
    return str(next(network["IPAddress"] for name, network in networks.items() if name.endswith("back")))


def test_the_stack_is_these_three(stack: dict[str, Any]) -> None:
    assert sorted(stack) == sorted(SERVICES)


def test_only_nginx_publishes_ports(lab: Lab, stack: dict[str, Any]) -> None:
    published = {name: c["HostConfig"]["PortBindings"] or {} for name, c in stack.items()}
    ports = {port: [binding["HostPort"] for binding in bindings] for port, bindings in published["nginx"].items()}
    assert ports == {"8080/tcp": [str(lab.plain_port)], "8443/tcp": [str(lab.port)]}
    assert not published["login"] and not published["pypiserver"]


def test_the_firewall_lets_in_nothing_but_the_index(lab: Lab) -> None:
    """Off unless wanted; where it is on, it is on again after the reboot."""
    closed = bool(lab.of_server.get("host_firewall_enabled"))
    lab.server.check_output("systemd-run --collect --unit neighbour python3 -m http.server 9100")
    try:
        ask = "curl --silent --output /dev/null --max-time 3 http://{}:9100/"
        wait_until("the neighbour answers", lambda: lab.server.run(ask.format("127.0.0.1")).rc == 0, 10)
        assert (lab.client.run(ask.format(lab.server_name)).rc != 0) == closed
    finally:
        lab.server.check_output("systemctl stop neighbour")


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_can_do_little(lab: Lab, stack: dict[str, Any], service: str) -> None:
    settings = stack[service]["HostConfig"]
    assert settings["RestartPolicy"]["Name"] == "always"
    assert settings["ReadonlyRootfs"] and not settings["Privileged"]
    assert settings["CapDrop"] == ["ALL"] and not settings["CapAdd"]
    assert 0 < settings["Memory"] <= 512 * 2**20
    assert 0 < settings["PidsLimit"] <= 256
    assert settings["NetworkMode"] != "host" and not settings["PidMode"] and settings["IpcMode"] != "host"
    process = status(lab, stack[service])
    assert "0" not in process["Uid"].split() + process["Gid"].split()
    assert int(process["CapEff"], 16) == int(process["CapPrm"], 16) == int(process["CapBnd"], 16) == 0
    assert process["NoNewPrivs"] == "1"


@pytest.mark.parametrize("service", SERVICES)
def test_the_root_of_a_container_is_read_only(lab: Lab, service: str) -> None:
    refused = lab.server.run(
        f"docker compose --project-directory {lab.project} exec -T {service} touch /etc/x /usr/x /x"
    )
    assert refused.rc != 0 and refused.stderr.count("Read-only file system") == 3, refused.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_mounts(lab: Lab, stack: dict[str, Any], service: str) -> None:
    mounts = {mount["Destination"]: mount for mount in stack[service]["Mounts"]}
    assert not [where for where, mount in mounts.items() if "docker.sock" in where + mount["Source"]]
    writable = {where for where, mount in mounts.items() if mount["RW"] and mount["Type"] != "tmpfs"}
    assert not mounts["/users"]["RW"]
    assert not (writable & {"/tls", "/login", "/etc/pypi", "/pypiserver"})
    # nginx may only read there, as its group may; see test_public.py.
    assert writable <= {"/data/known/public"} or service == "pypiserver", "only pypiserver stores anything"


def test_the_packages_are_where_they_were_asked_to_be(lab: Lab, stack: dict[str, Any]) -> None:
    mount = {mount["Destination"]: mount for mount in stack["pypiserver"]["Mounts"]}["/data/packages"]
    wanted = str(lab.of_server.get("pypi_stack_packages", "pypi_packages"))
    assert (mount["Source"] if wanted.startswith("/") else mount["Name"]) == wanted
    assert lab.server.run(f"ls {mount['Source']} | grep -q survivor-1.0").rc == 0


@pytest.mark.parametrize("service", SERVICES)
def test_logs_are_rotated(lab: Lab, stack: dict[str, Any], service: str) -> None:
    log = stack[service]["HostConfig"]["LogConfig"]
    size, files = (lab.of_server.get(f"pypi_stack_log_max_{what}") for what in ("size", "files"))
    assert log == {"Type": "json-file", "Config": {"max-size": size or "10m", "max-file": str(files or 5)}}


# What a container of somebody else would try. It prints what it got and from whom: the host has no route to the network `back`,
# and what is beyond the host may answer for any address.
PROBE = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=4)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    sys.exit(print("unreachable"))
print(answer.status, (answer.headers["Server"] or "nobody").partition("/")[0])
"""


def probe(lab: Lab, stack: dict[str, Any], network: str, url: str) -> str:
    image = stack["pypiserver"]["Config"]["Image"]
    return str(
        lab.server.check_output(
            "docker run --rm --network %s --entrypoint python3 %s -c %s %s", network, image, PROBE, url
        )
    )


@pytest.mark.parametrize("service", ["pypiserver", "login"])
def test_unreachable_from_other_networks(lab: Lab, stack: dict[str, Any], service: str) -> None:
    url = f"http://{address(stack[service])}:8080/"
    network = next(iter(stack["login"]["NetworkSettings"]["Networks"]))
    assert "gunicorn" in probe(lab, stack, network, url)
    assert "gunicorn" not in probe(lab, stack, "bridge", url)
    # The probe itself can reach what may be reached.
    gateway = stack["nginx"]["NetworkSettings"]["Networks"]
    front = next(network["Gateway"] for name, network in gateway.items() if name.endswith("front"))
    assert probe(lab, stack, "bridge", f"http://{front}:{lab.plain_port}/health") == "200 nginx"


@pytest.mark.parametrize("path", ["/simple/", "/survivor/", "/packages/survivor-1.0-py3-none-any.whl"])
def test_pypiserver_itself_asks_for_a_password(lab: Lab, stack: dict[str, Any], path: str) -> None:
    """For whoever gets into its network all the same."""
    network = next(name for name in stack["pypiserver"]["NetworkSettings"]["Networks"] if name.endswith("back"))
    assert probe(lab, stack, network, f"http://pypiserver:8080{path}") == "401 gunicorn"


def test_login_and_pypiserver_have_no_way_out(lab: Lab, stack: dict[str, Any]) -> None:
    for service in ("login", "pypiserver"):
        assert all(name.endswith("back") for name in stack[service]["NetworkSettings"]["Networks"])
    network = next(iter(stack["login"]["NetworkSettings"]["Networks"]))
    assert json.loads(lab.server.check_output(f"docker network inspect {network}"))[0]["Internal"]
    assert probe(lab, stack, network, f"http://{lab.edge.address}:{lab.plain_port}/health") == "unreachable"


@pytest.mark.parametrize("service", ["login", "pypiserver"])
def test_login_and_pypiserver_reach_no_service_of_the_host(lab: Lab, stack: dict[str, Any], service: str) -> None:
    """Not over the gateway of their own network, and not over any other address that it has."""
    networks = json.loads(lab.server.check_output("docker network inspect $(docker network ls --quiet)"))
    gateways = {
        part["Gateway"] for network in networks for part in network["IPAM"]["Config"] or () if "Gateway" in part
    }
    addresses = sorted(gateways | {lab.edge.address})
    assert len(addresses) >= 3
    lab.server.check_output("systemd-run --collect --unit neighbour python3 -m http.server 9100")
    try:
        ask = "curl --silent --output /dev/null --max-time 3 http://127.0.0.1:9100/"
        wait_until("the neighbour answers", lambda: lab.server.run(ask).rc == 0, 10)
        for address in addresses:
            said = lab.server.check_output(
                f"docker exec {stack[service]['Id']} python3 -c %s %s", PROBE, f"http://{address}:9100/"
            )
            assert said == "unreachable", address
    finally:
        lab.server.check_output("systemctl stop neighbour")


@pytest.mark.parametrize("path", ["/", "/simple/survivor/", "/packages/a%20b?c=d"])
def test_plain_http_redirects(lab: Lab, path: str) -> None:
    asked = f"curl --silent --output /dev/null --write-out '%{{http_code}} %{{redirect_url}}' '{lab.hostname}:{lab.plain_port}{path}'"
    assert lab.client.check_output(asked) == f"308 {lab.url}{path}"


@pytest.mark.parametrize("path", ["/simple/survivor/", "/simple/no-such-project/", "/health"])
@pytest.mark.parametrize("headers", [{}, right("alice")], ids=["anonymous", "alice"])
def test_hsts_is_on_every_answer(edge: Edge, path: str, headers: dict[str, str]) -> None:
    value = edge.request(path, headers).headers.get("strict-transport-security", "")
    assert int(value.partition("max-age=")[2].partition(";")[0]) >= 31536000


def handshake(edge: Edge, version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    context.minimum_version = context.maximum_version = version
    with socket.create_connection((edge.address, edge.port), 10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=edge.hostname) as secure:
                return str(secure.version())
        except ssl.SSLError as error:
            return str(error.reason)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(edge: Edge) -> None:
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        # The server's own alert: a client that does not speak it would prove nothing.
        assert handshake(edge, version) == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert handshake(edge, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert handshake(edge, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"])
def test_weak_ciphers_are_refused(edge: Edge, ciphers: str) -> None:
    """No forward secrecy, or no authenticated encryption."""
    assert handshake(edge, ssl.TLSVersion.TLSv1_2, f"{ciphers}:@SECLEVEL=0") == "SSLV3_ALERT_HANDSHAKE_FAILURE"


def test_tls_sessions_are_resumed(lab: Lab) -> None:
    asked = (
        f"echo | openssl s_client -connect {lab.hostname}:{lab.port} -reconnect -tls1_2 2>/dev/null | grep -c ^Reused,"
    )
    assert lab.client.check_output(asked) == "5"


def test_the_key_is_for_nginx_only(lab: Lab, stack: dict[str, Any]) -> None:
    key = lab.server.file(f"{lab.project}/tls/key.pem")
    assert (key.user, key.mode & 0o037) == ("root", 0)
    assert lab.server.run(f"getent group {key.gid}").rc != 0, "a service of the host may be in it"
    assert [name for name in SERVICES if str(key.gid) in status(lab, stack[name])["Groups"].split()] == ["nginx"]
    assert lab.server.run(f"find {lab.project} -perm /022 -not -type l").stdout == ""


@pytest.mark.parametrize("what", ["index", "packages", "users/htpasswd", "users/roles.json", "tls", "tls/key.pem"])
def test_an_ordinary_account_of_the_host_reads_none_of_it(lab: Lab, stack: dict[str, Any], what: str) -> None:
    mounts = {mount["Destination"]: mount["Source"] for mount in stack["pypiserver"]["Mounts"]}
    path = mounts["/data/packages"] if what == "packages" else f"{lab.project}/{what}"
    read = f"find {path} -maxdepth 0 -type f -exec cat {{}} + -o -exec ls {{}} +"
    assert lab.server.check_output(read)
    refused = lab.server.run(f"runuser -u nobody -- {read}")
    assert refused.rc != 0 and refused.stdout == "" and "Permission denied" in refused.stderr
