"""The settings of poetry, pdm and hatch, and what holds for every file: foreign text comes back to the last byte."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pypi_client_edit import ini, managers, netrc, uv

WANT: dict[str, Any] = {
    "index_url": "https://pypi.example.org/simple/",
    "upload_url": "https://pypi.example.org/",
    "repository": "private",
    "cert": "/bundle",
    "uv_trust": "system-certs",
    "keep_public": False,
    "anonymous_read": False,
    "remove": False,
}
REMOVE = WANT | {"remove": True}
USER = {"user": "ci", "username": "alice", "password": "s3cr3t!", "publish": True}
LOGIN = {"username": "alice", "password": "s3cr3t!"}
TARGET = {"url": "https://pypi.example.org/", **LOGIN, "ca_certs": "/bundle"}
EDITORS: Mapping[str, Callable[[str, dict[str, Any]], str]] = {
    "pip.conf": lambda text, want: ini.pip_conf(text, "pip.conf", want),
    ".pypirc": lambda text, want: ini.pypirc(text, ".pypirc", want, USER),
    ".netrc": lambda text, want: netrc.netrc(text, ".netrc", want, USER),
    "uv.toml": lambda text, want: uv.uv_toml(text, "uv.toml", want),
    "poetry": lambda text, want: managers.poetry(text, "config.toml", want),
    "poetry_auth": lambda text, want: managers.poetry_auth(text, "auth.toml", want, USER),
    "pdm": lambda text, want: managers.pdm(text, "config.toml", want, USER),
    "hatch": lambda text, want: managers.hatch(text, "config.toml", want, USER),
}
INI = "; mine\n[global]\nIndex_URL:\n  https://their.example/simple/\n# odd\ntimeout=5\ncert   = /their.pem\nextra-index-url =\n    https://other.example/simple/\n\n\n[install]\nuser : true\n"
PYPIRC = "[distutils]\nindex-servers =\n  other\n\n[other]\nrepository=https://o.example/\n# the end\n"
FOREIGN = {
    "pip.conf": INI,
    ".pypirc": PYPIRC,
    ".netrc": "# mine\nmachine  a\n\tlogin b password c\nmachine pypi.example.org\n  login mine\n  password 'else'\n\n# the end\n",
    "uv.toml": "# mine\noffline   =  false\n\n[pip] # odd\n  no-build = true\n# the end\n",
    "poetry": "# mine\n[virtualenvs]\nin-project   =  true\n\n[repositories.other]\nurl = 'https://o.example/' # odd\n# the end\n",
    "poetry_auth": '[http-basic]\n\n[http-basic.other]\nusername = "x"\npassword = "else"\n',
    "pdm": "check_update = false\n\n[ pypi ] # odd\n  verify_ssl = true\nurl='https://o.example/simple/' # an index of their own\n"
    "[pypi.team]\nurl = 'https://team.example/'\n",
    "hatch": '[publish.index]\nrepo = "main"\n\n[template]\nname = "x"\n# the end\n',
}
FORMS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "without a newline at the end": lambda text: text.rstrip("\n"),
    "like Windows": lambda text: text.replace("\n", "\r\n"),
    "like Windows without a newline": lambda text: text.rstrip("\n").replace("\n", "\r\n"),
    "empty": lambda text: "",
    "comments only": lambda text: "# mine\n\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EDITORS)
def test_what_was_there_comes_back_to_the_last_byte(name: str, form: str) -> None:
    edit, before = EDITORS[name], FORMS[form](FOREIGN[name])
    after = edit(before, WANT)
    assert after != before
    assert edit(after, WANT) == after, "a second run changes nothing"
    assert edit(after, REMOVE) == before
    if "Windows" in form:
        assert after.count("\n") == after.count("\r\n")
    assert after.endswith("\n") == (before.endswith("\n") or not before)


@pytest.mark.parametrize("name", EDITORS)
def test_every_line_of_others_stays_as_it_is(name: str) -> None:
    """But for the ends of lists, and options whose place is taken."""
    lines = iter(EDITORS[name](FOREIGN[name], WANT).splitlines())
    taken = (
        "machine pypi",
        "  login",
        "  password",
        "Index_URL",
        "  https://their",
        "cert ",
        "url='https://o.example/simple/'",
        'repo = "main"',
        "  other",
    )
    assert all(line in lines for line in FOREIGN[name].splitlines() if not line.startswith(taken))


def test_poetry() -> None:
    assert tomllib.loads(EDITORS["poetry"]("", WANT)) == {
        "repositories": {"private": {"url": "https://pypi.example.org/"}},
        "certificates": {"private": {"cert": "/bundle"}},
    }
    assert "certificates" not in EDITORS["poetry"]("", WANT | {"cert": ""})
    assert tomllib.loads(EDITORS["poetry_auth"]("", WANT)) == {"http-basic": {"private": LOGIN}}


def test_pdm() -> None:
    index = {"url": "https://pypi.example.org/simple/", "ca_certs": "/bundle"}
    assert tomllib.loads(EDITORS["pdm"]("", WANT)) == {"pypi": index, "repository": {"private": TARGET, "pypi": TARGET}}
    assert tomllib.loads(managers.pdm("", "", WANT, {})) == {"pypi": index}, "who does not publish has no secret in it"
    both = tomllib.loads(managers.pdm("", "", WANT | {"keep_public": True}, {}))
    assert both == {"pypi": {"private": index}}, "beside the public one"


def test_a_bare_pdm_publish_of_others_stays_theirs() -> None:
    foreign = '[repository.pypi]\nusername = "__token__"\npassword = "else"\n'
    after = EDITORS["pdm"](foreign, WANT)
    assert tomllib.loads(after)["repository"] == {
        "pypi": {**LOGIN, "username": "__token__", "password": "else"},
        "private": TARGET,
    }
    assert EDITORS["pdm"](after, WANT) == after and EDITORS["pdm"](after, REMOVE) == foreign


def test_hatch() -> None:
    target = {"url": "https://pypi.example.org/", "user": "alice", "auth": "s3cr3t!", "ca-cert": "/bundle"}
    ours = {"publish": {"index": {"repo": "private", "repos": {"private": target}}}}
    assert tomllib.loads(EDITORS["hatch"]("", WANT)) == ours
    assert tomllib.loads(EDITORS["hatch"](FOREIGN["hatch"], WANT)) == ours | {"template": {"name": "x"}}


@pytest.mark.parametrize("name", ["poetry", "poetry_auth", "pdm", "hatch"])
def test_another_password_and_address_take_the_place_of_the_old(name: str) -> None:
    new = {
        **WANT,
        "index_url": "https://new.example/simple/",
        "upload_url": "https://new.example/",
        "repository": "team",
    }
    for before in ("", FOREIGN[name]):
        assert EDITORS[name](EDITORS[name](before, WANT), new) == EDITORS[name](before, new)


def test_what_is_there_in_other_words_is_left() -> None:
    same = "[pypi]\nca_certs = '/bundle'\nurl = 'https://pypi.example.org/simple/'\n"
    assert managers.pdm(same, "", WANT, {}) == same


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("pdm", "pypi = {url = 'https://u:s3cr3t@o.example/'}\n"),
        ("pdm", "pypi.url = 'https://u:s3cr3t@o.example/'\n"),
        ("pdm", "[pypi]\nurl = '''\nhttps://u:s3cr3t@o.example/'''\n"),
        ("pdm", "pypi = 's3cr3t'\n"),
        ("hatch", "[publish]\nindex = {user = 's3cr3t'}\n"),
        ("poetry_auth", "http-basic = {other = {username = 'x', password = 's3cr3t'}}\n"),
        ("poetry_auth", "s3cr3t nonsense"),
    ],
)
def test_what_cannot_be_edited_is_refused_without_quoting_it(name: str, foreign: str) -> None:
    with pytest.raises(ValueError, match="on the host is") as caught:
        EDITORS[name](foreign, WANT)
    assert "s3cr3t" not in str(caught.value)
