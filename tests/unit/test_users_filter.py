"""The accounts' filter: what it refuses, what it keeps, and that pypiserver's own reader takes the result."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import bcrypt
import pypi_users as users
import pytest
from passlib.apache import HtpasswdFile  # type: ignore[import-untyped]

ROLE = Path(__file__).parents[2] / "roles" / "pypi_users"
COST = 4  # the filter takes any; only the role's variable is bounded


HASH = bcrypt.hashpw(b"prehashed-secret", bcrypt.gensalt(COST)).decode()
TOKEN = users.pypi_users_token({"name": "laptop"})


def account(name: Any = "alice", **more: Any) -> dict[str, Any]:
    return {"name": name, "password": "correct horse"} | more


def prehashed(hashed: Any) -> dict[str, Any]:
    return {"name": "alice", "password_hash": hashed}


def with_token(**changed: Any) -> dict[str, Any]:
    """A publisher with a good token, but for what is changed; None takes a key away."""
    token = {"name": "laptop", "secret": TOKEN["secret"], **changed}
    return account(role="publisher", tokens=[{key: value for key, value in token.items() if value is not None}])


def files(accounts: list[dict[str, Any]], htpasswd: str = "", seals: str = "", cost: int = COST) -> tuple[str, str]:
    present = [b64encode(text.encode(errors="surrogateescape")).decode() for text in (htpasswd, seals)]
    written = users.pypi_users_files(accounts, present[0], present[1], cost, 9898)
    assert [(file["name"], file.get("group"), file["mode"]) for file in written] == [
        ("roles.json", "9898", "0640"),
        ("htpasswd", "9898", "0640"),
        ("htpasswd.seals", None, "0600"),
    ]
    return written[1]["content"], written[2]["content"]


def count_checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Watches the real checkpw: the cost of a run is the number of its calls."""
    calls: list[bytes] = []
    real = bcrypt.checkpw

    def watched(password: bytes, hashed: bytes) -> bool:
        calls.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", watched)
    return calls


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (account(name=""), "name must be"),
        (account(name="a:s3cr3t"), "name must be"),
        (account(name="a\nb"), "name must be"),
        (account(name="alice\n"), "name must be"),
        (account(name=" alice"), "name must be"),
        (account(name="alice "), "name must be"),
        (account(name="#alice"), "name must be"),
        (account(name="a\x1fb"), "name must be"),
        (account(name="jürgen"), "name must be"),
        (account(name="a" * 65), "name must be"),
        (account(name=7), "name must be text"),
        (account(password=""), "password is empty"),
        (account(password="a\0b"), "NUL"),
        (account(password=123456), "password must be text"),
        (account(password="x" * 73), "73 bytes"),
        (account(password="ä" * 37), "74 bytes"),
        (account(password_hash=HASH), "both of password and password_hash"),
        ({"name": "alice"}, "neither of password and password_hash"),
        (account(password=None), "neither of password and password_hash"),
        (prehashed("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="), "not a whole bcrypt hash"),
        (prehashed("$apr1$abcdefgh$IZL7ZP8X2QZlsQ0kLp3ak/"), "not a whole bcrypt hash"),
        (prehashed("$6$salt$abc"), "not a whole bcrypt hash"),
        (prehashed("5f4dcc3b5aa765d61d8327deb882cf99"), "not a whole bcrypt hash"),
        (prehashed("plain text"), "not a whole bcrypt hash"),
        (prehashed(HASH[:-1]), "not a whole bcrypt hash"),
        (prehashed(HASH + "\n"), "not a whole bcrypt hash"),
        (prehashed(f"alice:{HASH}"), "not a whole bcrypt hash"),
        (prehashed(HASH.replace("$2b$", "$2x$")), "not a whole bcrypt hash"),
        (prehashed(HASH[:28] + "B" + HASH[29:]), "not a whole bcrypt hash"),
        (prehashed(HASH.replace("$04$", "$31$")), "cost 31, not 4 to 15"),
        (account(pasword="x1x2x3"), "unknown key 'pasword'"),
        (account(role="admin"), "role is 'admin': use reader or publisher"),
        (account(projects=["acme-*"]), "role is reader"),
        (account(role="publisher", projects="acme-*"), "must be a list"),
        (account(role="publisher", projects=["Acme_*"]), "write 'acme-*'"),
        (account(role="publisher", projects=["acme--x"]), "write 'acme-x'"),
        (account(role="publisher", projects=["acme.x"]), "write 'acme-x'"),
        (account(role="publisher", projects=["[a-"]), "for example 'acme-*'"),
        (account(role="publisher", projects=[""]), "for example 'acme-*'"),
        (account(role="publisher", projects=[3]), "projects has 3"),
        (account(password=TOKEN["secret"]), "password begins as a token does"),
        ({"name": "alice", "tokens": []}, "neither of password and password_hash"),
        (account(tokens="laptop"), "tokens must be a list"),
        (account(tokens=["laptop"]), "tokens must be a list"),
        (account(tokens={"name": "laptop"}), "tokens must be a list"),
        (with_token(name=None), "tokens[0]: name must be text"),
        (with_token(name="a/b"), "tokens[0]: name must be 1 to 64"),
        (with_token(secret=None), "tokens[0] (laptop): has neither of hash and secret"),
        (with_token(hash=TOKEN["entry"]["hash"]), "tokens[0] (laptop): has both of hash and secret"),
        (with_token(secret=""), "secret is no whole token"),
        (with_token(secret=TOKEN["secret"][:-1]), "secret is no whole token"),
        (with_token(secret=TOKEN["secret"] + "\n"), "secret is no whole token"),
        (with_token(secret=TOKEN["secret"][:-6] + "000000"), "secret is no whole token"),
        (with_token(secret=None, hash=TOKEN["entry"]["hash"][:-1]), "hash is not sha256: and 64"),
        (with_token(secret=None, hash=TOKEN["secret"]), "hash is not sha256: and 64"),
        (with_token(secret=None, hash=HASH), "hash is not sha256: and 64"),
        (with_token(scope="write"), "scope is 'write': use read or publish"),
        (with_token(projects=["acme-*"]), "scope is read: set scope: publish"),
        (with_token(scope="publish", projects="acme-*"), "projects must be a list"),
        (with_token(scope="publish", projects=["Acme_*"]), "tokens[0] (laptop): projects has 'Acme_*'"),
        (with_token(scope="publish") | {"role": "reader"}, "the account's role is reader"),
        (with_token(until="tomorrow"), "until is 'tomorrow': give its last day"),
        (with_token(until=""), "until is '': give its last day"),
        (with_token(expires="2027-01-31"), "unknown key 'expires'"),
    ],
)
def test_bad_entry_is_named_with_the_fix_and_without_its_secret(entry: dict[str, Any], says: str) -> None:
    problems = users.pypi_users_problems([account(name="first"), entry])
    assert len(problems) == 1
    assert problems[0].startswith("pypi_users_accounts[1]")
    assert says in problems[0]
    secrets = [str(entry[key]) for key in ("password", "password_hash", "pasword") if entry.get(key)]
    assert not [secret for secret in [*secrets, "s3cr3t", TOKEN["secret"][4:40]] if secret in problems[0]]


def test_all_problems_come_at_once() -> None:
    problems = users.pypi_users_problems([account(password=""), account(role="x"), account(name="b", password="\0")])
    assert [problem.split(":")[0] for problem in problems] == [
        "pypi_users_accounts[0] (alice)",
        "pypi_users_accounts[1] (alice)",
        "pypi_users_accounts[1] (alice)",
        "pypi_users_accounts[2] (b)",
    ]
    assert "duplicate of entry 0" in problems[1]


def test_a_token_is_one_account_s_and_has_one_name() -> None:
    token, other = (users.pypi_users_token({"name": "laptop"}) for _ in range(2))
    twice = [{"name": "laptop", "hash": made["entry"]["hash"]} for made in (token, other)]
    again = {"name": "desk", "secret": token["secret"]}
    assert users.pypi_users_problems([account(tokens=twice)]) == [
        "pypi_users_accounts[0] (alice): tokens[1] (laptop): name is that of another token of this account: choose another"
    ]
    [problem] = users.pypi_users_problems([account(tokens=[token["entry"]]), account("bob", tokens=[again])])
    assert problem.startswith(
        "pypi_users_accounts[1] (bob): tokens (desk): is the same token as pypi_users_accounts[0]"
    )


def test_a_made_token_is_good_and_the_host_gets_its_hash_only() -> None:
    about = {"name": "ci", "scope": "publish", "projects": ["b", "acme-*"], "until": "2027-01-31"}
    made = users.pypi_users_token(about)
    assert made["secret"].startswith("ppi_") and len(made["secret"]) == 53
    by_hash = {"name": "alice", "role": "publisher", "tokens": [made["entry"]]}
    by_secret = by_hash | {"tokens": [about | {"secret": made["secret"], "until": date(2027, 1, 31)}]}
    assert users.pypi_users_problems([by_hash]) == users.pypi_users_problems([by_secret]) == []
    digest = sha256(made["secret"].encode()).hexdigest()
    rights = {"sha256": digest, "scope": "publish", "projects": ["acme-*", "b"], "until": "2027-01-31"}
    for entry in (by_hash, by_secret):
        assert json.loads(users.pypi_users_roles([entry]))["alice"]["tokens"] == {"ci": rights}
        assert files([entry]) == ("", "")


def test_tokens_are_listed_with_their_last_use() -> None:
    today = datetime.now(UTC).date()
    tokens: list[dict[str, Any]] = [
        {"name": "release", "scope": "publish", "projects": ["acme-lib", "b"], "until": today},
        {"name": "old", "until": "2020-01-31"},
        {"name": "wide", "scope": "publish"},
    ]
    accounts: list[dict[str, Any]] = [
        {"name": "ci", "projects": ["acme-*"], "tokens": [each | {"secret": TOKEN["secret"]} for each in tokens]},
        {"name": "alice", "password": "p", "tokens": [{"name": "wide", "scope": "publish", "hash": "sha256:0"}]},
        {"name": "bob", "password": "p"},
    ]
    seen = [
        "- [2026-11-01T00:00:00+00:00]",
        "ci/wide [2026-11-27T01:02:03+00:00]",
        "ci/withdrawn [2026-11-26T00:00:00+00:00]",
    ]
    never = "not since 2026-11-01T00:00:00+00:00, where the logs begin"
    assert users.pypi_users_tokens(accounts, seen) == [
        {"token": "alice/wide", "scope": "publish", "projects": "all", "last_use": never},
        {"token": "ci/old", "scope": "read", "until": "2020-01-31, which is over", "last_use": never},
        {
            "token": "ci/release",
            "scope": "publish",
            "projects": "acme-* and acme-lib, b",
            "until": today.isoformat(),
            "last_use": never,
        },
        {"token": "ci/wide", "scope": "publish", "projects": "acme-*", "last_use": "2026-11-27T01:02:03+00:00"},
    ]
    assert {row["last_use"] for row in users.pypi_users_tokens(accounts, ["- "])} == {
        "not in the logs, which are empty"
    }


def test_tokens_are_spread_over_all_that_they_may_be() -> None:
    made = [users.pypi_users_token({"name": "x"})["secret"] for _ in range(500)]
    assert len({secret[4:] for secret in made}) == 500
    assert all(
        len({secret[place] for secret in made}) > 50 for place in range(5, 47)
    )  # the first is 0 to 7, the last six are the checksum


def test_no_accounts() -> None:
    assert "pypi_users_accounts is empty" in users.pypi_users_problems([])[0]


def test_good_entries() -> None:
    good = [
        account(name="Alice"),
        account(name="alice"),  # names are case-sensitive
        account(name="ci+bot_1@example.org", password="x" * 72),
        account(name="9", password="ä" * 36),
        account(name="a" * 64, role="publisher", projects=["acme-*", "*", "a?c", "x1"]),
        account(name="r", role="reader", projects=[], password_hash=None),
        *({"name": f"h{i}", "password_hash": HASH.replace("$2b$", p)} for i, p in enumerate(["$2a$", "$2b$", "$2y$"])),
    ]
    assert users.pypi_users_problems(good) == []


def test_pypiserver_reads_the_result(tmp_path: Path) -> None:
    passwords = {"zoe": "pässwörd €", "Bob": "x" * 72, "al": "a b:c{{d}}"}
    accounts = [account(name=name, password=password) for name, password in passwords.items()]
    accounts += [{"name": "pre", "password_hash": HASH.replace("$2b$", "$2y$")}]
    htpasswd, _ = files(accounts)
    (tmp_path / "htpasswd").write_text(htpasswd)
    read = HtpasswdFile(str(tmp_path / "htpasswd"))
    assert htpasswd.endswith("\n")
    assert [line.split(":")[0] for line in htpasswd.splitlines()] == ["Bob", "al", "pre", "zoe"]
    assert all(read.check_password(name, password) for name, password in passwords.items())
    assert read.check_password("pre", "prehashed-secret")
    assert not read.check_password("zoe", "wrong")
    assert not read.check_password("Bob", "x" * 71)


def test_second_run_is_byte_identical_and_a_change_touches_one_line() -> None:
    accounts = [account(name=f"user{i}", password=f"secret-{i}") for i in range(60)]
    first = files(accounts)
    assert files(list(reversed(accounts)), *first) == first
    accounts[7]["password"] = "changed"
    accounts.pop(20)
    accounts.append(account(name="new"))
    htpasswd, _ = files(accounts, *first)
    old, new = set(first[0].splitlines()), set(htpasswd.splitlines())
    assert {line.split(":")[0] for line in old - new} == {"user7", "user20"}
    assert {line.split(":")[0] for line in new - old} == {"user7", "new"}


@pytest.mark.parametrize("lost", ["seals", "htpasswd"])
def test_a_lost_file_only_costs_time(lost: str) -> None:
    accounts = [account(name=f"user{i}") for i in range(40)]
    htpasswd, seals = files(accounts)
    if lost == "seals":
        assert files(accounts, htpasswd)[0] == htpasswd
    else:
        again, new_seals = files(accounts, "", seals)
        assert len(again.splitlines()) == 40
        assert files(accounts, again, new_seals) == (again, new_seals)


def test_a_hash_that_was_swapped_on_the_host_is_replaced_in_spite_of_the_seals() -> None:
    accounts = [account(name=f"user{i}", password=f"secret-{i}") for i in range(60)]
    htpasswd, seals = files(accounts)
    lines = htpasswd.splitlines()
    name, _ = lines[5].split(":")
    forged = f"{name}:{HASH}"
    again, _ = files(accounts, "\n".join([*lines[:5], forged, *lines[6:]]), seals)
    assert [a == b for a, b in zip(again.splitlines(), lines, strict=True)].count(False) == 1
    assert forged not in again


def test_cost_change_makes_new_hashes_but_leaves_ready_ones() -> None:
    accounts = [account(name=f"user{i}") for i in range(5)] + [{"name": "pre", "password_hash": HASH}]
    first = files(accounts)
    second = files(accounts, *first, cost=5)
    assert [line.split(":")[1][:7] for line in second[0].splitlines()] == ["$2b$04$", *["$2b$05$"] * 5]
    assert f"pre:{HASH}" in second[0]
    assert all(":$2b$05$" in line for line in second[1].splitlines())


@pytest.mark.parametrize(
    "present",
    ["alice:{SHA}abc\n", "alice:plain\n", "garbage\n", "alice:$2b$04$short\n", ":\n", "alice:\udcff\n", "\0a\0l"],
)
def test_a_present_line_of_another_kind_is_replaced(present: str) -> None:
    htpasswd, _ = files([account()], present)
    assert htpasswd.startswith("alice:$2b$04$")
    assert len(htpasswd.splitlines()) == 1


def test_a_present_2y_hash_stays() -> None:
    present = "alice:" + bcrypt.hashpw(b"correct horse", bcrypt.gensalt(COST)).decode().replace("$2b$", "$2y$") + "\n"
    assert files([account()], present)[0] == present


def test_thousand_users_unchanged_cost_one_check_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [account(name=f"user{i}") for i in range(1000)]
    first = files(accounts)
    calls = count_checks(monkeypatch)
    assert files(accounts, *first) == first
    assert len(calls) <= users.GROUPS
    calls.clear()
    accounts[3]["password"] = "changed"
    files(accounts, *first)
    assert len(calls) < 100


def test_ready_hashes_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [{"name": f"user{i}", "password_hash": HASH} for i in range(1000)]
    calls = count_checks(monkeypatch)
    monkeypatch.setattr(bcrypt, "hashpw", None)
    htpasswd, seals = files(accounts)
    assert len(htpasswd.splitlines()) == 1000
    assert (calls, seals) == ([], "")


def test_a_seal_is_no_cheaper_to_attack_than_the_hashes() -> None:
    """Only whole groups, only bcrypt, the same cost, and no password or fast hash of it in the files."""
    accounts = [account(name=f"user{i}", password=f"secret-{i}") for i in range(100)]
    htpasswd, seals = files(accounts)
    assert seals
    for line in seals.splitlines():
        assert users._cost(line.split(":")[1]) == COST
    assert "secret-" not in htpasswd + seals
    assert files([account()])[1] == ""


def test_roles_are_sorted_and_complete() -> None:
    accounts: list[dict[str, Any]] = [
        account(name="zoe", role="publisher", projects=["b", "acme-*", "b"]),
        account(name="al"),
        account(name="pub", role="publisher"),
    ]
    text = users.pypi_users_roles(accounts)
    assert list(json.loads(text).items()) == [
        ("al", {"projects": [], "role": "reader"}),
        ("pub", {"projects": [], "role": "publisher"}),
        ("zoe", {"projects": ["acme-*", "b"], "role": "publisher"}),
    ]
    assert "correct horse" not in text
    assert text.endswith("}\n")
