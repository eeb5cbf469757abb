"""The documentation says what the code says."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relaywarden.config.describe import page

ROOT = Path(__file__).parent.parent


def test_the_page_of_settings_is_the_table_of_settings() -> None:
    assert (ROOT / "docs/settings.rst").read_text() == page(), "run `make docs`"


def test_every_dependency_says_why_it_is_here() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    wanted = parser["options"]["install_requires"] + parser["options.extras_require"]["dev"]
    text = (ROOT / "docs/dependencies.rst").read_text()
    for line in wanted.strip().splitlines():
        name = re.split(r"[\s>=\[]", line.strip())[0]
        assert re.search(rf"\*\*{re.escape(name)}\b", text), name


def test_every_debian_package_says_why_it_is_here() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = (ROOT / "docs/dependencies.rst").read_text()
    for line in re.findall(r"^PACKAGES_\w+ := (.*)$", makefile, re.MULTILINE):
        for name in line.split():
            assert f"``{name}``" in text, name


COMMANDS = [
    "run",
    "policyd",
    "milter",
    "monitor",
    "check",
    "tenants",
    "show",
    "ask",
    "suspend",
    "resume",
    "reset",
    "grant",
    "set",
    "explain",
    "pools",
    "keys",
    "dns",
    "classify",
    "report",
    "pmta-pipe",
    "suppress",
    "hold",
    "release",
    "replay",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relaywarden", command, "--help"], check=True, capture_output=True, text=True, timeout=60
    )
    assert len(done.stdout.splitlines()) > 4
    assert re.search(rf"``(relaywarden )?{command}\b", (ROOT / "README.rst").read_text())


def test_flow_names_files_that_exist() -> None:
    for name in re.findall(
        r"``((?:relaywarden|policyd|milter|monitor|contrib)/[\w./-]+)``", (ROOT / "docs/flow.rst").read_text()
    ):
        assert (ROOT / name).exists(), name
