"""Files fetched before anybody asks: of each release that a lock file names, what an installer would take there.

What is wanted comes as JSON, made where lock files can be read (the role's filter `pypi_public_wanted`):

    {"targets": {"3.12 manylinux_2_28_x86_64": ["cp312-cp312-manylinux_2_28_x86_64", …]},      tags of wheels, the best first
     "wanted": [{"name": "requests", "version": "2.32.3", "sha256": ["…"], "targets": ["3.12 …"]}]}

Without digests every file of the release is eligible, without targets it is for all of them. What is kept already is passed over,
so a run that was broken off goes on where it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from .errors import Refusal, Unknown
from .listing import File
from .mirror import Mirror
from .names import SDIST_SUFFIXES, is_normal, normalise, same_version

TOGETHER = 4
"""Files that are fetched at a time."""

Tell = Callable[[str], None]


class _Task(NamedTuple):
    name: str
    file: File
    filename: str
    """The file's, or its metadata's."""


def warm(mirror: Mirror, document: Mapping[str, Any], tell: Tell) -> list[str]:
    """Fetch what is wanted; gives back what is wrong, a line each. A ValueError for a document of another form."""
    try:
        targets = {str(name): list(map(str, tags)) for name, tags in document["targets"].items()}
        wanted = [(normalise(entry["name"]), entry) for entry in document["wanted"]]
        if unknown := {target for _, entry in wanted for target in entry.get("targets", ())} - targets.keys():
            raise ValueError(f"targets {sorted(unknown)} are wanted and not described")
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not what a warm-up wants: {type(error).__name__} {error}") from None
    problems: list[str] = []

    def choose(item: tuple[str, Mapping[str, Any]]) -> list[_Task]:
        try:
            return list(_tasks(mirror, *item, targets))
        except Refusal as error:
            problems.append(f"{item[0]} {item[1].get('version', '')}: {error}")
            return []

    with ThreadPoolExecutor(TOGETHER) as pool:
        tasks = list(dict.fromkeys(itertools.chain.from_iterable(pool.map(choose, wanted))))
        progress = _Progress(tasks, tell)

        def fetch(task: _Task) -> None:
            try:
                found = mirror.file(task.name, task.file.digest16, task.filename)
                if not isinstance(found, Path):
                    found.wait()
                progress.done(task, said=not isinstance(found, Path))
            except Refusal as error:
                problems.append(f"{task.filename}: {error}")

        list(pool.map(fetch, tasks))
    mirror.settle()
    for name in {name for name, _ in wanted if is_normal(name)}:
        mirror.cache.drop_pages(name)  # without an upstream they have what is kept, and that is more now
    lost = [task for task in tasks if not mirror.cache.path(task.name, task.file.digest16, task.filename).exists()]
    said = " ".join(problems)
    problems += [f"{task.filename} has no room: pypi_public_cache_size" for task in lost if task.filename not in said]
    return sorted(problems)


def _tasks(
    mirror: Mirror, name: str, entry: Mapping[str, Any], targets: Mapping[str, Sequence[str]]
) -> Iterator[_Task]:
    """The best file for each target, and the metadata beside it."""
    if not is_normal(name):
        raise Unknown("that is no project name")
    files = [file for file in mirror.files(name) if same_version(file.version, str(entry["version"]))]
    if digests := entry.get("sha256"):
        files = [file for file in files if file.sha256 in digests]
    if not files:
        raise Unknown("upstream lists no such release" if not digests else "upstream lists no file with these digests")
    for target in entry.get("targets", targets):
        file = best(files, targets[target])
        if not file:
            raise Unknown(f"nothing of it is for {target}")
        yield _Task(name, file, file.filename)
        if file.metadata:
            yield _Task(name, file, f"{file.filename}.metadata")


def best(files: Sequence[File], tags: Sequence[str]) -> File | None:
    """The wheel whose tag comes first, the higher build if there are two; an sdist if there is no wheel."""
    rank = {tag: place for place, tag in reversed(list(enumerate(tags)))}
    wheels = [
        (min(rank.get(tag, len(rank)) for tag in _tags(file.filename)), _build(file.filename), file)
        for file in files
        if file.filename.endswith(".whl")
    ]
    fitting = sorted(
        (place, [-number for number in build], file.filename, file)
        for place, build, file in wheels
        if place < len(rank)
    )
    if fitting:
        return fitting[0][3]
    sdists = {suffix: file for file in files for suffix in SDIST_SUFFIXES if file.filename.endswith(suffix)}
    return next((sdists[suffix] for suffix in SDIST_SUFFIXES if suffix in sdists), None)


def _tags(filename: str) -> list[str]:
    """All that a wheel's compressed tags stand for (PEP 425)."""
    interpreters, abis, platforms = (part.split(".") for part in filename[:-4].lower().split("-")[-3:])
    return ["-".join(tag) for tag in itertools.product(interpreters, abis, platforms)]


def _build(filename: str) -> list[int]:
    parts = filename[:-4].split("-")
    digits = "".join(itertools.takewhile(str.isdigit, parts[2])) if len(parts) == 6 else ""
    return [int(digits)] if digits else [-1]


class _Progress:
    """A line for each file that was not kept before: from a run without any, the role tells that it changed nothing."""

    def __init__(self, tasks: Sequence[_Task], tell: Tell) -> None:
        self._count, self._bytes, self._tell = len(tasks), sum(map(_size, tasks)), tell
        self._counter = itertools.count(1)
        self._fetched = 0

    def done(self, task: _Task, said: bool) -> None:
        number = next(self._counter)
        self._fetched += _size(task)
        if said:
            self._tell(f"{number} of {self._count}, {self._fetched >> 20} of {self._bytes >> 20} MB: {task.filename}")


def _size(task: _Task) -> int:
    return (task.file.size or 0) if task.filename == task.file.filename else 0
