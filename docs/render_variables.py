"""Render every role's public variables into README.md, from the argument specs: `make docs`.

`--check` changes nothing and fails when README.md is not what would be rendered.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ROLES = (
    "docker_host",
    "pypi_users",
    "pypi_issuers",
    "pypi_tls",
    "pypi_stack",
    "pypi_public",
    "pypi_verify",
    "pypi_backup",
    "pypi_adopt",
    "host_turn",
    "host_firewall",
    "pypi_client",
)
BLOCK = re.compile(r"(<!-- variables: make docs -->\n).*?(<!-- end -->\n)", re.DOTALL)


def markdown(text: str | list[str]) -> str:
    """Ansible's C(…) markup as Markdown, on one line of a table."""
    line = " ".join(text) if isinstance(text, list) else text
    return re.sub(r"C\(([^)]*)\)", r"`\1`", " ".join(line.split())).replace("|", "\\|")


def value(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "**required**"
    default = option.get("default")
    text = {True: "true", False: "false", "": '""'}.get(default) if isinstance(default, bool | str) else None
    shown = text if text is not None else str(default if default is not None else "")
    return "computed" if "__" in shown else f"`{shown}`" if shown else ""


def rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name, option in options.items():
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        lines.append(f"| `{prefix}{name}` | {value(option)} | {markdown(option['description'])}{choices} |")
        lines += rows(option.get("options", {}), prefix=f"{name}[].")
    return lines


def tables() -> str:
    parts = []
    for role in ROLES:
        spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text("utf-8"))
        main = spec["argument_specs"]["main"]
        head = [f"### {role}: {main['short_description']}", "", "| variable | default | what it is |", "|---|---|---|"]
        parts.append("\n".join([*head, *rows(main["options"])]))
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    readme = ROOT / "README.md"
    present = readme.read_text("utf-8")
    rendered = BLOCK.sub(lambda match: match[1] + tables() + match[2], present)
    if "--check" in arguments:
        if rendered != present:
            print("README.md does not show the roles' variables as they are: run `make docs`.", file=sys.stderr)
        return int(rendered != present)
    readme.write_text(rendered, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
