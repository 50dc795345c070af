"""pypi_public: what is refused, in which words, and what the service is told."""

from __future__ import annotations

import datetime
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pypi_public
import pytest
import yaml

from public_index import config as service

ROLE = Path(__file__).parents[2] / "roles/pypi_public"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


def settings(**changed: Any) -> dict[str, Any]:
    """The role's defaults, but for what is given."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text("utf-8"))
    return {name.removeprefix("pypi_public_"): value for name, value in defaults.items()} | changed


def told(**changed: Any) -> dict[str, Any]:
    """What the service reads; it has to understand it."""
    variables = settings(**changed)
    assert pypi_public.problems(variables) == []
    document: dict[str, Any] = json.loads(pypi_public.config(variables))
    service.parse(document)
    return document


def test_the_settings_are_all_of_the_filter() -> None:
    """What vars/main.yml hands over."""
    handed = yaml.safe_load((ROLE / "vars/main.yml").read_text("utf-8"))["__pypi_public_settings"]
    assert handed == {name: f"{{{{ pypi_public_{name} }}}}" for name in handed}
    for filter_ in (pypi_public.problems, pypi_public.config, pypi_public.authorities):
        filter_({name: settings()[name] for name in handed})


def test_defaults() -> None:
    document = told()
    assert document["minimum_age"] == 7 * 86_400
    assert document["cache_size"] == 20 << 30
    assert document["block_malware"] is True
    assert [upstream["name"] for upstream in document["upstreams"]] == ["pypi"]
    assert document["upstreams"][0]["url"].startswith("https://")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), (0, 0), ("90s", 90), ("5m", 300), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)],
)
def test_durations(text: object, seconds: int) -> None:
    assert told(minimum_age=text)["minimum_age"] == seconds


@pytest.mark.parametrize(("text", "size"), [("500m", 500 << 20), ("20g", 20 << 30), ("1t", 1 << 40)])
def test_sizes(text: str, size: int) -> None:
    assert told(cache_size=text)["cache_size"] == size


def test_an_upstream_of_its_own(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text(CERTIFICATE)
    torch = {
        "name": "torch",
        "url": "https://packages.example.com/simple",
        "projects": ["torch*"],
        "username": "us",
        "password": "secret",
        "ca_file": str(authority),
        "allow_private_addresses": ["10.0.0.0/8"],
    }
    variables = settings(upstreams=[torch, {"name": "pypi"}])
    assert told(upstreams=[torch, {"name": "pypi"}])["upstreams"][0] == {
        **torch,
        "url": "https://packages.example.com/simple/",
        "ca_file": "/config/ca/of-torch.pem",
    }
    assert pypi_public.authorities(variables) == [{"name": "ca/of-torch.pem", "content": CERTIFICATE}]


def test_an_authority_for_all(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text(CERTIFICATE)
    document = told(ca_file=str(authority), advisories_url="https://advisories.example.com/all.zip")
    assert document["upstreams"][0]["ca_file"] == document["advisories_ca_file"] == "/config/ca/common.pem"
    assert pypi_public.authorities(settings(ca_file=str(authority)))[0]["name"] == "ca/common.pem"


@pytest.mark.parametrize(
    ("no_proxy", "url", "used"),
    [
        ("", "https://a.example.com/", True),
        ("a.example.com", "https://a.example.com/", False),
        (".example.com", "https://a.example.com/", False),
        ("example.com", "https://a.example.com/", False),
        ("*.example.com", "https://a.example.com/", False),
        ("ample.com", "https://a.example.com/", True),
        ("10.0.0.0/8, b", "https://10.1.2.3/", False),
        ("10.0.0.0/8", "https://11.1.2.3/", True),
        ("*", "https://a.example.com/", False),
    ],
)
def test_the_way_out(no_proxy: str, url: str, used: bool) -> None:
    proxy = {"https": "http://user:pass@proxy:3128", "no_proxy": no_proxy}
    upstream = told(upstreams=[{"name": "a", "url": url}], proxy=proxy)["upstreams"][0]
    assert ("proxy" in upstream) == used


def test_a_proxy_of_its_own() -> None:
    upstreams = [{"name": "a", "url": "https://a.example.com/", "proxy": "http://other:3128"}]
    assert (
        told(upstreams=upstreams, proxy={"https": "http://proxy:3128"})["upstreams"][0]["proxy"] == "http://other:3128"
    )


def test_an_exemption_by_a_date_of_yaml() -> None:
    entry = {"name": "urllib3", "version": "2.9.1", "until": datetime.date(2026, 12, 31), "reason": "CVE"}
    assert told(exempt=[entry])["exempt"] == [{**entry, "until": "2026-12-31"}]


def test_without_advisories() -> None:
    assert not [key for key in told(advisories_url="") if key.startswith("advisories")]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"minimum_age": "7"}, 'pypi_public_minimum_age is "7": give a number and one of the units s, m, h, d, w'),
        ({"minimum_age": "-1d"}, 'pypi_public_minimum_age is "-1d"'),
        ({"minimum_age": ""}, 'pypi_public_minimum_age is ""'),
        (
            {"cache_size": "20"},
            'pypi_public_cache_size is "20": give a number and one of the units m, g, t, such as 20g',
        ),
        ({"cache_size": "0"}, 'pypi_public_cache_size is "0"'),
        ({"reserved_names": ["Acme_SDK"]}, "pypi_public_reserved_names has 'Acme_SDK'"),
        ({"reserved_names": ["Acme_SDK"]}, "write 'acme-sdk'"),
        ({"only": ["a/b"]}, "pypi_public_only has 'a/b'"),
        ({"upstreams": []}, "pypi_public_upstreams is empty: name one"),
        ({"upstreams": [{"name": "Py PI"}]}, "pypi_public_upstreams[0] (Py PI): name must be 1 to 40"),
        ({"upstreams": [{"url": "https://a/"}]}, "pypi_public_upstreams[0]: name must be"),
        ({"upstreams": [{"name": "a", "uri": "x"}]}, "has the unknown key 'uri': use name, url, projects"),
        ({"upstreams": [{"name": "a"}, {"name": "a"}]}, "upstreams[1] (a) is a duplicate of entry 0: keep one of them"),
        ({"upstreams": [{"name": "a"}, {"name": "b"}]}, "upstreams[0] (a) answers for all projects"),
        ({"upstreams": [{"name": "a", "projects": []}]}, "projects is empty: leave it out for all of them"),
        ({"upstreams": [{"name": "a", "projects": ["Torch"]}]}, "projects has 'Torch'"),
        ({"upstreams": [{"name": "a", "url": "ftp://a/"}]}, "url is 'ftp://a/': give an address such as"),
        ({"upstreams": [{"name": "a", "url": "https://[a/"}]}, "url is 'https://[a/'"),
        ({"upstreams": [{"name": "a", "url": "https://a:99999/"}]}, "url is 'https://a:99999/'"),
        ({"upstreams": [{"name": "a", "url": "https://a/?b"}]}, "url is 'https://a/?b'"),
        ({"upstreams": [{"name": "a", "url": "https://u:secret@a/"}]}, "url has a user in it"),
        ({"upstreams": [{"name": "a", "username": "u"}]}, "has only one of username and password: set both"),
        ({"upstreams": [{"name": "a", "ca_file": "ca.pem"}]}, "ca_file is 'ca.pem', which is no absolute path"),
        ({"upstreams": [{"name": "a", "ca_file": "/no/ca.pem"}]}, "which cannot be read (No such file or directory)"),
        ({"upstreams": [{"name": "a", "ca_file": __file__.replace(".py", ".none")}]}, "cannot be read"),
        ({"upstreams": [{"name": "a", "proxy": "secret:3128"}]}, "proxy is no URL such as http://user:password@"),
        ({"upstreams": [{"name": "a", "allow_private_addresses": ["10.1.0.0/8"]}]}, "'10.1.0.0/8'"),
        ({"ca_file": "/dev/null"}, "pypi_public_ca_file is '/dev/null', which has no certificate"),
        ({"proxy": {"https": "http://u:secret!@p:1"}}, "pypi_public_proxy.https is no URL such as"),
        ({"advisories_url": "all.zip"}, "pypi_public_advisories_url is 'all.zip'"),
        (
            {"exempt": [{"name": "a/b", "until": "2026-12-31"}]},
            "pypi_public_exempt[0] (a/b): name must be that of a project",
        ),
        (
            {"exempt": [{"name": "a", "until": "31.12.2026"}]},
            "until is '31.12.2026': give its last day, such as 2026-12-31",
        ),
        ({"exempt": [{"name": "a"}]}, "until is ''"),
        (
            {"exempt": [{"name": "a", "version": "x y", "until": "2026-12-31"}]},
            "version is 'x y', which is none by PEP 440",
        ),
        ({"exempt": [{"name": "a", "version": 1.1, "until": "2026-12-31"}]}, "put it in quotes, or 1.10 is 1.1"),
        ({"exempt": [{"name": "a", "until": "2026-12-31"}] * 2}, "exempt[1] (a) is a duplicate of entry 0"),
    ],
)
def test_what_is_wrong_is_said_with_the_fix(changed: dict[str, Any], says: str) -> None:
    found = pypi_public.problems(settings(**changed))
    assert any(says in sentence for sentence in found), found
    assert all(sentence.startswith("pypi_public_") for sentence in found)
    assert "secret" not in " ".join(found)


def test_no_library_knows_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi_public, "DEFAULT_INDEX", (("no_such_module", "X"), ("json", "no.such")))
    assert pypi_public.problems(settings()) == [
        "pypi_public_upstreams[0] (pypi): has no url, and no library of the controller knows where PyPI is: set it"
    ]


@pytest.mark.parametrize("library", pypi_public.DEFAULT_INDEX, ids=lambda library: library[0])
def test_either_library_knows_the_default(library: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    known = pypi_public.default_index()
    monkeypatch.setattr(pypi_public, "DEFAULT_INDEX", (library,))
    assert pypi_public.default_index() == known != ""


def test_the_way_back_has_the_same_rights() -> None:
    texts = {"compose.yml": "a", "config/config.json": "b", "config/ca/common.pem": "c"}
    seen = {f"/opt/x/{name}": b64encode(text.encode()).decode() for name, text in texts.items()}
    assert pypi_public.relative(seen, "/opt/x") == [
        {"name": "compose.yml", "content": "a", "mode": "0600"},
        {"name": "config/config.json", "content": "b", "group": "9896", "mode": "0640"},
        {"name": "config/ca/common.pem", "content": "c"},
    ]
    del seen["/opt/x/compose.yml"]
    assert pypi_public.relative(seen, "/opt/x") == []
