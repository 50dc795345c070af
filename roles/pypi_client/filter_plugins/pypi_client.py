"""The filters of the role pypi_client: pypi_client_edit has them, cut by what they are about."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # Ansible loads this file by its path, and nothing beside it

from pypi_client_edit import bundle, plan, variables


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "pypi_client_bundle": bundle.pypi_client_bundle,
            "pypi_client_passwd": plan.pypi_client_passwd,
            "pypi_client_place": plan.pypi_client_place,
            "pypi_client_plan": plan.pypi_client_plan,
            "pypi_client_problems": variables.pypi_client_problems,
            "pypi_client_targets": plan.pypi_client_targets,
        }
