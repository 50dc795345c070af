"""What lock files want, by the files themselves."""

from __future__ import annotations

from typing import Any

import pytest
from pypi_public_warm import WarmError, pypi_public_wanted

A, B, C = "a" * 64, "b" * 64, "c" * 64
LINUX, WINDOWS = "manylinux_2_28_x86_64", "win_amd64"

UV = f"""
version = 1
[[package]]
name = "mine"
version = "0.1"
source = {{ editable = "." }}
[[package]]
name = "Other.Thing"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
sdist = {{ url = "https://index.example/other_thing-1.0.tar.gz", hash = "sha256:{A}", size = 1 }}
wheels = [{{ url = "https://index.example/other_thing-1.0-py3-none-any.whl", hash = "sha256:{B}" }}]
[[package]]
name = "from-git"
version = "1.0"
source = {{ git = "https://index.example/x" }}
"""
POETRY = f"""
[[package]]
name = "other-thing"
version = "1.0"
files = [{{file = "other_thing-1.0.tar.gz", hash = "sha256:{A}"}}, {{file = "x.whl", hash = "sha256:{B}"}}]
[[package]]
name = "from-git"
version = "1.0"
files = []
[package.source]
type = "git"
[metadata]
lock-version = "2.0"
"""
PYLOCK = f"""
lock-version = "1.0"
[[packages]]
name = "other-thing"
version = "1.0"
wheels = [{{name = "other_thing-1.0-py3-none-any.whl", hashes = {{sha256 = "{B}"}}}}]
sdist = {{name = "other_thing-1.0.tar.gz", hashes = {{sha256 = "{A}"}}}}
[[packages]]
name = "colorama"
version = "0.4"
marker = "sys_platform == 'win32'"
wheels = [{{name = "colorama-0.4-py3-none-any.whl", hashes = {{sha256 = "{C}"}}}}]
[[packages]]
name = "here"
directory = {{path = "."}}
"""
REQUIREMENTS = f"""
--index-url https://index.example/simple
# a comment
other_thing[extra]==1.0 \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}  # via x
colorama==0.4 ; sys_platform == "win32"
acme-lib==1.0
here @ file:///here
old==1.0 ; python_version < "3.10"
"""


def wanted(path: str, text: str, platforms: tuple[str, ...] = (LINUX,)) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pypi_public_wanted({path: text}, ["3.12"], platforms, ["acme-lib"])["wanted"]
    return found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a/uv.lock", UV),
        ("poetry.lock", POETRY),
        ("pylock.toml", PYLOCK),
        ("pylock.dev.toml", PYLOCK),
        ("r.txt", REQUIREMENTS),
    ],
)
def test_each_kind_of_lock_file(path: str, text: str) -> None:
    assert wanted(path, text) == [
        {"name": "other-thing", "version": "1.0", "sha256": [A, B], "targets": [f"3.12 {LINUX}"]}
    ]


def test_markers_and_targets() -> None:
    colorama, other = wanted("pylock.toml", PYLOCK, (LINUX, WINDOWS))
    assert (colorama["name"], colorama["targets"]) == ("colorama", [f"3.12 {WINDOWS}"])
    assert other["targets"] == [f"3.12 {LINUX}", f"3.12 {WINDOWS}"]


def test_files_add_up() -> None:
    both = pypi_public_wanted({"r.txt": "x==1.0\ny==2", "s.txt": f"X==1.0 --hash=sha256:{A}"}, ["3.12"], [LINUX])[
        "wanted"
    ]
    assert [(entry["name"], entry["sha256"]) for entry in both] == [("x", []), ("y", [])]


def test_tags_come_in_the_order_of_the_installer() -> None:
    targets = pypi_public_wanted(
        {"r.txt": "x==1"}, ["3.12"], [LINUX, "musllinux_1_2_aarch64", WINDOWS, "macosx_14_0_arm64"]
    )["targets"]
    linux = targets[f"3.12 {LINUX}"]
    order = [
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux2014_x86_64",
        "cp312-abi3-manylinux_2_28_x86_64",
    ]
    order += ["cp39-abi3-manylinux_2_17_x86_64", "py3-none-manylinux_2_28_x86_64", "py3-none-any"]
    assert [tag for tag in linux if tag in order] == order
    assert not [tag for tag in linux if "musl" in tag or "2_29" in tag or "cp313" in tag]
    assert "cp312-cp312-win_amd64" in targets[f"3.12 {WINDOWS}"]
    assert "cp312-abi3-macosx_11_0_universal2" in targets["3.12 macosx_14_0_arm64"]
    assert "cp312-cp312-musllinux_1_1_aarch64" in targets["3.12 musllinux_1_2_aarch64"]


@pytest.mark.parametrize(
    ("path", "text", "word"),
    [
        ("r.txt", "requests>=2", "requests is not pinned"),
        ("r.txt", "requests==2.*", "requests is not pinned"),
        ("r.txt", "-r other.txt", "warm_files"),
        ("r.txt", "???", "no requirement"),
        ("uv.lock", "[", "not a lock file"),
        ("uv.lock", "[[package]]\nname = 'x'", "not a lock file"),
        ("Pipfile.lock", "{}", "neither uv.lock"),
    ],
)
def test_what_cannot_be_read(path: str, text: str, word: str) -> None:
    with pytest.raises(WarmError, match=word):
        wanted(path, text)


@pytest.mark.parametrize(
    ("python", "platform"), [("3", LINUX), ("3.12.1", LINUX), ("3.12", "linux"), ("3.12", "amd64")]
)
def test_a_target_that_is_none(python: str, platform: str) -> None:
    with pytest.raises(WarmError, match="warm_p"):
        pypi_public_wanted({"r.txt": "x==1"}, [python], [platform])
