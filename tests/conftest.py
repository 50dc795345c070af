from __future__ import annotations

import os
import sys

import pytest

# The modules under test are files that roles copy to servers: no test may leave compiled ones beside them.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Adds what was red to .cache/red: `make molecule` ends with it, below pages of what two scenarios at once have to say."""
    red = [report for kind in ("failed", "error") for report in terminalreporter.getreports(kind)]
    if red:
        directory = config.rootpath / ".cache"
        directory.mkdir(exist_ok=True)
        ends = ["\n".join([f"red: {report.nodeid}", *report.longreprtext.splitlines()[-12:], ""]) for report in red]
        with (directory / "red").open("a") as file:
            file.write("\n".join(ends))
