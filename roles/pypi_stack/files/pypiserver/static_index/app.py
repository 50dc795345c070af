"""pypiserver with the static index behind it, as a WSGI application.

nginx answers every read from the files, so this sees uploads, removals and a few old addresses. It uses pypiserver's
extension points (its Config, a Backend, the Bottle application that it returns) and keeps pypiserver's answers.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, Protocol

# pypiserver has no type information
import pypiserver  # type: ignore[import-untyped]
from pypiserver.backend import Backend, BackendProxy  # type: ignore[import-untyped]
from pypiserver.bottle_wrapper import HTTPError, request, response  # type: ignore[import-untyped]
from pypiserver.config import Config  # type: ignore[import-untyped]
from pypiserver.core import PkgFile  # type: ignore[import-untyped]

from . import names
from .archive import Limits
from .errors import Conflict, Forbidden, Refusal
from .records import File
from .store import DIGESTS, Claims, Store

log = logging.getLogger(__name__)

_ACCOUNT = "static_index.account"
_MAX_REASON = 300  # the status line and all headers have to fit into nginx's buffer of 4 kB


class Account(Protocol):
    """Who is asking. `projects` are shell patterns of normalised names; none means all."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def projects(self) -> Iterable[str]: ...


Verify = Callable[[str, str], "Account | None"]
"""User and password to the account, or None. It may raise bottle's HTTPError for another answer than 401."""


class StaticIndex(Backend):  # type: ignore[misc]
    """The store as pypiserver sees it."""

    def __init__(self, config: Any, store: Store, allow_remove: bool) -> None:
        super().__init__(config)
        self._store, self._allow_remove = store, allow_remove

    def add_package(self, filename: str, stream: BinaryIO) -> None:
        with _answering():
            if "gpg_signature" in request.files:
                raise Refusal("signatures are not kept: upload without one")
            account = _account_for(names.parse(filename).project)
            form = {key: request.forms.get(key, "") for key in ("name", "version", *(f"{d}_digest" for d in DIGESTS))}
            digests = {name: claimed for name in DIGESTS if (claimed := form[f"{name}_digest"])}
            added = self._store.add(filename, stream, Claims(form["name"], form["version"], digests))
        log.info("%s uploaded %s sha256=%s", account.name, filename, added.sha256)

    def remove_package(self, pkg: PkgFile) -> None:
        with _answering():
            account = _account_for(pkg.pkgname_norm)
            if not self._allow_remove:
                raise Forbidden("removing through the API is switched off; ask the server's operator")
            self._store.remove(pkg.relfn)
        log.info("%s removed %s", account.name, pkg.relfn)

    def exists(self, filename: str) -> bool:
        with _answering():
            return filename in self._store.records.load(names.parse(filename).project).files

    def get_projects(self) -> Iterable[str]:
        return self._store.records.projects()

    def find_project_packages(self, project: str) -> Iterator[PkgFile]:
        for file in self._store.records.load(names.normalise(project)).files.values():
            yield self._package(project, file)

    def find_version(self, name: str, version: str) -> list[PkgFile]:
        with _answering():
            wanted = names.parse_version(version)
        return [
            package for package in self.find_project_packages(name) if names.parse_version(package.version) == wanted
        ]

    def get_all_packages(self) -> Iterator[PkgFile]:
        for project in self.get_projects():
            yield from self.find_project_packages(project)

    def package_count(self) -> int:
        return sum(not name.startswith(".") for name in os.listdir(self._store.packages))

    def _package(self, project: str, file: File) -> PkgFile:
        root = str(self._store.packages)
        package = PkgFile(names.normalise(project), file.version, f"{root}/{file.filename}", root, file.filename)
        package.digest = f"sha256={file.sha256}"
        return package


def make_app(store: Store, verify: Verify, *, allow_remove: bool = False) -> Any:
    """The WSGI application. Every request but the health check needs an account, every POST / a publisher."""
    tempfile.tempdir = str(store.spool)  # Bottle spools bodies: there is room beside the packages, in /tmp maybe not
    config = Config.default_with_overrides(
        roots=[store.packages],
        backend_arg="simple-dir",
        authenticate=["update", "download", "list"],
        auther=lambda *_: _ACCOUNT in request.environ,  # the hook below has verified it
        disable_fallback=True,
    )
    config.backend = BackendProxy(StaticIndex(config, store, allow_remove))
    app = pypiserver.setup_routes_from_config(pypiserver.app_from_config(config), config)

    def authenticate() -> None:
        if request.path == config.health_endpoint:
            return
        account = verify(*request.auth) if request.auth and request.auth[1] is not None else None
        if account is None:
            raise HTTPError(401, "user and password, please", **{"WWW-Authenticate": 'Basic realm="pypi"'})
        request.environ[_ACCOUNT] = account
        if request.method == "POST" and request.path == "/":
            if account.role != "publisher":
                raise HTTPError(403, f"{account.name} may read only: uploading needs the role publisher")
            try:
                request.POST  # noqa: B018  # parsed here, where a bad form can still be told from an error of ours
            except (ValueError, LookupError, TypeError) as error:
                raise HTTPError(400, f"malformed form: {error}") from None

    def close_spools() -> None:
        """Bottle would keep them, and the disk they take, until the thread's next request."""
        for upload in request.environ.get("bottle.request.post", {}).values():
            if hasattr(upload, "file"):
                upload.file.close()
        if body := request.environ.get("bottle.request.body"):
            body.close()

    app.add_hook("before_request", authenticate)
    app.add_hook("after_request", close_spools)
    for status in (400, 401, 403, 409, 429, 500, 503):
        app.error(status)(_explain)
    return app


def from_environment() -> Any:
    """The application as the container runs it. Variables: see `store_from_environment`; PYPI_ALLOW_REMOVE=true."""
    from login import Login, TooManyAttempts  # mounted beside this; the tests bring their own

    login = Login(Path(os.environ.get("USERS_DIRECTORY", "/users")))

    def verify(user: str, password: str) -> Account | None:
        try:
            account: Account | None = login.check(user, password.encode())
        except TooManyAttempts:
            raise HTTPError(429, "too many attempts, try again in a minute") from None
        except (OSError, ValueError) as error:
            log.error("cannot read the users: %s", error)
            raise HTTPError(503, "the users cannot be read") from None
        return account

    allow_remove = os.environ.get("PYPI_ALLOW_REMOVE", "").lower() == "true"
    return make_app(store_from_environment(), verify, allow_remove=allow_remove)


def store_from_environment() -> Store:
    """PYPI_PACKAGES (/data/packages), PYPI_INDEX (/data/index), PYPI_MAX_MEMBERS (9999: files in a wheel or sdist)."""
    limits = Limits(members=int(os.environ.get("PYPI_MAX_MEMBERS", Limits.members)))
    packages, index = os.environ.get("PYPI_PACKAGES", "/data/packages"), os.environ.get("PYPI_INDEX", "/data/index")
    return Store(Path(packages), Path(index), limits)


def _account_for(project: str) -> Account:
    account: Account = request.environ[_ACCOUNT]
    patterns = list(account.projects)
    if patterns and not any(fnmatchcase(project, pattern) for pattern in patterns):
        raise Forbidden(f"{account.name} may publish {', '.join(patterns)}; {project} is none of these")
    return account


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
