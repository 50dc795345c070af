"""Where the role pypi_client puts files, below a directory instead of /."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

VARIABLES = Path(__file__).parents[1] / "roles/pypi_client/vars/main.yml"


def places(system: str, base: Path | str = "") -> dict[str, Any]:
    """As the filter pypi_client_targets takes them, with the `record` of earlier runs."""
    found: dict[str, Any] = yaml.safe_load(VARIABLES.read_text())["__pypi_client_systems"][system]
    machine = {kind: (f"{base}{directory}", path) for kind, (directory, path) in found["machine"].items()}
    return {**found, "machine": machine, "record": found["record"] | {"base": f"{base}{found['record']['base']}"}}
