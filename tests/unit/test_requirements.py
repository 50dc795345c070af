"""requirements.yml names the collections that are used, in the versions that the locked package `ansible` carries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ansible_collections  # type: ignore[import-untyped]
import yaml

ROOT = Path(__file__).parents[2]
SHIPPED = Path(next(iter(ansible_collections.__path__)))
USE = re.compile(r"^\s+(?:- )?((?!ansible\.builtin)[a-z_]+\.[a-z_]+)\.[a-z_0-9]+:", re.MULTILINE)


def used() -> set[str]:
    files = [file for folder in ("roles", "playbooks", "tests") for file in (ROOT / folder).rglob("*.yml")]
    return {
        name
        for file in files
        for name in USE.findall(file.read_text("utf-8"))
        if (SHIPPED / name.replace(".", "/")).is_dir()
    }


def test_collections() -> None:
    listed = {
        c["name"]: c["version"] for c in yaml.safe_load((ROOT / "requirements.yml").read_text("utf-8"))["collections"]
    }
    manifests = {
        name: json.loads((SHIPPED / name.replace(".", "/") / "MANIFEST.json").read_text("utf-8")) for name in used()
    }
    assert listed == {name: manifest["collection_info"]["version"] for name, manifest in manifests.items()}
