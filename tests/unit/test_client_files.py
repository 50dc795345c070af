"""The client's files on a host: what is read and written below a user's hands, and that no change of variables orphans anything."""

from __future__ import annotations

import configparser
import json
import netrc
import os
import pwd
import re
import subprocess
import sys
import tomllib
from base64 import b64encode
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pypi_client_files as files
import pytest
import yaml
from places import places
from platformdirs.macos import MacOS
from pypi_client_edit import plan

ROLE = Path(__file__).parents[2] / "roles/pypi_client"
README = Path(__file__).parents[2] / "README.md"
UID, GID = os.getuid(), os.getgid()
FOREIGN = {
    "etc/pip.conf": "# policy\n[global]\nindex-url = https://their.example/\ntimeout = 42\n",
    "etc/uv/uv.toml": "offline = false\n",
    "home/ci/.netrc": "machine other.example login someone password else\nmachine old.example login mine password own\n",
    "home/dev/.netrc": "machine new.example login mine password own",
    "home/ci/.pypirc": "[distutils]\nindex-servers = other\n\n[other]\nrepository = https://other.example/\n",
    "home/ci/.config/hatch/config.toml": '[publish.index]\nrepo = "main"\n',
    "home/dev/.config/pdm/config.toml": "[pypi]\nurl = 'https://their.example/'",
    "home/dev/.config/pip/pip.conf": "[install]\nuser = true\n",
}


def user(name: str, **more: Any) -> dict[str, Any]:
    return {"user": name, "username": f"{name}-name", "password": f"{name}-s3cr3t", "publish": True, **more}


BEFORE: dict[str, Any] = {
    "users": [user("ci"), user("dev")],
    "scope": "system",
    "index_url": "https://old.example/simple/",
    "upload_url": "https://old.example/",
    "repository": "private",
    "cert": "/bundle",
    "uv_trust": "auto",
    "keep_public": False,
    "tools": ["pip", "uv", "twine"],
    "anonymous_read": False,
    "remove": False,
}


def ini(text: str) -> dict[str, dict[str, list[str]]]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return {name: {key: sorted(value.split()) for key, value in parser.items(name)} for name in parser.sections()}


class Host:
    """A machine below a directory, and the role's way of going about it."""

    def __init__(self, base: Path, foreign: Iterable[str] = FOREIGN) -> None:
        self.base = base
        for name in ("etc", "var/lib", "home/ci", "home/dev"):
            (base / name).mkdir(parents=True)
        for name in foreign:
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_text(FOREIGN[name])

    def plan(self, uv: dict[str, list[str]] | None = None, **variables: Any) -> dict[str, list[Any]]:
        want = BEFORE | variables
        users = want.pop("users")
        homes = {
            name: [name, "x", str(UID), str(GID), "", f"{self.base}/home/{name}", "/bin/sh"] for name in ("ci", "dev")
        }
        here = places("Linux", self.base)
        targets = plan.pypi_client_targets(users, want["scope"], here, homes, want)
        record = here["record"]
        seen = files.look({"record": record, "read": targets, "store": None, "uv": []}) | {"uv": uv or {}}
        return plan.pypi_client_plan(seen, targets, users, want, record)

    def run(self, steps: int | None = None, **variables: Any) -> list[str]:
        """The files that were written; all of them, or the first ones only."""
        writes = self.plan(**variables)["writes"][:steps]
        for write in writes:
            files.write(write | {"uid": UID, "gid": GID})
        return [plan.pypi_client_place(write) for write in writes]

    def tree(self) -> dict[str, str]:
        files = [path for path in self.base.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.base)): path.read_text().replace(str(self.base), "") for path in files}

    def meaning(self) -> dict[str, Any]:
        """The tree, but INI files as what they say: the order of what we put in depends on the way."""
        tree: dict[str, Any] = self.tree()
        return {name: ini(text) if name.endswith(("pip.conf", ".pypirc")) else text for name, text in tree.items()}


# --- changes of the variables on a living client

CHANGES: dict[str, dict[str, Any]] = {
    "another host": {"index_url": "https://new.example/simple/", "upload_url": "https://new.example/"},
    "another port": {"index_url": "https://old.example:8443/simple/", "upload_url": "https://old.example:8443/"},
    "plain http": {"index_url": "http://old.example/simple/", "upload_url": "http://old.example/", "cert": ""},
    "another place for uploads": {"upload_url": "https://up.example/"},
    "another name": {"repository": "team"},
    "another scope": {"scope": "user"},
    "a user less": {"users": [user("ci")]},
    "no users": {"users": []},
    "one publishes no longer": {"users": [user("ci", publish=False), user("dev")]},
    "another password": {"users": [user("ci", password="n3w"), user("dev")]},
    "a public CA": {"cert": ""},
    "the public index as well": {"keep_public": True},
    "anonymous reading": {"anonymous_read": True},
    "every tool": {"tools": list(plan.KINDS)},
    "every tool in the scope user": {"tools": list(plan.KINDS), "scope": "user"},
    "no tool": {"tools": []},
    "everything": {
        "index_url": "http://new.example/simple/", "upload_url": "http://up.example/", "repository": "team", "cert": "",
        "scope": "user", "users": [user("dev", password="n3w")], "keep_public": True,
        "tools": list(plan.KINDS),
    },
    "nothing": {},
    "absent": {"remove": True},
}  # fmt: skip


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> dict[str, Any]:
    return CHANGES[request.param]


@pytest.fixture(params=[FOREIGN, ()], ids=["foreign lines", "empty host"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Host]:
    return lambda name: Host(tmp_path / name, request.param)


def test_a_change_and_the_way_back_leave_nothing_behind(host: Callable[[str], Host], change: dict[str, Any]) -> None:
    changed, fresh, never = host("changed"), host("fresh"), host("never")
    changed.run()
    before = changed.meaning()
    changed.run(**change)
    assert changed.run(**change) == [], "a second run changes nothing"
    fresh.run(**change)
    assert changed.meaning() == fresh.meaning(), "as if it had never been otherwise"
    changed.run()
    assert changed.meaning() == before
    changed.run(remove=True)
    assert changed.tree() == never.tree()
    assert not (changed.base / "var/lib/private-pypi").exists()


def test_a_run_that_breaks_off_anywhere_is_made_up_for(tmp_path: Path, change: dict[str, Any]) -> None:
    """By the same run, and by one that wants something else again."""
    fresh, never, broken = (Host(tmp_path / name) for name in ("fresh", "never", "broken"))
    fresh.run(**change)
    for steps in count():
        for after, expected in ((change, fresh), ({"remove": True}, never)):
            broken.run()
            done = len(broken.run(steps, **change))
            broken.run(**after)
            assert broken.meaning() == expected.meaning()
        if done < steps:
            break


def test_a_first_run_that_breaks_off_anywhere_costs_nobody_a_login(tmp_path: Path) -> None:
    never, done = Host(tmp_path / "never"), Host(tmp_path / "done")
    done.run()
    for steps in range(len(done.plan(remove=True)["writes"]) + 1):
        for name, again in (("taken out", False), ("made up for", True)):
            broken = Host(tmp_path / f"{name} {steps}")
            broken.run(steps)
            if again:
                broken.run(users=[user("ci", password="n3w"), user("dev")])
                broken.run()
                assert broken.meaning() == done.meaning()
            broken.run(remove=True)
            assert broken.tree() == never.tree()


def test_other_variables_take_out_what_is_there(tmp_path: Path) -> None:
    host, never = Host(tmp_path / "host"), Host(tmp_path / "never")
    host.run()
    host.run(remove=True, **CHANGES["everything"])
    assert host.tree() == never.tree()


def test_an_account_that_is_gone_leaves_no_password(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    host.run()
    os.rename(host.base / "home/dev", host.base / "home/gone")
    host.run(users=[user("ci")])
    os.rename(host.base / "home/gone", host.base / "home/dev")
    host.run()
    host.run(users=[user("ci")])
    assert "dev-s3cr3t" not in str(host.tree())


def test_the_record_holds_no_secret_and_is_roots(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    write = host.plan()["writes"][-1]
    assert [write[key] for key in ("path", "uid", "gid", "mode")] == ["private-pypi/client.json", 0, 0, "0600"]
    host.run()
    assert "s3cr3t" not in host.tree()["var/lib/private-pypi/client.json"]


@pytest.mark.parametrize(
    "text", ["nonsense", "1", "[1]", '[{"files": [{}]}]', '[{"files": [{"base": 1, "path": 2, "kind": 3}]}]']
)
def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    host = Host(tmp_path / "host")
    host.run()
    (host.base / "var/lib/private-pypi/client.json").write_text(text)
    with pytest.raises(ValueError, match=r"private-pypi/client.json on the host is no record"):
        host.run()


# --- the plan


def test_owner_and_mode(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    (host.base / "etc/pip.conf").chmod(0o640)
    (host.base / "home/ci/.netrc").chmod(0o644)
    host.run()
    modes = {name: oct((host.base / name).stat().st_mode & 0o777) for name in host.tree()}
    assert modes["etc/pip.conf"] == "0o640"
    assert modes["etc/uv/uv.toml"] == modes["etc/profile.d/private-pypi.sh"] == "0o644"
    assert {modes[name] for name in modes if name.startswith("home") and ".config" not in name} == {"0o600"}
    assert not any("s3cr3t" in text for name, text in host.tree().items() if name.startswith("etc"))
    (host.base / "home/dev/.netrc").chmod(0o604)
    assert [Path(place).name for place in host.run()] == [".netrc"], "a mode that others can read is mended"


def test_secrets_of_every_tool_are_in_files_of_their_owner_s_alone(tmp_path: Path) -> None:
    for scope, users in (("system", [user("ci"), user("dev", publish=False)]), ("user", [user("ci")])):
        host = Host(tmp_path / scope)
        before = set(host.tree())
        host.run(tools=list(plan.KINDS), scope=scope, users=users)
        secret = {name for name, text in host.tree().items() if "s3cr3t" in text}
        assert {(host.base / name).stat().st_mode & 0o777 for name in secret} == {0o600}
        assert {name for name in secret if "dev" in name} == ({"home/dev/.netrc"} if scope == "system" else set())
        assert len(secret) == (6 if scope == "system" else 5)
        open_ = set(host.tree()) - secret - before - {"var/lib/private-pypi/client.json"}
        assert {(host.base / name).stat().st_mode & 0o777 for name in open_} == {0o644}


def test_the_specification_knows_every_tool() -> None:
    specification = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert specification["pypi_client_tools"]["choices"] == list(plan.KINDS)


def test_everyone_s_uv_decides_about_everyone_s_file_and_one_s_own_about_one_s_own(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", ())
    host.run(uv={"ci": ["0.13.9"], "dev": ["0.13.9", "0.7.22"]})
    assert "native-tls" in host.tree()["etc/uv/uv.toml"]
    host.run(uv={"ci": ["0.13.9"], "dev": ["0.11.0"]})
    assert "system-certs" in host.tree()["etc/uv/uv.toml"]
    host.run(uv={"nobody": ["0.11.0"]}, users=[])
    assert "system-certs" in host.tree()["etc/uv/uv.toml"]
    host.run(uv={"ci": ["0.13.9"], "dev": ["0.13.9", "0.7.22"]}, scope="user")
    tree = host.tree()
    assert "system-certs" in tree["home/ci/.config/uv/uv.toml"] and "native-tls" in tree["home/dev/.config/uv/uv.toml"]


def test_other_indexes_are_told(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    assert host.plan()["others"] == []
    (host.base / "etc/pip.conf").write_text("[global]\nextra-index-url = https://other.example/simple/\n")
    assert host.plan()["others"] == [f"{host.base}/etc/pip.conf"]


def test_an_index_that_another_takes_the_place_of_is_told(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    assert host.plan()["replaced"] == []
    host.run()
    assert host.plan(upload_url="https://up.example/")["replaced"] == []
    new: dict[str, Any] = {"index_url": "https://new.example/simple/"}
    assert host.plan(**new)["replaced"] == ["https://old.example/simple/"]
    assert host.plan(**new, remove=True)["replaced"] == []
    host.run(**new)
    assert host.plan(**new)["replaced"] == []


def test_a_second_index_set_up_by_hand_as_the_readme_has_it_stays(tmp_path: Path) -> None:
    """Before the role came and after it has gone; meanwhile uv and twine know both."""
    told = re.findall(r"^```\w+\n# in ~/(\S+), .*\n((?:.*\n)*?)```$", README.read_text(), re.MULTILINE)
    assert [path for path, _ in told] == [".config/uv/uv.toml", ".netrc", ".pypirc"]
    for scope, own in (("system", False), ("user", True)):
        host = Host(tmp_path / scope, ())
        for path, text in told:
            file = host.base / "home/ci" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o600)
        before = host.tree()
        host.run(scope=scope)
        now = host.tree()
        uv = tomllib.loads(now["home/ci/.config/uv/uv.toml"])["index"]
        assert [index["name"] for index in uv] == (["staging", "private"] if own else ["staging"])
        assert {"staging", "private"} <= set(ini(now["home/ci/.pypirc"]))
        logins = netrc.netrc(str(host.base / "home/ci/.netrc"))
        assert set(logins.hosts) == {"staging.example.com", "old.example"}
        host.run(scope=scope, remove=True)
        assert host.tree() == before


def test_a_login_shell_keeps_what_its_user_has_set(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    host.run()
    ask = f". {host.base}/etc/profile.d/private-pypi.sh; echo $REQUESTS_CA_BUNDLE $SSL_CERT_FILE"
    assert os.popen(f"env -i SSL_CERT_FILE=/mine sh -euc '{ask}'").read() == "/bundle /mine\n"


# --- reading and writing on a user's ground


def refused(host: Host) -> str:
    with pytest.raises(ValueError, match="then run again") as caught:
        host.plan(scope="user")
    return str(caught.value)


@pytest.mark.parametrize("name", [".netrc", ".config", ".config/uv"])
def test_no_link_is_followed(tmp_path: Path, name: str) -> None:
    host, elsewhere = Host(tmp_path / "host", ()), tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = host.base / "home/ci" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    assert f"{link}" in refused(host) and "is a link" in refused(host)
    step = {"base": f"{host.base}/home/ci", "path": f"{name}/x", "content": "", "mode": "0600"}
    with pytest.raises(ValueError, match="cannot be written"):
        files.write(step | {"uid": UID, "gid": GID})
    assert list(elsewhere.iterdir()) == []


def test_a_link_that_came_after_reading_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    host = Host(tmp_path / "host")
    writes = host.plan()["writes"]
    (host.base / "home/ci/.netrc").unlink()
    (host.base / "home/ci/.netrc").symlink_to(victim)
    for write in writes:
        files.write(write | {"uid": UID, "gid": GID})
    assert victim.read_text() == "as it was" and not (host.base / "home/ci/.netrc").is_symlink()


def test_neither_a_pipe_nor_a_flood_is_read(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", ())
    os.mkfifo(host.base / "home/ci/.netrc")
    (host.base / "home/dev/.netrc").mkdir()
    with (host.base / "home/dev/.pypirc").open("wb") as file:
        file.truncate(1 << 40)
    said = refused(host)
    assert f"{host.base}/home/ci/.netrc is a link or a special file" in said
    assert f"{host.base}/home/dev/.netrc is a link or a special file" in said
    assert f"{host.base}/home/dev/.pypirc is larger than" in said


def test_a_home_that_is_missing_and_a_file_that_is_no_text(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", ())
    (host.base / "home/ci/.netrc").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        host.plan()
    (host.base / "home/dev").rmdir()
    assert f"{host.base}/home/dev is no directory" in refused(host)
    host.run(remove=True, users=[user("dev")])


def test_a_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path / "host")
    before = host.tree()

    def full(_descriptor: int, _mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(ValueError, match=r"client\.json cannot be written: No space left on device"):
        host.run()
    assert host.tree() == before


# --- the trust store


def test_the_store(tmp_path: Path) -> None:
    def pem(*bodies: str) -> str:
        return "".join(f"# name\n-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n" for body in bodies)

    anchor, bundle = tmp_path / "anchor", tmp_path / "bundle"
    asked = {
        "anchor": str(anchor),
        "bundle": str(bundle),
        "certificates": pem("AAAABBBB", "CCCC").replace("\n", "\r\n"),
    }
    assert files.trust(asked) == {"anchor": None, "bundle": False, "trusted": False}
    bundle.write_text(pem("XXXX", "AAAABBBB"))
    assert files.trust(asked) == {"anchor": None, "bundle": True, "trusted": False}
    bundle.write_text(pem("CCCC", "XXXX", "AAAA\nBBBB"))
    anchor.write_text("ours")
    assert files.trust(asked) == {"anchor": "ours", "bundle": True, "trusted": True}


# --- which uv


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of ci, who is whoever runs the tests."""
    entry = pwd.struct_passwd(("ci", "x", UID, GID, "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: entry)
    monkeypatch.setattr(files, "UV_PLACES", (".local/bin", ".cargo/bin"))
    return tmp_path


def test_every_uv_is_asked(account: Path) -> None:
    program(account / ".local/bin/uv", "echo uv 0.4.30")
    program(account / ".cargo/bin/uv", "echo 'uv 0.13.9 (x86_64-unknown-linux-gnu)'")
    assert files.uv_versions("ci") == ["0.4.30", "0.13.9"]
    program(account / ".local/bin/uv", "echo not uv 0.1.2; exit 1")
    assert files.uv_versions("ci") == ["0.13.9"]


def test_a_uv_can_neither_flood_nor_stay(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UV_SECONDS", 1)
    program(account / ".local/bin/uv", "cat /dev/zero")
    program(account / ".cargo/bin/uv", f"setsid sh -c 'echo $$ >{account}/pid; exec sleep 60' & sleep 60")
    assert files.uv_versions("ci") == []
    os.kill(
        int((account / "pid").read_text()), 15
    )  # who leaves the session is not ours to follow: it was not waited for


def test_a_uv_runs_as_its_user() -> None:
    """Never as root, whose playbook asks."""
    nobody = pwd.getpwnam("nobody")
    identity = (
        (nobody.pw_uid, nobody.pw_gid, nobody.pw_gid) if UID == 0 else (UID, GID, " ".join(map(str, os.getgroups())))
    )
    said = files.said_by(["/bin/sh", "-c", "echo $(id -u) $(id -g) $(id -G)"], nobody)
    assert said.split() == " ".join(map(str, identity)).split()


# --- the module as Ansible calls it


def test_a_dry_run_shows_a_diff_and_writes_nothing(tmp_path: Path) -> None:
    content = b64encode(b"s3cr3t").decode()
    step = {"base": str(tmp_path), "path": "a/file", "content": content, "uid": UID, "gid": GID, "mode": "0600"}
    command = ["ansible", "localhost", "--module-path", str(ROLE / "library"), "-m", "pypi_client_files"]
    arguments = ["-a", json.dumps({"write": [step]}), "-e", f"ansible_python_interpreter={sys.executable}"]
    command += [*arguments, "-vvv", "--check", "--diff"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "CHANGED" in said and "+s3cr3t" in said and content not in said
    assert list(tmp_path.iterdir()) == []


def test_on_macos_the_files_are_where_the_tools_look() -> None:
    """By the library that tells them so; uv and twine have the same places as on Linux."""
    machine, home = MacOS("pip").site_data_dir, "/Users/ci"
    accounts = {"ci": ["ci", "*", "501", "20", "", home, "/bin/zsh"]}
    want = BEFORE | {"tools": list(plan.KINDS)}
    found = {
        scope: {
            target["kind"]: plan.pypi_client_place(target)
            for target in plan.pypi_client_targets([user("ci")], scope, places("Darwin"), accounts, want)
        }
        for scope in ("system", "user")
    }
    settings = {
        name: MacOS(name).user_config_dir.replace(str(Path.home()), home) for name in ("pypoetry", "pdm", "hatch")
    }
    own = {
        "poetry": f"{settings['pypoetry']}/config.toml",
        "poetry_auth": f"{settings['pypoetry']}/auth.toml",
        "hatch": f"{settings['hatch']}/config.toml",
        "pdm": f"{settings['pdm']}/config.toml",
        "netrc": f"{home}/.netrc",
        "pypirc": f"{home}/.pypirc",
    }
    assert found["system"] == own | {"pip": f"{machine}/pip.conf", "uv": "/etc/uv/uv.toml"}
    assert found["user"] == own | {"pip": f"{home}/.config/pip/pip.conf", "uv": f"{home}/.config/uv/uv.toml"}
