"""pypiserver with the static index behind it, as a WSGI application.

nginx answers every read from the files, so this takes uploads and removals only. It uses pypiserver's extension points (its Config, a
Backend, the Bottle application that it returns) and keeps pypiserver's answers; forms are read by `form`, which Bottle would hold
in memory and on disk twice.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, Protocol

# pypiserver has no type information
import pypiserver  # type: ignore[import-untyped]
from pypiserver.backend import Backend, BackendProxy  # type: ignore[import-untyped]
from pypiserver.bottle_wrapper import (  # type: ignore[import-untyped]
    FileUpload,
    FormsDict,
    HTTPError,
    request,
    response,
)
from pypiserver.config import Config  # type: ignore[import-untyped]
from pypiserver.core import PkgFile  # type: ignore[import-untyped]

from . import form, guard, names
from .errors import Conflict, Forbidden, Refusal
from .store import DIGESTS, Claims, Incoming, Store

log = logging.getLogger(__name__)

_ACCOUNT, _CLOSING = "static_index.account", "static_index.closing"
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="pypi"'}
_MAX_REASON = 300  # the status line and all headers have to fit into nginx's buffer of 4 kB


class Account(Protocol):
    """Who is asking: a user, or a token of theirs, `ci/laptop`. `projects` are shell patterns of normalised names; none means all.

    A token has some of its own, `within`; both have to match.
    """

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def projects(self) -> Iterable[str]: ...
    @property
    def within(self) -> Iterable[str]: ...


Verify = Callable[[str, str, str], "Account | None"]
"""User, password and address to the account, or None. It may raise bottle's HTTPError for another answer than 401."""

_FIELDS = (":action", "name", "version", *(f"{digest}_digest" for digest in DIGESTS))
_GONE = {
    "submit": "projects need no registration: upload a release",
    "verify": "projects need no registration: upload a release",
    "doc_upload": "documentation is not kept here",
}


class StaticIndex(Backend):  # type: ignore[misc]
    """The store as pypiserver sees it."""

    def __init__(self, config: Any, store: Store, allow_remove: bool, begin: guard.Guard) -> None:
        super().__init__(config)
        self._store, self._allow_remove, self._begin = store, allow_remove, begin

    def add_package(self, filename: str, stream: Incoming) -> None:
        with _answering():
            project = names.parse(filename).project
            account = _account_for(project)
            if not self._store.owns(project):
                self._begin(project, account.name.partition("/")[0], account.projects)
            fields = {name: request.forms.get(name, "") for name in _FIELDS}
            digests = {name: claimed for name in DIGESTS if (claimed := fields[f"{name}_digest"])}
            added, new = self._store.add(filename, stream, Claims(fields["name"], fields["version"], digests))
        log.info("%s uploaded %s sha256=%s%s", account.name, filename, added.sha256, "" if new else " again")

    def remove_package(self, pkg: PkgFile) -> None:
        with _answering():
            account = _account_for(pkg.pkgname_norm)
            if not self._allow_remove:
                raise Forbidden("removing through the API is switched off; ask the server's operator")
            self._store.remove(pkg.relfn)
        log.info("%s removed %s", account.name, pkg.relfn)

    def exists(self, filename: str) -> bool:
        """Never: the store knows better what to do then than pypiserver."""
        return False

    def find_version(self, name: str, version: str) -> list[PkgFile]:
        project, root = names.normalise(name), str(self._store.packages)
        with _answering():
            found = self._store.index.records.load(project).of_release(names.release_key(version))
        return [PkgFile(project, file.version, f"{root}/{file.filename}", root, file.filename) for file in found]

    def get_all_packages(self) -> NoReturn:
        raise NotImplementedError  # for reading, which is nginx's


def make_app(store: Store, verify: Verify, *, allow_remove: bool = False, begin: guard.Guard = lambda *_: None) -> Any:
    """The WSGI application: a health check for everyone, POST / for publishers, nothing else. `begin`: who may take a new name."""
    config = Config.default_with_overrides(
        roots=[store.packages],
        backend_arg="simple-dir",
        authenticate=["update", "download", "list"],
        auther=lambda *_: _ACCOUNT in request.environ,  # the hook below has verified it
        disable_fallback=True,
    )
    config.backend = BackendProxy(StaticIndex(config, store, allow_remove, begin))
    app = pypiserver.setup_routes_from_config(pypiserver.app_from_config(config), config)

    def admit() -> None:
        if request.path == config.health_endpoint:
            return
        closing = request.environ[_CLOSING] = ExitStack()
        body = form.Body(request.environ)
        closing.callback(_drop, body)  # nginx would not hear an answer while it is sending
        address = request.get_header("X-Real-IP", "")
        user, password = request.auth or ("", None)
        account = verify(user, password, address) if password is not None else None
        if account is None:
            raise HTTPError(401, "user and password, please", **_CHALLENGE)
        if (request.method, request.path) != ("POST", "/"):
            raise HTTPError(404, "only uploads are taken here")
        if account.role != "publisher":
            raise HTTPError(403, f"{account.name} may read only: uploading needs the role publisher")
        request.environ[_ACCOUNT] = account
        incoming = closing.enter_context(store.incoming())
        with _answering():
            sent = form.read(body, request.content_type, _FIELDS, "content", incoming.write)
        if gone := _GONE.get(sent.fields.get(":action", "")):
            raise HTTPError(410, gone)
        parts = FormsDict(sent.fields)
        if sent.filename is not None:
            parts["content"] = FileUpload(incoming, "content", sent.filename)
        request.environ["bottle.request.post"] = parts

    def close() -> None:
        if closing := request.environ.pop(_CLOSING, None):
            closing.close()

    app.add_hook("before_request", admit)
    app.add_hook("after_request", close)
    for status in (400, 401, 403, 404, 409, 410, 429, 500, 503):
        app.error(status)(_explain)
    return app


def from_environment() -> Any:
    """The application as the container runs it. Variables: see `store_from_environment` and `guard`; PYPI_ALLOW_REMOVE=true."""
    from login import Login, Mint, Refused, TooManyAttempts  # mounted beside this; the tests bring their own

    minted = os.environ.get("MINTED_DIRECTORY")
    login = Login(Path(os.environ.get("USERS_DIRECTORY", "/users")), mint=Mint(Path(minted)) if minted else None)

    def verify(user: str, password: str, address: str) -> Account | None:
        try:
            account: Account | None = login.check(user, password.encode(), address)
        except TooManyAttempts:
            raise HTTPError(429, "too many attempts, try again in a minute") from None
        except Refused as refused:
            raise HTTPError(401, str(refused), **_CHALLENGE) from None
        except (OSError, ValueError) as error:
            log.error("cannot read the users: %s", error)
            raise HTTPError(503, "the users cannot be read") from None
        return account

    store = store_from_environment()
    store.inspector.start()  # before the workers are forked, so that they share it
    allow_remove = os.environ.get("PYPI_ALLOW_REMOVE", "").lower() == "true"
    return make_app(store, verify, allow_remove=allow_remove, begin=guard.from_environment())


def store_from_environment() -> Store:
    """PYPI_PACKAGES (/data/packages), PYPI_INDEX (/data/index), PYPI_URL (where clients find it); one store for a process."""
    variables = {"PYPI_PACKAGES": "/data/packages", "PYPI_INDEX": "/data/index", "PYPI_URL": "../.."}
    return _store(*(os.environ.get(name) or default for name, default in variables.items()))


@cache
def _store(packages: str, index: str, url: str) -> Store:
    return Store(Path(packages), Path(index), url=url)


def _account_for(project: str) -> Account:
    account: Account = request.environ[_ACCOUNT]
    for patterns in (list(account.projects), list(account.within)):
        if patterns and not any(fnmatchcase(project, pattern) for pattern in patterns):
            raise Forbidden(f"{account.name} may publish {', '.join(patterns)}; {project} is none of these")
    return account


def _drop(body: form.Body) -> None:
    with suppress(Refusal, OSError):
        body.drop()


@contextmanager
def _answering() -> Iterator[None]:
    """Turn a Refusal into an HTTP error. twine gets 400 for a name that is taken, as pypiserver has always answered it."""
    try:
        yield
    except Refusal as error:
        twine = isinstance(error, Conflict) and "twine" in request.headers.get("User-Agent", "")
        raise HTTPError(400 if twine else error.status, str(error)) from None


def _explain(error: HTTPError) -> str:
    """The reason as plain text and in the status line: uv shows the one, twine the other."""
    status, reason = error.status_code, " ".join(str(error.body).split())
    if isinstance(error.exception, OSError) and error.exception.errno in (errno.ENOSPC, errno.EDQUOT):
        status, reason = 507, "no space left on the server; nothing was stored"
    line = reason.encode("ascii", "backslashreplace").decode()[:_MAX_REASON]
    response.status = f"{status} {line}"
    response.content_type = "text/plain; charset=utf-8"
    return f"{reason}\n"
