"""What a reader sees of an index, and whether it is whole."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urlsplit

from static_index.store import Store


def eventually(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for what the watcher does, which starts over after 10 s when something was in its way."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class _Links(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append(dict(attrs))


def links(store: Store, project: str) -> dict[str, dict[str, str | None]]:
    """The HTML page's links by file name."""
    html = content(store, project, "index.html").decode()
    return {unquote(urlsplit(link["href"] or "").path.rpartition("/")[2]): link for link in _Links(html).links}


def page(store: Store, project: str) -> dict[str, Any]:
    """The JSON page."""
    document: dict[str, Any] = json.loads(content(store, project, "index.json"))
    return document


def content(store: Store, project: str, name: str) -> bytes:
    """A page, plain or unpacked, as nginx would have it."""
    path = store.index.directory / "simple" / project / name
    return path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{name}.gz").read_bytes())


def check_whole(store: Store, *, settled: bool = True) -> None:
    """Every page names only whole files and the metadata that is there. `settled`: and all pages agree."""
    for folder in (path for path in (store.index.directory / "simple").iterdir() if path.is_dir()):
        if not settled and not (folder / "index.json.gz").exists():
            continue
        files = page(store, folder.name)["files"]
        for file in files:
            packed = (store.packages / file["filename"]).read_bytes()
            assert len(packed) == file["size"]
            assert hashlib.sha256(packed).hexdigest() == file["hashes"]["sha256"]
            if "core-metadata" in file:
                metadata = (store.index.directory / "metadata" / f"{file['filename']}.metadata").read_bytes()
                assert hashlib.sha256(metadata).hexdigest() == file["core-metadata"]["sha256"]
        if settled:
            assert links(store, folder.name).keys() == {file["filename"] for file in files}
            for name in ("index.html", "index.json"):
                assert gzip.decompress((folder / f"{name}.gz").read_bytes()) == content(store, folder.name, name)


def tree(store: Store) -> dict[str, bytes]:
    """Every visible file of the index, but for the documents that follow an upload a moment later."""
    return {
        str(path.relative_to(store.index.directory)): path.read_bytes()
        for path in store.index.directory.rglob("*")
        if path.is_file() and not path.relative_to(store.index.directory).parts[0].startswith((".", "legacy"))
    }
