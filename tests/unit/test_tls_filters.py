"""The judgement of certificates, on certificates made for the purpose."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import pypi_tls as tls
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

PLUGIN = Path(__file__).parents[2] / "roles/pypi_tls/filter_plugins/pypi_tls.py"
HOST = "pypi.example.com"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self, passphrase: str = "") -> str:
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase.encode())
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        ).decode()


def general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(name) if "/" in name else ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make(
    common_name: str,
    names: tuple[str, ...] = (),
    *,
    issuer: Pair | None = None,
    days: tuple[float, float] = (-1, 365),
    key: Key | None = None,
    constraints: tuple[list[str] | None, list[str] | None] | None = None,
    use: ObjectIdentifier | None = None,
) -> Pair:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general(name) for name in names]), critical=False)
    if use:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    if constraints:
        permitted, excluded = ([general(name) for name in trees] if trees else None for trees in constraints)
        builder = builder.add_extension(x509.NameConstraints(permitted, excluded), critical=True)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@pytest.fixture(scope="module")
def root() -> Pair:
    return make("Root")


@pytest.fixture(scope="module")
def middle(root: Pair) -> Pair:
    return make("Middle", issuer=root)


@pytest.fixture(scope="module")
def leaf(middle: Pair) -> Pair:
    return make("leaf", (HOST, "192.0.2.7", "2001:db8::7", "*.wild.example.com"), issuer=middle)


def test_a_good_chain_has_no_problem(leaf: Pair, middle: Pair, root: Pair) -> None:
    names = (HOST, "PYPI.example.com", "192.0.2.7", "2001:db8:0::7", "one.wild.example.com")
    chain = leaf.pem + middle.pem + root.pem
    assert tls.problems(chain, leaf.key_pem(), names, 0) == []


def test_what_our_own_ca_signed_covers_no_more_than_it_should(middle: Pair) -> None:
    own = make("leaf", (HOST, "2001:db8::7"), issuer=middle)
    assert tls.problems(own.pem, own.key_pem(), ("PYPI.example.com", "2001:db8:0::7"), 0, middle.pem) == []
    assert tls.problems(own.pem, own.key_pem(), (HOST,), 0, middle.pem) == ["the certificate also covers 2001:db8::7"]


@pytest.mark.parametrize(
    "name",
    [
        "other.example.com",
        "a.pypi.example.com",
        "example.com",
        "wild.example.com",
        "two.one.wild.example.com",
        "192.0.2.8",
        "leaf",
    ],
)
def test_a_name_that_is_not_covered(leaf: Pair, name: str) -> None:
    (problem,) = tls.problems(leaf.pem, leaf.key_pem(), (HOST, name), 0)
    assert f"does not cover {name} (it covers pypi.example.com, " in problem


@pytest.mark.parametrize("wildcard", ["p*.example.com", "*", "*.*.com", "pypi.*.com"])
def test_a_star_only_stands_for_one_whole_left_label(wildcard: str) -> None:
    pair = make("leaf", (wildcard,))
    assert "does not cover" in tls.problems(pair.pem, pair.key_pem(), (HOST,), 0)[0]


def test_the_common_name_is_no_name() -> None:
    pair = make(HOST)
    assert "no subject alternative names" in tls.problems(pair.pem, pair.key_pem(), (HOST,), 0)[0]


@pytest.mark.parametrize(
    ("days", "within", "problem"),
    [
        ((-10, -1), 0, "expired on"),
        ((1, 10), 0, "not valid before"),
        ((-1, 20), 30, "expires on"),
        ((-1, 40), 30, None),
        ((-10, -1), None, None),
    ],
)
def test_dates(days: tuple[float, float], within: int | None, problem: str | None) -> None:
    pair = make("leaf", (HOST,), days=days)
    found = tls.problems(pair.pem, pair.key_pem(), (HOST,), within)
    assert (len(found) == 1 and problem in found[0]) if problem else found == []


def test_days_left() -> None:
    assert tls.days_left(make("leaf", days=(-1, 9.5)).pem) == 9
    assert tls.days_left(make("leaf", days=(-9, -0.5)).pem) == -1


def test_chain_out_of_order(leaf: Pair, middle: Pair, root: Pair) -> None:
    (problem,) = tls.problems(leaf.pem + root.pem, leaf.key_pem(), (HOST,), 0)
    assert "certificate 2 of the chain did not issue certificate 1" in problem
    assert "key belongs to another" in "".join(tls.problems(middle.pem + leaf.pem, leaf.key_pem(), (), 0))


def test_an_issuer_of_the_same_name_is_not_enough(leaf: Pair) -> None:
    impostor = make("Middle")
    assert "did not issue" in tls.problems(leaf.pem + impostor.pem, leaf.key_pem(), (HOST,), 0)[0]
    assert "another CA" in tls.problems(leaf.pem, leaf.key_pem(), (HOST,), 0, impostor.pem)[-1]


def test_a_ca_issued_anew_with_the_same_key_stands_in(root: Pair) -> None:
    old = make("leaf", (HOST,), issuer=root)
    anew = make("Root", key=root.key, days=(0, 3650))
    assert tls.problems(old.pem, old.key_pem(), (HOST,), 0, anew.pem) == []


def test_use() -> None:
    mail = make("leaf", (HOST,), use=ExtendedKeyUsageOID.EMAIL_PROTECTION)
    assert "not meant for servers" in tls.problems(mail.pem, mail.key_pem(), (HOST,), 0)[0]
    server = make("leaf", (HOST,), use=ExtendedKeyUsageOID.SERVER_AUTH)
    assert tls.problems(server.pem, server.key_pem(), (HOST,), 0) == []


@pytest.mark.parametrize("chain", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\x00\x01"])
def test_no_certificate(chain: str) -> None:
    assert tls.problems(chain, "") == ["the certificate is missing or not PEM"]


def test_a_key_in_the_certificate_file(leaf: Pair) -> None:
    assert "also holds a private key" in tls.problems(leaf.pem + leaf.key_pem(), leaf.key_pem())[0]


def test_keys(leaf: Pair) -> None:
    broken = leaf.key_pem().replace("M", "A")
    assert tls.key_problems(leaf.pem, "") == ["the key is missing or not PEM"]
    assert tls.key_problems(leaf.pem, broken) == ["the key is damaged"]
    assert tls.key_problems(leaf.pem, make("x").key_pem()) == ["the key belongs to another certificate"]
    assert tls.key_problems(leaf.pem, leaf.key_pem("open")) == ["the key is protected by a passphrase"]
    assert tls.key_problems(leaf.pem, leaf.key_pem("open"), "open") == []
    assert "cannot be opened" in tls.key_problems(leaf.pem, leaf.key_pem("open"), "wrong")[0]
    assert "not protected" in tls.key_problems(leaf.pem, leaf.key_pem(), "open")[0]


def test_a_key_that_nginx_would_refuse() -> None:
    small = make("leaf", (HOST,), key=rsa.generate_private_key(65537, 1024))
    assert "1024 bits" in tls.problems(small.pem, small.key_pem(), (HOST,), 0)[0]


@pytest.mark.parametrize("name", [HOST, "pypi", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1", "a" * 63 + ".de"])
def test_valid_names(name: str) -> None:
    assert tls.invalid([name]) == []


@pytest.mark.parametrize(
    "name",
    ["", "https://a.de", "a.de:443", "a.de.", "-a.de", "a..de", "a_b.de", "*.a.de", "bücher.de", "a" * 64, "1.2.3.400"]
    + ["192.0.2.0/24", "a b", "a.de\n", 7, None],
)
def test_invalid_names(name: object) -> None:
    assert tls.invalid([HOST, name]) == [name]


def test_trees() -> None:
    assert tls.invalid_trees(["example.com", "192.0.2.0/24", "192.0.2.1", "2001:db8::/32"]) == []
    assert tls.invalid_trees(["192.0.2.1/24", "*.a.de", "a/24"]) == ["192.0.2.1/24", "*.a.de", "a/24"]
    assert tls.outside([HOST, "192.0.2.9", "notexample.com", "2001:db8::1"], ["example.com", "192.0.2.0/24"]) == [
        "notexample.com",
        "2001:db8::1",
    ]


def test_names_for_the_request() -> None:
    assert tls.alternative_names(["Pypi.de", "pypi.de", "2001:DB8::1"]) == ["DNS:pypi.de", "IP:2001:db8::1"]
    assert tls.addresses([HOST, "192.0.2.1"]) == ["192.0.2.1"]


def test_constraints_leave_no_kind_of_name_open() -> None:
    assert tls.subtrees(["B.de", "a.de"]) == {
        "permitted": ["DNS:a.de", "DNS:b.de"],
        "excluded": ["IP:0.0.0.0/0", "IP:::/0"],
    }
    assert tls.subtrees(["192.0.2.1"]) == {"permitted": ["DNS:invalid", "IP:192.0.2.1/32"], "excluded": []}


@pytest.mark.parametrize(
    ("constraints", "refused"),
    [
        (None, []),
        ((["example.com"], None), ["notexample.com"]),
        ((["example.com"], ["0.0.0.0/0", "::/0"]), ["notexample.com", "192.0.2.9"]),
        ((["example.com", "192.0.2.0/29"], None), ["notexample.com", "192.0.2.9"]),
        ((["192.0.2.0/24"], None), []),
        ((["com"], ["pypi.example.com"]), [HOST]),
    ],
)
def test_forbidden(constraints: tuple[list[str] | None, list[str] | None] | None, refused: list[str]) -> None:
    authority = make("CA", constraints=constraints)
    assert tls.forbidden(authority.pem, [HOST, "notexample.com", "192.0.2.9"]) == refused


def test_a_certificate_of_another_ca_of_this_role_is_a_stranger_s() -> None:
    ours, other, public = make(tls.AUTHORITY), make(tls.AUTHORITY), make("Public CA")
    again = make(tls.AUTHORITY, key=ours.key)  # issued anew, with the same key
    leaf = make("Private PyPI", (HOST,), issuer=ours).pem
    assert [tls.stranger(leaf, authority) for authority in (ours.pem, again.pem, other.pem, "")] == [
        False,
        False,
        True,
        True,
    ]
    bought = make("Private PyPI", (HOST,), issuer=public).pem
    assert [tls.stranger(text, "") for text in (bought, "", "no PEM", "\udcff")] == [False] * 4


def test_the_ca_has_the_name_by_which_its_certificates_are_known() -> None:
    assert f"common_name: {tls.AUTHORITY}\n" in (PLUGIN.parents[1] / "tasks/ca.yml").read_text("utf-8")


@pytest.mark.parametrize("text", ["\udcff", "-----BEGIN CERTIFICATE-----\n\udcff\n-----END CERTIFICATE-----\n", "\0"])
def test_a_damaged_file_of_the_server_is_no_certificate(text: str) -> None:
    assert tls.problems(text, text) == ["the certificate is missing or not PEM"]
    pair = make("leaf", (HOST,))
    assert tls.problems(pair.pem, f"{pair.key_pem()}\udcff PRIVATE KEY") == ["the key is damaged"]
