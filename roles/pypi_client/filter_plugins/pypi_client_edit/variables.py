"""What the variables may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

# What pip, uv, curl and twine read alike from .netrc and .pypirc. Seen to differ: backslash and # in front (curl
# against Python and uv), quotes (old Python), and beyond ASCII pip sends Latin-1 where curl and uv send UTF-8.
_WORD = re.compile(r"[!$-&(-\[\]-~][!#-\[\]-~]*")
_USER_KEYS = ("user", "username", "password", "publish")


def _url_problem(url: str) -> str | None:
    if not url:
        return "is empty: give the index's address, such as https://pypi.example.org/simple/"
    # The URL itself stays unsaid as long as it may hold a password.
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL: write https://pypi.example.org/simple/"
    if "@" in parts.netloc:
        return "holds a user name or password: take them out and put them into pypi_client_users"
    if parts.scheme not in ("http", "https") or not host:
        return f"is {url!r}: it needs http:// or https:// and a host, such as https://pypi.example.org/simple/"
    if re.search(r"[^!-~]", url) or parts.query or parts.fragment or parts.netloc != parts.netloc.lower():
        return f"is {url!r}: write it with a lower-case host and without spaces, query or fragment"
    return None


def _word_problem(key: str, value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return f"{key} is missing, empty or not text: set it, in quotes"
    if not _WORD.fullmatch(value):
        return (
            f"{key} holds something that .netrc readers understand differently (space, quote, backslash, control or"
            " non-ASCII character, or # in front): choose another one"
        )
    return None


def pypi_client_problems(
    users: Sequence[Mapping[str, Any]], index_url: str, upload_url: str, repository: str
) -> list[str]:
    """Everything wrong with the variables, one sentence each: what, where and the fix. No password is quoted."""
    problems = [f"pypi_client_index_url {problem}" for problem in [_url_problem(index_url)] if problem]
    if not problems and not index_url.endswith("/simple/"):
        problems.append(f"pypi_client_index_url is {index_url!r}: it must end with /simple/ (with the last slash)")
    if upload_url and (problem := _url_problem(upload_url)):
        problems.append(f"pypi_client_upload_url {problem}")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", repository) or repository in ("distutils", "pypi", "testpypi"):
        problems.append(
            f"pypi_client_repository is {repository!r}: use lower-case letters, digits and single hyphens,"
            " and not a name with a meaning of its own (pypi, testpypi, distutils)"
        )
    seen: set[str] = set()
    for index, user in enumerate(users):
        account = user.get("user")
        where = f"pypi_client_users[{index}]"
        if not isinstance(account, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?", account):
            problems.append(f"{where}: user is not the name of an account on the host: set it, such as user: ci")
        else:
            where += f" ({account})"
            if account in seen:
                problems.append(f"{where}: the account has an entry already: keep one of them")
            seen.add(account)
        found: list[str | None] = [
            f"unknown key {key!r}: use {', '.join(_USER_KEYS)}" for key in user if key not in _USER_KEYS
        ]
        found += [_word_problem(key, user.get(key)) for key in ("username", "password")]
        if ":" in str(user.get("username")):
            found.append("username holds a colon, which no login can have: use the name from pypi_users_accounts")
        problems += [f"{where}: {problem}" for problem in found if problem]
    return problems
