"""The client's files: merged with foreign text, read back by the parsers the tools use."""

from __future__ import annotations

import configparser
import netrc as stdlib_netrc
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pypi_client_edit.ini import pip_conf, pypirc
from pypi_client_edit.netrc import netrc
from pypi_client_edit.uv import uv_toml, uv_trust_option
from pypi_client_edit.variables import pypi_client_problems
from twine.utils import get_config

ROLE = Path(__file__).parents[2] / "roles" / "pypi_client"
URL, UPLOAD, HOST = "https://pypi.example.org/simple/", "https://pypi.example.org/", "pypi.example.org"
USER = {"user": "ci", "username": "alice", "password": "s3cr3t!", "publish": True}
WANT: dict[str, Any] = {
    "index_url": URL,
    "upload_url": UPLOAD,
    "repository": "private",
    "cert": "",
    "uv_trust": "system-certs",
    "keep_public": False,
    "tools": ["pip", "uv", "twine"],
    "anonymous_read": False,
    "remove": False,
}
REMOVE = WANT | {"remove": True}
PLAIN = WANT | {"index_url": "http://pypi.example.org:8080/simple/"}


def problems(*users: dict[str, Any], url: str = URL, upload: str = "", repository: str = "private") -> list[str]:
    return pypi_client_problems(users, url, upload, repository)


# --- variables


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is empty"),
        ("https://pypi.example.org/simple", "must end with /simple/"),
        ("https://pypi.example.org/", "must end with /simple/"),
        ("https:///simple/", "and a host"),
        ("pypi.example.org/simple/", "http:// or https://"),
        ("ftp://pypi.example.org/simple/", "http:// or https://"),
        ("https://u:hunter2@pypi.example.org/simple/", "put them into pypi_client_users"),
        ("https://u@pypi.example.org/simple/", "put them into pypi_client_users"),
        ("https://pypi.example.org:hunter2/simple/", "not a URL"),
        ("https://[::1/simple/", "not a URL"),
        ("https://Pypi.example.org/simple/", "lower-case"),
        ("https://pypi.example.org/a b/simple/", "without spaces"),
        ("https://pypi.example.org/?x=/simple/", "query"),
        ('https://pypi.example.org/"/simple/\n', "without spaces"),
    ],
)
def test_bad_url(url: str, says: str) -> None:
    found = problems(url=url)
    assert len(found) == 1
    assert found[0].startswith("pypi_client_index_url")
    assert says in found[0]
    assert "hunter2" not in found[0]


def test_bad_upload_url_and_repository() -> None:
    assert "pypi_client_upload_url" in problems(upload="nonsense")[0]
    for name in ("", "pypi", "distutils", "a b", "A", "x]"):
        assert "pypi_client_repository" in problems(repository=name)[0]


@pytest.mark.parametrize(
    "password", ["", None, 5, "a b", "a\nb", "a\tb", 'a"b', "a\\b", "#a", "'a", "pässword", "a\x7f"]
)
def test_password_that_netrc_readers_differ_about(password: Any) -> None:
    found = problems(USER | {"password": password})
    assert len(found) == 1
    assert found[0].startswith("pypi_client_users[0] (ci): password ")
    assert not password or not isinstance(password, str) or password not in found[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"username": "a:b"}, "username holds a colon"),
        ({"username": "a b"}, "username holds something"),
        ({"pasword": "x"}, "unknown key 'pasword'"),
        ({"user": ""}, "user is not the name"),
        ({"user": "../root"}, "user is not the name"),
    ],
)
def test_bad_user(change: dict[str, Any], says: str) -> None:
    assert says in problems(USER | change)[0]


def test_account_twice_and_everything_good() -> None:
    assert "has an entry already" in problems(USER, USER)[0]
    assert problems(USER, USER | {"user": "dev.two", "password": "!$%&()*+,-./:;<=>?@[]^_`{|}~#'"}) == []


# --- pip.conf


def ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return {name: dict(parser.items(name)) for name in parser.sections()}


def test_pip_conf_from_nothing_and_back() -> None:
    text = pip_conf("", "pip.conf", WANT)
    assert text == f"[global]\nindex-url = {URL}\n"
    assert pip_conf(text, "pip.conf", WANT) == text
    assert pip_conf(text, "pip.conf", REMOVE) == ""


PIP_FOREIGN = """\
# company policy
[global]
timeout = 5   ; kept as it is
; a note
no-index =
    false

[install]
user = true
"""


@pytest.mark.parametrize("foreign", [PIP_FOREIGN, "[install]\nuser = true\n", "# only a comment\n"])
def test_pip_conf_keeps_foreign_lines(foreign: str) -> None:
    text = pip_conf(foreign, "pip.conf", WANT)
    assert ini(text)["global"]["index-url"] == URL
    lines = iter(text.splitlines())
    assert all(line in lines for line in foreign.splitlines()), "foreign lines are there, in their order"
    assert pip_conf(text, "pip.conf", WANT) == text
    assert pip_conf(text, "pip.conf", REMOVE) == foreign


@pytest.mark.parametrize("key", ["index-url", "index_url", "Index-URL"])
def test_pip_conf_replaces_the_old_index_however_it_is_spelled(key: str) -> None:
    text = pip_conf(f"[global]\n{key} : https://u:p@old.example/simple\ntimeout = 5\n", "pip.conf", WANT)
    assert ini(text) == {"global": {"timeout": "5", "index-url": URL}}


def test_trusted_host_for_plain_http_only() -> None:
    foreign = "[global]\ntrusted-host = lab.example\n    two.example\n"
    plain = pip_conf(foreign, "pip.conf", PLAIN)
    assert ini(plain)["global"]["trusted-host"].split() == ["lab.example", "two.example", "pypi.example.org:8080"]
    assert pip_conf(plain, "pip.conf", PLAIN) == plain
    assert pip_conf(plain, "pip.conf", PLAIN | {"remove": True}) == foreign
    leftover = f"[global]\ntrusted-host = {HOST}\n"
    assert "trusted-host" not in pip_conf(leftover, "pip.conf", WANT)
    for host in ("localhost", "127.0.0.1"):
        assert "trusted-host" not in pip_conf("", "pip.conf", WANT | {"index_url": f"http://{host}:8080/simple/"})


def test_public_index_kept_beside() -> None:
    both = WANT | {"keep_public": True}
    text = pip_conf("[global]\nextra-index-url = https://other.example/simple/\n", "pip.conf", both)
    assert ini(text) == {"global": {"extra-index-url": f"https://other.example/simple/ {URL}"}}
    single = pip_conf(text, "pip.conf", WANT)
    assert ini(single)["global"] == {"extra-index-url": "https://other.example/simple/", "index-url": URL}


def test_cert() -> None:
    tls = WANT | {"cert": "/etc/ssl/certs/ca-certificates.crt"}
    text = pip_conf("", "pip.conf", tls)
    assert ini(text)["global"]["cert"] == "/etc/ssl/certs/ca-certificates.crt"
    assert pip_conf(text, "pip.conf", tls | {"remove": True}) == ""
    assert pip_conf("[global]\ncert = /own.pem\n", "pip.conf", REMOVE) == "[global]\ncert = /own.pem\n"


@pytest.mark.parametrize("text", ["nonsense s3cr3t\n", "[a]\nx=1\n[a]\ny=s3cr3t\n"])
def test_broken_ini_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match="no valid INI") as caught:
        pip_conf(text, "/etc/pip.conf", WANT)
    assert "s3cr3t" not in str(caught.value)


def test_layout_that_cannot_be_edited_is_refused() -> None:
    with pytest.raises(ValueError, match="at the margin"):
        pip_conf("[global]\n  index-url = https://old.example/\n  timeout = 5\n", "/etc/pip.conf", WANT)


# --- .pypirc


def twine(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / ".pypirc").write_text(text)
    return dict(get_config(str(tmp_path / ".pypirc")))


OURS = {"repository": UPLOAD, "username": "alice", "password": "s3cr3t!"}


def test_pypirc_from_nothing_and_back(tmp_path: Path) -> None:
    text = pypirc("", ".pypirc", WANT, USER)
    read = twine(tmp_path, text)
    for name in ("private", "pypi"):
        assert {key: value for key, value in read[name].items() if value} == OURS
    assert pypirc(text, ".pypirc", WANT, USER) == text
    assert pypirc(text, ".pypirc", REMOVE, USER) == ""
    assert pypirc(text, ".pypirc", WANT, USER | {"publish": False}) == ""
    assert pypirc("", ".pypirc", WANT, USER | {"publish": False}) == ""


def test_pypirc_a_bare_upload_finds_us_past_a_list_of_others(tmp_path: Path) -> None:
    """Seen: twine ignores a [pypi] that index-servers does not name, and uploads to the public index."""
    foreign = "[distutils]\nindex-servers = other\n\n[other]\nrepository = https://o.example/\n"
    text = pypirc(foreign, ".pypirc", WANT, USER)
    assert twine(tmp_path, text)["pypi"]["repository"] == UPLOAD
    assert pypirc(text, ".pypirc", REMOVE, USER) == foreign


PYPIRC = [
    "[pypi]\nusername = __token__\npassword = pypi-token\n",
    "[distutils]\nindex-servers =\n    pypi\n    other\n\n[pypi]\npassword = t%k\n\n[other]\nrepository = https://o.example/\n",
    "[testpypi]\nusername = __token__\npassword = x\n\n[pypi]\npassword = y\n",
]


@pytest.mark.parametrize("foreign", PYPIRC)
def test_pypirc_keeps_sections_that_are_in_use(tmp_path: Path, foreign: str) -> None:
    before = twine(tmp_path, foreign)
    text = pypirc(foreign, ".pypirc", WANT, USER)
    after = twine(tmp_path, text)
    assert {key: value for key, value in after.pop("private").items() if value} == OURS
    assert {name: config for name, config in before.items() if name in after} == after
    assert "pypi" in after
    assert pypirc(text, ".pypirc", WANT, USER) == text
    assert ini(pypirc(text, ".pypirc", REMOVE, USER)).keys() >= ini(foreign).keys() - {"distutils"}


def test_pypirc_new_password_and_ca(tmp_path: Path) -> None:
    text = pypirc("", ".pypirc", WANT, USER)
    new = pypirc(text, ".pypirc", WANT | {"cert": "/ca.pem"}, USER | {"password": "%new;#"})
    assert twine(tmp_path, new)["private"] == OURS | {"password": "%new;#", "ca_cert": "/ca.pem"}
    assert "s3cr3t!" not in new


# --- .netrc


def logins(tmp_path: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    path = tmp_path / ".netrc"
    path.write_text(text)
    path.chmod(0o600)
    read = stdlib_netrc.netrc(str(path))
    return read.hosts, read.macros


STANZA = f"machine {HOST} login alice password s3cr3t!"
FORMER = f"#former:{HOST}:machine%20{HOST}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{STANZA}\n"),
        ("machine a login b password c", f"machine a login b password c\n{STANZA}"),
        ("machine a login b password c\n", f"machine a login b password c\n{STANZA}\n"),
        (f"{STANZA}\n", f"{STANZA}\n"),
        (f"machine {HOST}\n\tlogin alice\n\tpassword s3cr3t!\n", f"machine {HOST}\n\tlogin alice\n\tpassword s3cr3t!\n"),
        (f"machine {HOST} login old password old\n", f"{FORMER}%20login%20old%20password%20old%0A\n{STANZA}\n"),
        (f"machine {HOST}\n  login old\n  password old\n\nmachine z login a password b\n",
         f"{FORMER}%0A%20%20login%20old%0A%20%20password%20old%0A\n{STANZA}\n\nmachine z login a password b\n"),
        (f'machine "{HOST}" login "o l d" password "a \\"b"\nmachine z login a password b\n',
         f'#former:{HOST}:machine%20%22{HOST}%22%20login%20%22o%20l%20d%22%20password%20%22a%20%5C%22b%22%0A\n{STANZA}\nmachine z login a password b\n'),
        (f"machine a login b password c machine {HOST} login o password p machine z login a password b\n",
         f"machine a login b password c \n#former+:{HOST}:machine%20{HOST}%20login%20o%20password%20p\n{STANZA}\n machine z login a password b\n"),
        (f"machine a login b password c machine {HOST}\tlogin o \r\n password p\t\r\n\n",
         f"machine a login b password c \n#former+:{HOST}:machine%20{HOST}%09login%20o%20%0D%0A%20password%20p%09%0D%0A\n{STANZA}\n\n"),
        (f"  machine {HOST} login o\n password p machine a login b password c\n",
         f"#former:{HOST}:%20%20machine%20{HOST}%20login%20o%0A%20password%20p\n{STANZA}\n machine a login b password c\n"),
        (f"machine {HOST} login o password p\nmachine a login b password c\nmachine {HOST} login q password r\n",
         f"{FORMER}%20login%20o%20password%20p%0A\n{STANZA}\nmachine a login b password c\n{FORMER}%20login%20q%20password%20r%0A\n"),
        ("default login anonymous password x\n", f"{STANZA}\ndefault login anonymous password x\n"),
        (f"machine {HOST} account acme password p\n", f"{FORMER}%20account%20acme%20password%20p%0A\n{STANZA}\n"),
        (f"# mine\nmachine a login b password c\n# {HOST} is not here\n", f"# mine\nmachine a login b password c\n# {HOST} is not here\n{STANZA}\n"),
        ("macdef init\ncd /pub\nmachine x\n",
         f"macdef init\ncd /pub\nmachine x\n\n#former+:{HOST}:\n{STANZA}\n"),
        (f"macdef init\nmachine {HOST} login no password no\n\n", f"macdef init\nmachine {HOST} login no password no\n\n{STANZA}\n"),
        (f"machine {HOST} login o password p\nmacdef init\ncd /pub\n\n", f"{FORMER}%20login%20o%20password%20p%0A\n{STANZA}\nmacdef init\ncd /pub\n\n"),
        (f"machine sub.{HOST} login b password c\n", f"machine sub.{HOST} login b password c\n{STANZA}\n"),
        (f"machine a login machine password {HOST}\n", f"machine a login machine password {HOST}\n{STANZA}\n"),
        ("machine a login b password #c\n", f"machine a login b password #c\n{STANZA}\n"),
    ],
)  # fmt: skip
def test_netrc(tmp_path: Path, before: str, after: str) -> None:
    assert netrc(before, ".netrc", WANT, USER) == after
    assert netrc(after, ".netrc", WANT, USER) == after
    hosts, macros = logins(tmp_path, after)
    assert hosts[HOST] == ("alice", "", "s3cr3t!")
    newer = netrc(after, ".netrc", WANT | {"known": True}, USER | {"password": "n3w"})
    assert logins(tmp_path, newer) == (hosts | {HOST: ("alice", "", "n3w")}, macros)
    for text in (after, newer):
        removed = netrc(text, ".netrc", REMOVE, USER)
        assert removed == ("" if before == after else before)


def test_netrc_removal_leaves_the_other_lines_whole() -> None:
    shared = f"machine a login b password c {STANZA}\nmachine z login a password b\n"
    assert netrc(shared, ".netrc", REMOVE, USER) == "machine a login b password c \nmachine z login a password b\n"
    own = f"# mine\n{STANZA}\nmachine z login a password b\n"
    assert netrc(own, ".netrc", REMOVE, USER) == "# mine\nmachine z login a password b\n"


@pytest.mark.parametrize("text", ["s3cr3t nonsense\n", "machine", "machine a login"])
def test_broken_netrc_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"no valid \.netrc") as caught:
        netrc(text, "/home/ci/.netrc", WANT, USER)
    assert "s3cr3t" not in str(caught.value)


# --- uv.toml

UV_FOREIGN = """\
# mine
offline = false

[[index]]
name = "team"
url = "https://team.example/simple/"

[pip]
no-build = true
"""


@pytest.mark.parametrize("foreign", ["", "offline = true\n", UV_FOREIGN])
@pytest.mark.parametrize("cert", ["", "/bundle"])
def test_uv_toml(foreign: str, cert: str) -> None:
    want = WANT | {"cert": cert}
    text = uv_toml(foreign, "uv.toml", want)
    read, old = tomllib.loads(text), tomllib.loads(foreign)
    ours = {"name": "private", "url": URL, "publish-url": UPLOAD, "default": True, "authenticate": "always"}
    assert read.pop("index") == [*old.pop("index", []), ours]
    assert read == old | {"publish-url": UPLOAD} | ({"system-certs": True} if cert else {})
    assert foreign in text
    assert uv_toml(text, "uv.toml", want) == text
    assert uv_toml(text, "uv.toml", want | {"remove": True}) == foreign


@pytest.mark.parametrize(
    ("versions", "option"),
    [
        ([], "native-tls"),
        (["0.4.30"], "native-tls"),
        (["0.10.12", "0.13.9"], "native-tls"),
        (["0.11.0", "0.13.9"], "system-certs"),
        (["1.0.0"], "system-certs"),
    ],
)
def test_uv_trust_option(versions: list[str], option: str) -> None:
    assert uv_trust_option("auto", versions) == option
    assert uv_trust_option("system-certs", versions) == "system-certs"


def test_uv_toml_variants() -> None:
    old_uv = tomllib.loads(uv_toml("", "uv.toml", WANT | {"cert": "/b", "uv_trust": "native-tls"}))
    assert old_uv["native-tls"] is True
    open_index = tomllib.loads(uv_toml("", "uv.toml", WANT | {"anonymous_read": True}))["index"][0]
    assert "authenticate" not in open_index, "uv would refuse to ask without a login"
    assert "default" not in tomllib.loads(uv_toml("", "uv.toml", WANT | {"keep_public": True}))["index"][0]
    own = uv_toml('system-certs = true\npublish-url = "https://o.example/"\n', "uv.toml", WANT | {"cert": "/b"})
    assert own.startswith("system-certs = true\n")


@pytest.mark.parametrize(
    ("foreign", "says"),
    [
        ("nonsense s3cr3t", "no valid TOML"),
        ('index = [{name = "x", url = "https://u:s3cr3t@x.example"}]\n', "says `index"),
        ('[[index]]\nname = "private"\nurl = "https://u:s3cr3t@x.example"\n', "one named 'private'"),
        ('[[index]]\nurl = "https://u:s3cr3t@x.example"\ndefault = true\n', "another default index"),
        ("system-certs = false\n", "turns the system's certificates off"),
    ],
)
def test_uv_toml_conflicts_are_refused(foreign: str, says: str) -> None:
    with pytest.raises(ValueError, match="/etc/uv/uv.toml") as caught:
        uv_toml(foreign, "/etc/uv/uv.toml", WANT | {"cert": "/b"})
    assert says in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


# --- Windows


CRLF = {
    "pip.conf": "# mine\r\n[global]\r\ntimeout = 5\r\nindex-url = https://old.example/\r\n\r\n[install]\r\nuser = true\r\n",
    ".netrc": f"machine a login b password c\r\nmachine {HOST}\r\n  login old\r\n  password old\r\n",
    ".pypirc": "[distutils]\r\nindex-servers =\r\n    pypi\r\n\r\n[pypi]\r\nusername = x\r\npassword = y\r\n",
    "uv.toml": "# mine\r\noffline = true\r\n\r\n[pip]\r\nno-build = true\r\n",
}


@pytest.mark.parametrize("name", CRLF)
def test_line_ends_of_windows(name: str) -> None:
    """The other lines keep theirs, and what an editor made of ours is still known as ours."""

    def edit(text: str, want: dict[str, Any]) -> str:
        editor = {"pip.conf": pip_conf, "uv.toml": uv_toml}.get(name)
        if editor:
            return editor(text, name, want)
        return (netrc if name == ".netrc" else pypirc)(text, name, want, USER)

    text = edit(CRLF[name], WANT)
    foreign = [
        line for line in CRLF[name].splitlines(keepends=True) if not re.search("old|index-servers|    pypi", line)
    ]
    lines = iter(text.splitlines(keepends=True))
    assert all(line in lines for line in foreign if HOST not in line)
    assert edit(text, WANT) == text
    dos = text.replace("\r", "").replace("\n", "\r\n")
    assert len(edit(dos, WANT).splitlines()) == len(text.splitlines())
    assert HOST not in edit(dos, REMOVE).replace(CRLF[name], "")
