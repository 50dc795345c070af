"""What an upstream says of a project's files: JSON (PEP 691, 700, 714, 740, 792), or HTML (PEP 503, 592, 658) from older ones.

Foreign text is taken apart here and nothing of it passes but what is known and has the right form: a file without a SHA-256, or
with a name that no installer would take for this project's, is not there. Which way an answer is read, its content type decides.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from .config import Upstream
from .errors import Failed, Late
from .names import version_key, version_of

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"  # as pip and uv ask
LONGEST = 2_000
"""Characters of any one value; longer ones are nobody's."""
MOST_FILES, MOST_VALUES = 50_000, 1_000_000
"""Of a page. The largest real one has 15,000 files; empty values take 25 times their bytes in memory."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"([0-9-]{10}T[0-9:]{8})(\.[0-9]{1,9})?(?:Z|\+00:00)")
_STATUS = re.compile(r"[a-z-]{1,40}")
_PIECE = 1 << 14


class File(NamedTuple):
    """A file as its upstream has it. `metadata` is the SHA-256 of its core metadata, or empty; `yanked` is None or the reason.

    `withdrawn`: the upstream lists it no more, and here it is kept for those who have it in a lock file.
    """

    filename: str
    version: str
    url: str
    sha256: str
    size: int | None = None
    uploaded: str = ""
    requires_python: str = ""
    metadata: str = ""
    yanked: str | None = None
    provenance: str = ""
    withdrawn: bool = False

    @property
    def digest16(self) -> str:
        """What it is found by in addresses."""
        return self.sha256[:16]

    @property
    def key(self) -> tuple[str, str]:
        return self.digest16, self.filename


class Listing(NamedTuple):
    """A project's page. `upstream` and `source` are its name and address; `status` and `status_reason` are PEP 792's."""

    project: str
    upstream: str
    source: str
    files: tuple[File, ...]
    versions: tuple[str, ...] = ()
    status: str = ""
    status_reason: str = ""
    etag: str = ""

    def dump(self) -> bytes:
        """JSON, with a line for each file: `excerpt` finds one without reading all others."""
        head, files, tail = (json.dumps(part, separators=(",", ":"))[1:-1] for part in (self[:3], self.files, self[4:]))
        # In a string this would have a backslash in it.
        lines = files.replace('],["', '],\n["')
        return f"[{head},[\n{lines}\n],{tail}]".encode()


def restore(content: bytes) -> Listing:
    """What `dump` made, now or before there were lines; a ValueError for anything else."""
    try:
        project, upstream, source, files, versions, *rest = json.loads(content)
        return Listing(project, upstream, source, tuple(File(*file) for file in files), tuple(versions), *rest)
    except TypeError as error:
        raise ValueError(str(error)) from None


def excerpt(content: bytes, digest16: str, filename: str) -> Listing:
    """The same with this file alone, or with none: of thousands, for a hundredth of the time."""
    head, *_ = content.partition(b"\n")
    *_, newline, tail = content.rpartition(b"\n")
    key, lines, end = f"\n[{json.dumps(filename)},".encode(), [], len(head)
    while (start := content.find(key, end)) >= 0:
        end = content.find(b"\n", start + 1)
        lines.append(content[start:end].rstrip(b","))
    known = restore(head + b",".join(lines) + tail if newline else content)
    return known._replace(files=tuple(file for file in known.files if file.key == (digest16, filename)))


@lru_cache(maxsize=1 << 15)
def moment(text: str) -> float | None:
    """Seconds since the epoch of a time in UTC (PEP 700); None for what is none."""
    found = _TIME.fullmatch(text)
    if not found:
        return None
    whole, fraction = found.groups()
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(fraction or 0)
    except ValueError:
        return None


def parse(
    project: str, upstream: Upstream, url: str, content_type: str, content: bytes, etag: str, seconds: float
) -> Listing:
    """The page at an address, or a Failed for what makes no sense. `seconds`: how long reading HTML may take."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind.endswith("json"):
            page = _from_json(content)
        elif kind.endswith("html"):
            page = _from_html(content, time.monotonic() + seconds)
        else:
            raise ValueError(f"its type is {kind!r}")
    except TimeoutError:
        raise Late(f"{upstream.name} has a page that takes too long to read") from None
    except (ValueError, RecursionError) as error:
        reason = "".join(c if " " <= c <= "~" else "?" for c in str(error))[:100]
        raise Failed(f"{upstream.name} has no simple page for {project}: {reason}") from None
    url = urljoin(url, page.base)
    files = [file for entry in page.files if (file := _file(project, url, entry))]
    versions = tuple(v for v in page.versions if isinstance(v, str) and len(v) <= LONGEST and version_key(v))
    status = page.status if _STATUS.fullmatch(page.status) else ""
    return Listing(
        project, upstream.name, upstream.url, tuple(files), versions, status, page.status_reason[:LONGEST], etag
    )


class _Page(NamedTuple):
    """What both forms say; files as PEP 691 has them."""

    files: Iterable[Any]
    versions: Iterable[Any] = ()
    status: str = ""
    status_reason: str = ""
    base: str = ""


def _from_json(content: bytes) -> _Page:
    if content.count(b",") > MOST_VALUES:
        raise ValueError("too many values")
    document = json.loads(content)
    files = _typed(_typed(document, dict, None).get("files"), list, None)
    api = str(_typed(document.get("meta"), dict, {}).get("api-version", "1.0"))
    if not api.startswith("1."):
        raise ValueError(f"api-version {api[:20]!r}")
    status = _typed(document.get("project-status"), dict, {})
    versions = _typed(document.get("versions"), list, [])
    return _Page(files, versions, _text(status.get("status")), _text(status.get("reason")))


def _typed(value: Any, kind: type, default: Any) -> Any:
    """The value if it is of that kind, or the default; a ValueError where there is none."""
    if not isinstance(value, kind) and default is None:
        raise ValueError("no list of files in it")
    return value if isinstance(value, kind) else default


def _from_html(content: bytes, end: float) -> _Page:
    parser, text = _Anchors(), content.decode("utf-8", "replace")
    for start in range(0, len(text), _PIECE):  # html.parser takes quadratic time for some texts
        parser.feed(text[start : start + _PIECE])
        if time.monotonic() > end:
            raise TimeoutError
        if len(parser.rawdata) > 4 * _PIECE:
            raise ValueError("its HTML makes no sense")
    if not parser.is_index and not any(entry["hashes"] for entry in parser.files):
        raise ValueError("HTML without a file")  # an error page, or somebody's login
    return _Page(parser.files, (), parser.meta.get("status", ""), parser.meta.get("status-reason", ""), parser.base)


class _Anchors(HTMLParser):
    """Files and the page's own properties."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[dict[str, Any]] = []
        self.meta: dict[str, str] = {}
        self.base = ""
        self.is_index = False
        self._heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in reversed(attrs)}  # the first of a name counts
        self._heading = tag in ("title", "h1")
        if tag == "base":
            self.base = self.base or values.get("href", "")
        elif tag == "meta":
            name = values.get("name", "").lower()
            if name == "pypi:repository-version":
                self.is_index = True
                if not values.get("content", "").startswith("1."):
                    raise ValueError(f"repository version {values.get('content', '')[:20]!r}")
            elif name.startswith("pypi:project-"):
                self.meta[name.removeprefix("pypi:project-")] = values.get("content", "")
        elif tag == "a" and values.get("href"):
            self._add(values)

    def handle_data(self, data: str) -> None:
        self.is_index |= self._heading and data.lower().lstrip().startswith("links for ")

    def _add(self, values: Mapping[str, str]) -> None:
        if len(self.files) == MOST_FILES:
            raise ValueError("too many files")
        address, _, fragment = values["href"].strip().partition("#")
        digest = re.search(r"(?:^|&)sha256=([0-9a-fA-F]{64})(?:&|$)", fragment)
        metadata = values.get("data-core-metadata", values.get("data-dist-info-metadata", "")).partition("sha256=")[2]
        size = values.get("data-size", "")
        self.files.append(
            {
                "filename": unquote(address.partition("?")[0].rpartition("/")[2]),
                "url": address,
                "hashes": {"sha256": digest[1].lower()} if digest else {},
                "requires-python": values.get("data-requires-python"),
                "core-metadata": {"sha256": metadata},
                "yanked": (values["data-yanked"] or True) if "data-yanked" in values else False,
                "upload-time": values.get("data-upload-time"),
                "size": int(size) if re.fullmatch(r"\d{1,15}", size, re.ASCII) else None,
                "provenance": values.get("data-provenance"),
            }
        )


def _file(project: str, base: str, entry: Any) -> File | None:
    """A file with a digest and an address that may be fetched; None for everything else."""
    if not isinstance(entry, dict):
        return None
    filename, url, sha256 = _text(entry.get("filename")), _text(entry.get("url")), _sha256(entry.get("hashes"))
    version = version_of(filename, project)
    if not (version and sha256 and url):
        return None
    try:
        secure = base.startswith("https:")
        if not (secure and url.startswith("https://")):  # joining is slow, and pages have thousands
            url = urljoin(base, url)
            if urlsplit(url).scheme not in (("https",) if secure else ("http", "https")):
                return None
    except ValueError:
        return None
    size, uploaded = entry.get("size"), _text(entry.get("upload-time"))
    yanked = entry.get("yanked")
    metadata = entry.get("core-metadata") or entry.get("dist-info-metadata")
    return File(
        filename,
        version,
        url.partition("#")[0],
        sha256,
        size if type(size) is int and 0 <= size < 1 << 50 else None,
        uploaded if moment(uploaded) is not None else "",
        _text(entry.get("requires-python")),
        _sha256(metadata),
        yanked[:LONGEST] if isinstance(yanked, str) else "" if yanked else None,
        provenance if (provenance := _text(entry.get("provenance"))).startswith("https://") else "",
    )


def _sha256(hashes: Any) -> str:
    digest = hashes.get("sha256") if isinstance(hashes, dict) else None
    return digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= LONGEST else ""
