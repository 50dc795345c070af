"""A project's public files as HTML and JSON, in the forms of the private pages (static_index/pages.py), plain and compressed.

Made from what is known, never by editing what the upstream sent. Addresses are relative.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from html import escape
from json.encoder import encode_basestring_ascii as quoted

from .listing import File, Listing
from .names import version_key

FORMS = ("index.html", "index.json")
PLAIN = 1_024
"""Files of a page that is there in plain form too; nginx unpacks larger ones for the few clients that want it."""
LEVEL = 3
"""Of gzip: half the time of 5 for 6 % more bytes, and somebody waits for it."""

_API = "1.4"


def filenames(form: str) -> tuple[str, str]:
    """The files of a form: plain and compressed."""
    return form, f"{form}.gz"


def render(form: str, listing: Listing, files: Sequence[File]) -> dict[str, bytes]:
    """The page by file name, with these files of the listing."""
    page = (_html if form == "index.html" else _json)(listing, files).encode()
    plain, packed = filenames(form)
    pages = {packed: gzip.compress(page, LEVEL, mtime=0)}
    return pages | {plain: page} if len(files) <= PLAIN else pages


def _html(listing: Listing, files: Sequence[File]) -> str:
    status = ""
    if listing.status:
        status = f'<meta name="pypi:project-status" content="{escape(listing.status)}">'
    if listing.status_reason:
        status += f'<meta name="pypi:project-status-reason" content="{escape(listing.status_reason)}">'
    title = f"Links for {listing.project}"
    head = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="pypi:repository-version" content="{_API}">{status}<title>{title}</title></head>
<body>
<h1>{title}</h1>
"""
    return "".join([head, *(_link(listing.project, file) for file in files), "</body>\n</html>\n"])


def _link(project: str, file: File) -> str:
    attributes = ""
    if file.requires_python:
        attributes += f' data-requires-python="{escape(file.requires_python)}"'
    if file.metadata:  # PEP 714: the second name is for clients that only know the first one chosen
        for key in ("core-metadata", "dist-info-metadata"):
            attributes += f' data-{key}="sha256={file.metadata}"'
    if file.yanked is not None:
        attributes += f' data-yanked="{escape(file.yanked)}"'
    if file.uploaded:
        attributes += f' data-upload-time="{file.uploaded}"'
    if file.size is not None:
        attributes += f' data-size="{file.size}"'
    if file.provenance:
        attributes += f' data-provenance="{escape(file.provenance)}"'
    return f'<a href="{_url(project, file)}#sha256={file.sha256}"{attributes}>{escape(file.filename)}</a><br>\n'


def _json(listing: Listing, files: Sequence[File]) -> str:
    """Written out like the HTML: json.dumps takes twice as long, and most of what somebody waits for is this."""
    status = ""
    if listing.status:
        reason = f',"reason":{quoted(listing.status_reason)}' if listing.status_reason else ""
        status = f',"project-status":{{"status":{quoted(listing.status)}{reason}}}'
    entries = ",".join([_entry(listing.project, file) for file in files])
    versions = ",".join(map(quoted, _versions(listing, files)))
    head = f'{{"meta":{{"api-version":"{_API}"}},"name":{quoted(listing.project)}{status}'
    return f'{head},"files":[{entries}],"versions":[{versions}]}}'


def _entry(project: str, file: File) -> str:
    entry = f'{{"filename":{quoted(file.filename)},"url":{quoted(_url(project, file))}'
    entry += f',"hashes":{{"sha256":{quoted(file.sha256)}}}'
    if file.size is not None:
        entry += f',"size":{file.size}'
    if file.uploaded:
        entry += f',"upload-time":{quoted(file.uploaded)}'
    if file.requires_python:
        entry += f',"requires-python":{quoted(file.requires_python)}'
    # Under this name only: pip 22.3 to 23.1 take the older one for something else in JSON (PEP 714).
    if file.metadata:
        entry += f',"core-metadata":{{"sha256":{quoted(file.metadata)}}}'
    if file.yanked is not None:
        entry += f',"yanked":{quoted(file.yanked) if file.yanked else "true"}'
    if file.provenance:
        entry += f',"provenance":{quoted(file.provenance)}'
    return f"{entry}}}"


def _versions(listing: Listing, files: Sequence[File]) -> list[str]:
    """Those of the files, each once, in the upstream's order and spelling."""
    spelt = {version_key(version): version for version in listing.versions}
    offered = dict.fromkeys(spelt.get(version_key(file.version), file.version) for file in files)
    known = [version for version in listing.versions if version in offered]
    return list(dict.fromkeys([*known, *offered]))


def _url(project: str, file: File) -> str:
    # Names of files have nothing else that has to be quoted (names.py), and quote() takes its time.
    filename = file.filename.replace("+", "%2B").replace("!", "%21")
    return f"../../public/{project}/{file.digest16}/{filename}"
