"""What is accepted, what is refused, and in which words."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from itertools import pairwise

import pytest

from static_index import names
from static_index.errors import Refusal
from static_index.store import Claims, Store

from .artifacts import metadata, sdist, tar, wheel
from .conftest import Add, upload

LONG = "a" * 100 + "-" + "b" * 99

ACCEPTED = {
    "plain": wheel(),
    "local version": wheel("torch", "2.1.0+cu118"),
    "epoch": wheel("epoch", "1!2.0"),
    "pre-release": wheel("early", "2.0rc1"),
    "development release": wheel("early", "2.0.dev3"),
    "build tag": wheel(filename="acme_tool-1.0-2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
    "display name": wheel("Foo.Bar_baz"),
    "200 characters": wheel(LONG),
    "sdist": sdist(),
    "sdist, epoch and local version": sdist("e", "1!2.0+x.1"),
    "sdist, other spelling of the version": sdist(version="1.0-rc.1", filename="acme_tool-1.0rc1.tar.gz"),
    "sdist, zip": wheel(filename="acme_tool-1.0.zip", members={"acme_tool-1.0/PKG-INFO": metadata("acme-tool", "1.0")}),
    "sdist, 200 characters": sdist(LONG),
}


@pytest.mark.parametrize("artifact", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(artifact: tuple[str, bytes], store: Store, add: Add) -> None:
    added = add(artifact)
    assert (store.packages / artifact[0]).read_bytes() == artifact[1]
    assert store.index.records.load(names.parse(artifact[0]).project).files == {artifact[0]: added}


def flipped() -> tuple[str, bytes]:
    """One byte of the first member changed."""
    filename, content = wheel(compression=zipfile.ZIP_STORED)
    return filename, content.replace(b"answer = 42", b"answer = 43")


def small(name: str, text: bytes) -> tuple[str, bytes]:
    return name, gzip.compress(tar({"acme_tool-1.0/PKG-INFO": metadata("acme-tool", "1.0"), "acme_tool-1.0/x": text}))


def outside(member: str) -> tuple[str, bytes]:
    members = {"acme_tool-1.0/PKG-INFO": metadata("acme-tool", "1.0"), member: "x"}
    return "acme_tool-1.0.tar.gz", gzip.compress(tar(members))


SDIST = sdist(content=bytes(range(256)) * 400)
METADATA = "{stem}.dist-info/METADATA"
REFUSED = {
    "slash": (("../evil-1.0.tar.gz", b""), "illegal file name"),
    "backslash": (("..\\evil-1.0.tar.gz", b""), "illegal file name"),
    "dot name": ((".acme-1.0.tar.gz", b""), "illegal file name"),
    "NUL": (("acme\0-1.0.tar.gz", b""), "illegal file name"),
    "line feed": (("acme-1.0.tar.gz\n", b""), "illegal file name"),
    "not ASCII": (("äcme-1.0.tar.gz", b""), "illegal file name"),
    "too long": ((f"{'a' * 230}-1.0.tar.gz", b""), "file name of 241 characters, 240 are allowed"),
    "signature": (("acme-1.0.tar.gz.asc", b""), "neither a wheel"),
    "egg": (("acme-1.0-py3.11.egg", b""), "neither a wheel"),
    "no version": (("acme.tar.gz", b""), "acme.tar.gz: Invalid sdist filename"),
    "not a version": (("acme-latest.tar.gz", b""), "invalid version"),
    "hyphen in the wheel's name": (("Acme-Tool-1.0-py3-none-any.whl", b""), "invalid version"),
    "doubled separator": (("acme..tool-1.0-py3-none-any.whl", b""), "not a project name"),
    "doubled underscore": (("acme__tool-1.0-py3-none-any.whl", b""), "nvalid project name"),
    "trailing separator": (("acme.-1.0.tar.gz", b""), "not a project name"),
    "no zip": (("acme_tool-1.0-py3-none-any.whl", b"junk"), "broken archive"),
    "truncated wheel": ((wheel()[0], wheel()[1][:-30]), "broken archive"),
    "corrupt wheel": (flipped(), "broken archive: Bad CRC-32"),
    "no METADATA": (wheel(members={METADATA: ""}), "0 files match"),
    "two METADATA": (wheel(members={"other-1.0.dist-info/METADATA": "x"}), "2 files match"),
    "no WHEEL": (wheel(members={"{stem}.dist-info/WHEEL": ""}), "WHEEL is missing"),
    "no RECORD": (wheel(members={"{stem}.dist-info/RECORD": ""}), "RECORD is missing"),
    "no Name": (wheel(members={METADATA: "Version: 1.0\n\n"}), "no Name or no Version"),
    "other name": (wheel(members={METADATA: metadata("other", "1.0")}), "its metadata names the project 'other'"),
    "other version": (wheel(members={METADATA: metadata("acme-tool", "2.0")}), "its metadata has the version '2.0'"),
    "other directory": (wheel("other", filename="acme_tool-1.0-py3-none-any.whl"), "names the project 'other'"),
    "zip bomb in METADATA": (wheel(members={METADATA: "Name: " + "x" * (5 << 20)}), "METADATA is larger than"),
    "zip bomb": (wheel(content=bytes(120 << 20)), "unpacks to more than 200 times"),
    "truncated sdist": ((SDIST[0], SDIST[1][:-20]), "broken archive"),
    "half an sdist": ((SDIST[0], SDIST[1][: len(SDIST[1]) // 2]), "broken archive"),
    "half a tar, well packed": ((SDIST[0], gzip.compress(gzip.decompress(SDIST[1])[:20_000])), "broken archive"),
    "no gzip": ((SDIST[0], b"junk"), "broken archive"),
    "sdist without PKG-INFO": ((SDIST[0], gzip.compress(tar({"x/y": "z"}))), "0 files match"),
    "sdist in a suffix of old": (sdist(filename="acme_tool-1.0.tgz"), "pip and uv want sdists as .tar.gz"),
    "sdist, name with a capital": (sdist(filename="Acme_Tool-1.0.tar.gz"), "the standard name is acme_tool-1.0.tar.gz"),
    "sdist, name with a hyphen": (sdist(filename="acme-tool-1.0.tar.gz"), "the standard name is acme_tool-1.0.tar.gz"),
    "wheel, name with a dot": (
        wheel(filename="acme.tool-1.0-py3-none-any.whl"),
        "the standard name is acme_tool-1.0-py3-none-any.whl",
    ),
    "wheel, version with a zero in front": (
        wheel(filename="acme_tool-01.0-py3-none-any.whl"),
        "the standard name is acme_tool-1.0-py3-none-any.whl",
    ),
    "zip without a version": (("acme.zip", b""), "acme.zip: Invalid sdist filename"),
    "Latin-1": (wheel(members={METADATA: metadata("acme-tool", "1.0").encode() + b"caf\xe9"}), "is not UTF-8 (byte 6"),
    "Requires-Python that is none": (
        wheel(fields=("Requires-Python: 3.6+",)),
        "Requires-Python is '3.6+', which pip ignores",
    ),
    "endless Requires-Python": (wheel(fields=("Requires-Python: " + ">=3," * 300,)), "longer than 1000 characters"),
    "sdist that leads out": (outside("acme_tool-1.0/../../x"), "it leads out of the archive"),
    "sdist with an absolute path": (outside("/etc/x"), "it leads out of the archive"),
    "sdist of another version": (sdist(version="2.0", filename="acme_tool-1.0.tar.gz"), "its metadata has the version"),
    "tar bomb": (small("acme_tool-1.0.tar.gz", bytes(120 << 20)), "unpacks to"),
}


@pytest.mark.parametrize(("artifact", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(artifact: tuple[str, bytes], reason: str, store: Store, add: Add) -> None:
    with pytest.raises(Refusal) as refusal:
        add(artifact)
    assert reason in str(refusal.value)
    assert nothing_in(store)


def nothing_in(store: Store) -> bool:
    return not [
        path
        for path in (*store.packages.rglob("*"), *store.index.directory.rglob("*"))
        if path.is_file() and path.parent.name != ".locks"
    ]


FILENAME, CONTENT = wheel()
DIGESTS = {
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "md5": hashlib.md5(CONTENT).hexdigest(),
    "blake2_256": hashlib.blake2b(CONTENT, digest_size=32).hexdigest().upper(),
}


def test_claims_that_hold(store: Store) -> None:
    upload(store, (FILENAME, CONTENT), Claims("Acme.Tool", "1.0.0", DIGESTS))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        *((Claims(digests={name: "0" * len(DIGESTS[name])}), f"the {name} digest") for name in DIGESTS),
        (Claims(name="other"), "the form names the project 'other'"),
        (Claims(version="1.1"), "the form has the version '1.1'"),
        (Claims(version="newest"), "not a version by PEP 440: 'newest'"),
    ],
)
def test_claims_that_do_not(claims: Claims, reason: str, store: Store) -> None:
    with pytest.raises(Refusal) as refusal:
        upload(store, (FILENAME, CONTENT), claims)
    assert reason in str(refusal.value)
    assert nothing_in(store)


def test_any_truncation_is_refused(store: Store, add: Add) -> None:
    """Whatever the cut, neither kind passes for whole."""
    for filename, content in (wheel(), sdist()):
        cuts = [*range(0, len(content), 97), len(content) - 1]
        for cut, following in pairwise([*cuts, len(content)]):
            assert cut < following
            with pytest.raises(Refusal):
                add((filename, content[:cut]))
    assert nothing_in(store)
