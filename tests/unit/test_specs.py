"""Every role's argument_specs.yml says what its defaults/main.yml does: same names, same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted(path.parent for path in (Path(__file__).parents[2] / "roles").glob("*/tasks"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_and_defaults_agree(role: Path) -> None:
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    required = {name for name, option in options.items() if option.get("required")}
    documented = {name: option.get("default") for name, option in options.items() if name not in required}
    assert documented == (load(role / "defaults/main.yml") or {})
    assert all(name.startswith(f"{role.name}_") for name in options)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_is_typed_and_described_down_to_the_leaves(role: Path) -> None:
    def check(options: dict[str, Any], where: str) -> None:
        for name, option in options.items():
            assert {"type", "description"} <= option.keys(), f"{where}{name}"
            assert option["type"] != "list" or "elements" in option, f"{where}{name}"
            check(option.get("options", {}), f"{where}{name}.")

    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    check(specs["main"]["options"], f"{role.name}: ")
    assert specs["validate"]["options"] == specs["main"]["options"]
