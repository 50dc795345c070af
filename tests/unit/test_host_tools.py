"""The modules that look at a host and write files there, run as Ansible runs them: a process that is given JSON."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from host_tools import KINDS, refused

LIBRARY = Path(__file__).parents[2] / "roles/host_tools/library"
ME: dict[str, Any] = {"owner": str(os.getuid()), "group": str(os.getgid())}


def run(name: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": check, **arguments}})
    done = subprocess.run(
        [sys.executable, LIBRARY / f"{name}.py"], input=given, capture_output=True, text=True, check=False
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer.get("failed", False) == (done.returncode != 0)
    return answer


def write(path: Path, check: bool = False, **files: str) -> dict[str, Any]:
    """Files `a`, `b/c` and so on, given as a and b__c; nothing else may be in `b`."""
    listed = [{"name": name.replace("__", "/"), "content": content, **ME} for name, content in files.items()]
    return run("host_files", check, path=str(path), **ME, files=listed, only=["b"])


def content(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    first = write(tmp_path / "new", a="1\n", b__c="2\n")
    assert first["changed"] and first["files"] == ["a", "b/c"]
    assert content(tmp_path / "new") == {"a": "1\n", "b/c": "2\n"}
    before = (tmp_path / "new/a").stat()
    second = write(tmp_path / "new", a="1\n", b__c="2\n")
    assert (second["changed"], second["files"], second["diff"]) == (False, [], [])
    assert (tmp_path / "new/a").stat() == before


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    dry = write(tmp_path / "new", check=True, a="1\n", b__c="2\n")
    assert dry["changed"] and dry["files"] == ["a", "b/c"]
    assert not (tmp_path / "new").exists()
    write(tmp_path / "new", a="1\n", b__c="2\n", b__d="3\n")
    dry = write(tmp_path / "new", check=True, a="other\n")
    assert [(said["before"], said["after"]) for said in dry["diff"][:1]] == [("1\n", "other\n")]
    assert content(tmp_path / "new") == {"a": "1\n", "b/c": "2\n", "b/d": "3\n"}


def test_what_is_not_listed_goes_where_nothing_else_may_be_and_stays_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, a="1\n", b__c="2\n", b__d__e="3\n", f__g="4\n")
    changed = write(tmp_path, b__c="2\n")
    assert changed["changed"]
    assert content(tmp_path) == {"a": "1\n", "b/c": "2\n", "f/g": "4\n"}
    assert not (tmp_path / "b/d").exists()


def test_modes_are_mended(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "path": str(tmp_path),
        **ME,
        "mode": "0750",
        "directories": [{"name": "d", "mode": "0700", **ME}],
    }
    arguments["files"] = [{"name": "a", "content": "1", "mode": "0600", **ME}]
    run("host_files", **arguments)
    for name, mode in {"": 0o777, "d": 0o777, "a": 0o666}.items():
        (tmp_path / name).chmod(mode)
    dry = run("host_files", check=True, **arguments)
    assert dry["changed"] and {"before": {"mode": "0777"}, "after": {"mode": "0700"}} in [
        {key: said[key] for key in ("before", "after")} for said in dry["diff"]
    ]
    assert run("host_files", **arguments)["changed"]
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("", "d", "a")}
    assert modes == {"": 0o750, "d": 0o700, "a": 0o600}
    assert not run("host_files", **arguments)["changed"]


def test_a_directory_whose_mode_nobody_gave_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    files = [{"name": name, "content": "1", **ME} for name in ("there/a", "new/a")]
    run("host_files", path=str(tmp_path), files=files)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("", "there", "new")] == [0o700, 0o700, 0o755]


def test_a_secret_is_never_readable_meanwhile(tmp_path: Path) -> None:
    """Not even through a name that it has for a moment, whatever the umask is."""
    file = {"name": "a", "content": "1", "mode": "0600", **ME}
    trace = tmp_path / "trace"
    given = json.dumps({"ANSIBLE_MODULE_ARGS": {"path": str(tmp_path / "new"), **ME, "files": [file]}})
    watch = (
        "import os, runpy, sys; os.umask(0); sys.addaudithook(lambda event, args: event in ('os.rename', 'os.chmod')"
        f" and open({str(trace)!r}, 'a').write(f'{{event}} {{args[0]}} {{os.stat(args[0]).st_mode & 0o777:o}}\\n'));"
        f" runpy.run_path({str(LIBRARY / 'host_files.py')!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", watch], input=given, capture_output=True, text=True, check=True)
    modes = [line.split()[-1] for line in trace.read_text().splitlines() if ".host_files." in line]
    assert modes and set(modes) == {"600"}


def test_bad_files_do_not_replace_good_ones(tmp_path: Path) -> None:
    def validated(text: str) -> dict[str, Any]:
        files = [{"name": "b/c", "content": text, **ME}, {"name": "a", "content": "x", **ME}]
        return run("host_files", path=str(tmp_path / "new"), **ME, files=files, validate="grep -q good %s/b/c")

    assert validated("good\n")["changed"]
    refused = validated("bad\n")
    assert refused["failed"] and "not put into place" in refused["msg"]
    assert content(tmp_path / "new") == {"a": "x", "b/c": "good\n"}
    assert not validated("good\n")["changed"]


def test_a_file_elsewhere_is_judged_before_it_is_there(tmp_path: Path) -> None:
    elsewhere = tmp_path / "etc/unit.conf"
    files = [{"name": str(elsewhere), "content": "bad\n", **ME}]
    refused = run("host_files", path=str(tmp_path / "new"), **ME, files=files, validate=f"grep -q good %s{elsewhere}")
    assert refused["failed"] and not elsewhere.exists()
    files[0]["content"] = "good\n"
    assert run("host_files", path=str(tmp_path / "new"), **ME, files=files, validate=f"grep -q good %s{elsewhere}")[
        "changed"
    ]
    assert elsewhere.read_text() == "good\n"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("")
    assert str(tmp_path / "new") in write(tmp_path / "new", a="1")["msg"]


def test_files_commands_and_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\0")
    seen = run(
        "host_look",
        check=True,
        files=[str(tmp_path / "a"), str(tmp_path / "[b]*"), str(tmp_path / "none" / "**"), str(tmp_path / "**")],
        checksums=[str(tmp_path / "a"), str(tmp_path / "b")],
        commands={"yes": ["printf", "1\n2\n"], "no": ["sh", "-c", "echo why >&2; exit 3"], "none": ["no-such-program"]},
    )
    assert {path: b64decode(text) for path, text in seen["files"].items()} == {str(tmp_path / "a"): b"\xff\0"}
    assert seen["checksums"] == {str(tmp_path / "a"): sha256(b"\xff\0").hexdigest()}
    assert seen["commands"]["yes"] == {"rc": 0, "stdout": "1\n2", "stderr": ""}
    assert seen["commands"]["no"] == {"rc": 3, "stdout": "", "stderr": "why"}
    assert seen["commands"]["none"]["rc"] == 127


def test_a_directory_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    assert run("host_look", files=[str(tmp_path)])["msg"] == f"{tmp_path}: Is a directory"


@pytest.mark.parametrize(
    ("listen", "ask"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")]
)
def test_a_port_in_use(listen: str, ask: str) -> None:
    with socket.socket() as server:
        server.bind((listen, 0))
        server.listen()
        where = {"address": ask, "port": server.getsockname()[1]}
        program = f"{Path('/proc/self/comm').read_text().strip()} (process {os.getpid()})"
        assert run("host_look", ports=[where])["ports"] == [
            {**where, "error": "EADDRINUSE", "listeners": [{"address": listen, "program": program}]}
        ]
    assert run("host_look", ports=[where])["ports"] == [{**where, "error": "", "listeners": []}]


@pytest.mark.parametrize(
    ("listen", "ask", "error"), [("::", "::1", "EADDRINUSE"), ("::", "0.0.0.0", ""), ("0.0.0.0", "::", "")]
)
def test_ipv4_and_ipv6_are_in_each_other_s_way_no_more_than_docker_s_own(listen: str, ask: str, error: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET) as server:
        if ":" in listen:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((listen, 0))
        server.listen()
        seen = run("host_look", ports=[{"address": ask, "port": server.getsockname()[1]}])["ports"][0]
    assert (seen["error"], [who["address"] for who in seen["listeners"]]) == (error, [listen])


def test_an_address_that_the_machine_does_not_have() -> None:
    assert run("host_look", ports=[{"address": "192.0.2.1", "port": 80}])["ports"][0]["error"] == "EADDRNOTAVAIL"


GOOD_AND_BAD: dict[str, tuple[list[object], list[object]]] = {
    "path": (["/opt/pypi"], ["opt/pypi", "/opt/a b", "/a:b", "/", "", "/opt\n"]),
    "place": (["/srv/packages", "pypi_packages"], ["srv/packages", "-p", "p"]),
    "image": (["nginx:1.28", "hub:5000/a/b@sha256:" + "0" * 64], ["nginx:1.28@sha256:cafe", "NGINX", "a b"]),
    "checksum": (["sha256:" + "a" * 64], ["a" * 64, "sha256:" + "A" * 64, ""]),
    "size": (["512m", "1g"], ["512", "0m", "1.5g", "512M"]),
    "number": ([0, "9898"], [-1, "x", ""]),
    "port": ([1, "8443", 65535], [0, 65536, "080", -1, "http"]),
    "workers": (["auto", 1], [0, "many"]),
    "host name": (["pypi.example.com", "pypi"], ["https://pypi.example.com", "pypi.example.com.", "*.example.com"]),
    "url": (["https://mirror.example.com", "http://m:5000/x"], ["mirror.example.com", "https://", "ftp://m"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_input_that_is_not_of_its_kind_is_named(kind: str) -> None:
    good, bad = GOOD_AND_BAD[kind]
    assert refused({"one": good[0], "many": good}, kind) == []
    said = refused({"one": bad[0], "many": [*good, *bad]}, kind)
    names = ["one", *(f"many[{len(good) + number}]" for number in range(len(bad)))]
    assert [sentence.split(" is ")[0] for sentence in said] == names
    assert all(sentence.endswith(KINDS[kind][1]) for sentence in said)
