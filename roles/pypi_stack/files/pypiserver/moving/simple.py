"""Any simple index: JSON (PEP 691, 592, 700) where it has that, else HTML (PEP 503, 592).

Where it does not say when a file was uploaded, the file's own Last-Modified does: with pypiserver, Nexus and Artifactory that is the upload.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from static_index import names
from static_index.errors import Refusal

from . import manifest
from .offers import HASHES, Failed, Offer, Report, Stopped, Stream, Wanted, by_version, nanoseconds
from .web import LARGEST_PAGE, Body, NotThere, Web

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
MOST = 1_000_000
"""Values of a page: empty ones take far more memory than bytes."""
_LONGEST = 1_000
_NAME = re.compile(r"[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*")


class SimpleIndex:
    """Files of an index, a page at a time."""

    names: Iterable[str] = ()

    def __init__(self, url: str, web: Web, wanted: Wanted, report: Report) -> None:
        self._url, self._web, self._wanted, self._report = url.rstrip("/") + "/", web, wanted, report

    def projects(self) -> Iterable[str]:
        if self._wanted.listed:
            return self._wanted.literal
        found = {names.normalise(each) for each in self._page(self._url).projects if _NAME.fullmatch(each)}
        if not found:
            raise Stopped("it lists no project: give the address that pip's index-url has, or say the projects by name")
        return sorted(name for name in found if name in self._wanted)

    def offers(self, project: str) -> list[Offer]:
        try:
            page = self._page(f"{self._url}{project}/")
        except NotThere as error:
            raise Refusal(f"there is no such project: {error}") from None
        return by_version([offer for entry in page.files if (offer := self._offer(project, page, entry))], self._report)

    def _offer(self, project: str, page: _Page, entry: Any) -> Offer | None:
        filename, address = entry.get("filename"), entry.get("url")
        if not isinstance(filename, str) or not isinstance(address, str):
            raise Failed(f"{page.url} lists a file without a name or address")
        if not filename.endswith((".whl", *names.SDIST_SUFFIXES)):
            self._report.ignore("other files")
            return None
        url = urljoin(page.base, address).partition("#")[0]
        if urlsplit(url).scheme not in (("https",) if page.url.startswith("https:") else ("http", "https")):
            self._report.refuse(
                f"{project}/{filename}", "its address is none of the web's, or less safe than its page's"
            )
            return None
        size, hashes, yanked = entry.get("size"), entry.get("hashes"), manifest.yank(entry.get("yanked"))
        hashes = hashes if isinstance(hashes, dict) else {}
        return Offer(
            project,
            filename,
            f"{project}/{filename}",
            lambda: self._fetch(url),
            {name: str(hashes[name]).lower() for name in HASHES if hashes.get(name)},
            size if type(size) is int and size >= 0 else None,
            nanoseconds(entry.get("upload-time")),
            yanked if yanked is None else yanked[:_LONGEST],
        )

    @contextmanager
    def _fetch(self, url: str) -> Iterator[Stream]:
        with self._web.get(url) as body:
            yield body

    def _page(self, url: str) -> _Page:
        with self._web.get(url, ACCEPT) as body:
            # pypiserver's fallback: PyPI would answer for the name.
            if urlsplit(body.url).hostname != urlsplit(url).hostname:
                raise NotThere(f"{url} is not its own: it redirects to {urlsplit(body.url).hostname}")
            return _read(body)


class _Page:
    """What both forms say; files as PEP 691 has them."""

    def __init__(self, url: str, files: list[Any], projects: list[str], base: str = "") -> None:
        self.url, self.files, self.projects, self.base = url, files, projects, urljoin(url, base)


def _read(body: Body) -> _Page:
    content = body.whole(LARGEST_PAGE)
    if content.count(b",") > MOST:
        raise Failed(f"{body.url} has too many values")
    if body.type.endswith("json"):
        try:
            document = json.loads(content)
            projects = [str(each["name"]) for each in document.get("projects", [])]
            files = document.get("files", [])
            if not all(isinstance(each, dict) for each in files):
                raise TypeError("files")
            return _Page(body.url, files, projects)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Failed(f"{body.url} is no JSON page of an index: {type(error).__name__}") from None
    if body.type.endswith("html"):
        anchors = _Anchors()
        anchors.feed(content.decode("utf-8", "replace"))
        return _Page(body.url, anchors.files, anchors.texts, anchors.base)
    raise Failed(f"{body.url} is {body.type}, no page of an index")


class _Anchors(HTMLParser):
    """Files of a project's page, or the names on the list of projects: there they are what links show."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.base = ""
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in reversed(attrs)}  # the first of a name counts
        if tag == "base":
            self.base = self.base or values.get("href", "")
        elif tag == "a" and values.get("href"):
            address, _, fragment = values["href"].strip().partition("#")
            self._text = []
            self.files.append(
                {
                    "filename": unquote(address.partition("?")[0].rpartition("/")[2]),
                    "url": address,
                    "hashes": dict(re.findall(r"(?:^|&)([a-z0-9]+)=([0-9a-fA-F]+)(?=&|$)", fragment)),
                    "yanked": (values["data-yanked"] or True) if "data-yanked" in values else False,
                    "upload-time": values.get("data-upload-time"),
                }
            )

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._text is not None:
            if name := "".join(self._text).strip().strip("/"):
                self.texts.append(name)
            self._text = None
