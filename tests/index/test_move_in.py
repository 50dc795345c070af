"""Files of a directory or of devpi's export come into the store: checked as uploads are, with their times, resumable, nothing overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from moving import incoming, offers
from moving.offers import Stopped
from static_index import sync
from static_index.errors import Forbidden
from static_index.store import Store

from .artifacts import sdist, tar, wheel
from .conftest import Add, upload
from .moving_runs import files_of, new_store, put, take, whole_tree
from .serve import FILES
from .state import check_whole, page


def uploaded(store: Store, project: str) -> dict[str, str]:
    return {file["filename"]: file["upload-time"] for file in page(store, project)["files"]}


def test_files_of_a_tree_come_in_with_their_times(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    put(source, wheel("acme-tool", "1.0"), 1_600_000_000)
    put(source / "deep/er", sdist("acme-tool", "1.1"), 1_500_000_000)
    put(source, wheel("Other.Thing", "2.0"), 1_700_000_000)
    for sidecar in ("acme_tool-1.0-py3-none-any.whl.asc", "acme_tool-1.0-py3-none-any.whl.metadata", "index.html"):
        put(source, (sidecar, b"not a release"))
    before = files_of(source)
    report = take(store, source)
    assert (report.taken, report.already, report.refused) == (3, 0, [])
    assert report.ignored == {"signatures": 1, "metadata": 1, "other files": 1}
    assert uploaded(store, "acme-tool") == {
        "acme_tool-1.1.tar.gz": "2017-07-14T02:40:00.000000Z",
        "acme_tool-1.0-py3-none-any.whl": "2020-09-13T12:26:40.000000Z",
    }
    assert next(iter(uploaded(store, "acme-tool"))) == "acme_tool-1.1.tar.gz"
    assert store.owns("other-thing")
    assert files_of(source) == before
    check_whole(store)
    sync.build_register(store, sync.look(store))
    store.index.write_root()
    assert sync.differences(store) == []


def test_a_second_run_changes_nothing(store: Store, tmp_path: Path) -> None:
    put(tmp_path / "source", wheel("acme-tool"))
    take(store, tmp_path / "source")
    before = whole_tree(store), files_of(store.packages)
    report = take(store, tmp_path / "source")
    assert (report.taken, report.already, report.refused) == (0, 1, [])
    assert (whole_tree(store), files_of(store.packages)) == before


def test_what_an_upload_would_not_be_is_refused_by_name_and_the_rest_comes_in(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    put(source, wheel("good"))
    put(source, ("cut-1.0-py3-none-any.whl", wheel("cut")[1][:-40]))
    put(source, wheel("liar", filename="other-1.0-py3-none-any.whl"))
    put(source, ("no version.tar.gz", b""))
    put(source, wheel("evil", members={"{stem}.dist-info/RECORD": "evil/__init__.py,sha256=AAAA,3\n"}))
    put(source, ("bomb-1.0.tar.gz", tar({"../../out": "x"})))
    put(source, wheel("large", content=os.urandom(1 << 20)))
    locked = put(source, wheel("locked"))
    os.symlink(locked, source / "link-1.0-py3-none-any.whl")
    os.symlink(tmp_path, source / "link")
    report = take(store, source)
    assert store.index.records.projects() == ["good", "locked"]
    refused = "\n".join(sorted(report.refused))
    for part in (
        "cut-1.0-py3-none-any.whl: broken archive",
        "other-1.0-py3-none-any.whl: ",
        "no version.tar.gz: illegal file name",
        "evil-1.0-py3-none-any.whl: RECORD does not list",
        "bomb-1.0.tar.gz: broken archive",
        "large-1.0-py3-none-any.whl: it is larger than 1,048,576 bytes (pypi_stack_max_upload_size)",
        "link-1.0-py3-none-any.whl: it is a link",
        "link: it is a link",
    ):
        assert part in refused, refused
    assert len(report.refused) == 8
    assert list(store.spool.iterdir()) == []


def test_what_is_here_is_never_overwritten(store: Store, add: Add, tmp_path: Path) -> None:
    ours = add(wheel("acme-tool", content=b"ours\n"))
    put(tmp_path / "source", wheel("acme-tool", content=b"theirs\n"))
    put(tmp_path / "source", wheel("acme-tool", "2.0"))
    report = take(store, tmp_path / "source")
    assert report.refused == [
        "acme_tool-1.0-py3-none-any.whl: it is here with other content, which stays: what is released never changes"
    ]
    assert hashlib.sha256((store.packages / ours.filename).read_bytes()).hexdigest() == ours.sha256
    assert report.taken == 1


def test_names_of_older_tools_come_in_as_they_are(store: Store, add: Add, tmp_path: Path) -> None:
    """Lock files and addresses have them; only a new upload has to be spelled as today."""
    put(tmp_path / "source", sdist("Acme.Tool", filename="Acme.Tool-1.0.tar.gz"))
    assert take(store, tmp_path / "source").refused == []
    assert list(uploaded(store, "acme-tool")) == ["Acme.Tool-1.0.tar.gz"]


def test_a_time_to_come_is_not_believed(store: Store, tmp_path: Path) -> None:
    put(tmp_path / "source", wheel("acme-tool"), time.time() + 1e6)
    take(store, tmp_path / "source")
    (moment,) = uploaded(store, "acme-tool").values()
    assert (offers.nanoseconds(moment) or 0) <= time.time_ns()


def test_only_what_is_wanted_comes_in(store: Store, tmp_path: Path) -> None:
    for name in ("acme-one", "acme-two", "other", "requests"):
        put(tmp_path / "source", wheel(name))
    report = take(store, tmp_path / "source", "Acme-*", "Other", "missing")
    assert store.index.records.projects() == ["acme-one", "acme-two", "other"]
    assert report.refused == ["missing: there is no such project"]
    assert take(store, tmp_path / "source", "nothing-*").refused == [
        "move_in_projects: no project of the source matches"
    ]


def test_a_public_name_has_to_be_said(store: Store, tmp_path: Path) -> None:
    """As for an upload: or a directory that somebody filled from PyPI would take `requests` over for everybody."""
    asked = []

    def begin(project: str, account: str, literal: Iterable[str]) -> None:
        asked.append(project)
        if project not in literal and project == "requests":
            raise Forbidden(f"{project} is a public project: put it into the projects of {account}")

    for version in ("1.0", "2.0"):
        put(tmp_path / "source", wheel("requests", version))
    put(tmp_path / "source", wheel("acme-tool"))
    report = take(store, tmp_path / "source", begin=begin)
    assert store.index.records.projects() == ["acme-tool"]
    assert len(report.refused) == 2 and "this run (move_in_projects)" in report.refused[0]
    assert sorted(asked) == ["acme-tool", "requests"]  # once for both versions
    assert take(store, tmp_path / "source", "requests", begin=begin).taken == 2


def test_a_dry_run_says_what_would_be_taken(store: Store, add: Add, tmp_path: Path) -> None:
    add(wheel("acme-tool"))
    put(tmp_path / "source", wheel("acme-tool"))
    put(tmp_path / "source", wheel("acme-tool", "2.0"))
    put(tmp_path / "source", ("cut-1.0-py3-none-any.whl", wheel("cut")[1][:-40]))
    before = files_of(tmp_path)
    report = take(store, tmp_path / "source", dry=True)
    assert (report.taken, report.already) == (1, 1)
    assert len(report.refused) == 1 and "broken archive" in report.refused[0]
    assert files_of(tmp_path) == before


def test_no_room_is_said_before_anything_is_taken(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "source", wheel("acme-tool"))
    monkeypatch.setattr(incoming, "ROOM", 1 << 60)
    with pytest.raises(Stopped, match="there is no room: .* Nothing was taken"):
        take(store, tmp_path / "source")
    assert store.index.records.projects() == []


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    """At any moment: the program as it runs in its container, killed as soon as half of it is there, and run again."""
    source, store = tmp_path / "source", new_store(tmp_path)
    for number in range(60):
        put(source, wheel(f"acme-{number % 7}", f"1.{number}", content=os.urandom(50_000)), 1e9 + number)
    spec = json.dumps({"do": "in", "source": str(source), "largest": 1 << 20})
    command = [sys.executable, "-m", "moving"]
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
        "PYTHONPATH": f"{FILES / 'pypiserver'}:{FILES / 'login'}",
        "PYPI_PACKAGES": str(store.packages),
        "PYPI_INDEX": str(store.index.directory),
    }
    first = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    assert first.stdin
    first.stdin.write(spec)
    first.stdin.close()
    while len(list(store.packages.glob("*.whl"))) < 20:
        assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    there = len(list(store.packages.glob("*.whl")))
    assert 20 <= there < 60
    second = subprocess.run(command, env=environment, input=spec, capture_output=True, text=True, check=True)
    said = json.loads(second.stdout)
    assert said["taken"] + said["already"] == 60 and said["already"] in (
        there,
        there - 4,
        there - 3,
        there - 2,
        there - 1,
    )
    assert "60 of 60 files" in second.stderr
    check_whole(store)
    direct = new_store(tmp_path / "direct")
    take(direct, source)
    assert whole_tree(store) == whole_tree(direct)


def export(base: Path, *stages: str) -> dict[str, Any]:
    """What devpi-export of devpi-server 6.20.3 writes (dump version 2), as far as files go; seen side by side with a real one."""
    document: dict[str, Any] = {"dumpversion": "2", "devpi_server": "6.20.3", "pythonversion": [3, 11, 7, "final", 0]}
    document["users"] = {
        "alice": {"username": "alice", "pwhash": "$argon2id$v=19$…", "created": "2026-11-26T20:12:58Z"}
    }
    document["indexes"] = {"root/pypi": {"indexconfig": {"type": "mirror", "volatile": False}}}
    for number, stage in enumerate(stages, start=1):
        entries = []
        for artifact in (
            wheel("acme-tool", f"{number}.0"),
            sdist("acme-tool", f"{number}.0"),
            wheel("Other.Thing", "2.0"),
        ):
            project, version = ("other-thing" if "thing" in artifact[0] else "acme-tool"), artifact[0].split("-")[1][:3]
            path = put(base / stage / project / version, artifact, time.time())  # the export's own time
            sha256 = hashlib.sha256(artifact[1]).hexdigest()
            entries.append(
                {
                    "version": version,
                    "entrymapping": {
                        "last_modified": "Sun, 13 Sep 2020 12:26:40 GMT",
                        "hash_spec": f"sha256={sha256}",
                        "hashes": {"sha256": sha256},
                        "project": project,
                        "version": version,
                    },
                    "log": [{"what": "upload", "who": "alice", "when": [2020, 9, 13, 12, 26, 40], "dst": stage}],
                    "type": "releasefile",
                    "projectname": project,
                    "relpath": str(path.relative_to(base)),
                }
            )
        entries.append({**entries[0], "type": "toxresult", "relpath": f"{entries[0]['relpath']}.toxresult-1.json"})
        document["indexes"][stage] = {"indexconfig": {"type": "stage"}, "projects": {}, "files": entries}
    (base / "dataindex.json").write_text(json.dumps(document))
    return document


def test_devpis_export_comes_in_with_its_times(store: Store, tmp_path: Path) -> None:
    export(tmp_path / "export", "alice/prod")
    report = take(store, tmp_path / "export")
    assert (report.taken, report.refused, report.ignored) == (3, [], {"toxresult": 1})
    assert set(uploaded(store, "acme-tool").values()) == {"2020-09-13T12:26:40.000000Z"}


def test_of_several_indexes_of_devpi_one_has_to_be_said(store: Store, tmp_path: Path) -> None:
    export(tmp_path / "export", "alice/prod", "alice/dev")
    with pytest.raises(Stopped, match="alice/dev, alice/prod: say in move_in_stages"):
        take(store, tmp_path / "export")
    with pytest.raises(Stopped, match="move_in_stages"):
        take(store, tmp_path / "export", stages=["alice/other"])
    assert take(store, tmp_path / "export", stages=["alice/dev"]).taken == 3
    assert list(uploaded(store, "acme-tool")) == ["acme_tool-2.0-py3-none-any.whl", "acme_tool-2.0.tar.gz"]
    report = take(store, tmp_path / "export", stages=["alice/prod", "alice/dev"])
    assert (report.taken, report.already, report.refused) == (2, 4, [])


def test_a_file_of_the_export_that_changed_is_refused(store: Store, tmp_path: Path) -> None:
    export(tmp_path / "export", "alice/prod")
    put(tmp_path / "export/alice/prod/acme-tool/1.0", wheel("acme-tool", content=b"changed\n"))
    report = take(store, tmp_path / "export")
    assert len(report.refused) == 1 and "by the source's list" in report.refused[0]
    assert report.taken == 2


@pytest.mark.parametrize("relpath", ["../../etc/x-1.0.tar.gz", "/etc/x-1.0.tar.gz", "alice//x-1.0.tar.gz"])
def test_an_export_does_not_lead_out_of_itself(store: Store, tmp_path: Path, relpath: str) -> None:
    document = export(tmp_path / "export", "alice/prod")
    document["indexes"]["alice/prod"]["files"][0]["relpath"] = relpath
    (tmp_path / "export/dataindex.json").write_text(json.dumps(document))
    with pytest.raises(Stopped, match="outside of itself"):
        take(store, tmp_path / "export")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"indexes": []}', '{"indexes": {"a/b": {"files": [{}]}}}'])
def test_an_export_that_is_none_says_so(store: Store, tmp_path: Path, content: str) -> None:
    (tmp_path / "dataindex.json").write_text(content)
    with pytest.raises(Stopped, match="not what devpi-export writes"):
        take(store, tmp_path)


def test_uploads_go_on_meanwhile(store: Store, tmp_path: Path) -> None:
    """Into the same project, by another store object, as the server's workers have."""
    for number in range(20):
        put(tmp_path / "source", wheel("acme-tool", f"1.{number}"), 1e9 + number)
    other = new_store(tmp_path)

    done: list[str] = []
    original = Store.add

    def add(self: Store, *arguments: Any) -> Any:
        result = original(self, *arguments)
        if self is store:
            done.append(upload(other, wheel("acme-tool", f"9.{len(done)}")).filename)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "add", add)
        assert take(store, tmp_path / "source").taken == 20
    assert len(page(store, "acme-tool")["files"]) == 40
    check_whole(store)
