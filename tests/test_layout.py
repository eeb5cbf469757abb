"""The tree keeps the shape that packaging, pymilter and the tools rely on."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "relaywarden", ROOT / "policyd", ROOT / "milter", ROOT / "monitor"]


def packages() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    folders = dict(line.split(" = ") for line in parser["options"]["package_dir"].split("\n") if " = " in line)
    return {
        name: name.replace(name.split(".")[0], folders[name.split(".")[0]]).replace(".", "/")
        for name in parser["options"]["packages"].split()
    }


def test_every_package_of_the_tree_is_listed() -> None:
    found = {str(init.parent.relative_to(ROOT)) for source in SOURCES for init in source.rglob("__init__.py")}
    assert found == set(packages().values())


def test_no_package_shadows_pymilter_or_pytest() -> None:
    for folder in ("policyd", "milter", "monitor", "tests", "bench", "contrib"):
        assert not (ROOT / folder / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
    spec = importlib.util.find_spec("milter")
    assert spec is not None
    assert spec.origin is not None
    assert not spec.origin.startswith(str(ROOT / "milter"))


def test_the_library_imports_no_program_and_no_program_another() -> None:
    programs = {"relaywarden_policyd", "relaywarden_milter", "relaywarden_monitor"}
    for source in SOURCES:
        own = {path.name for path in source.iterdir()} & programs
        for module in source.rglob("*.py"):
            imported = {
                name.split(".")[0]
                for node in ast.walk(ast.parse(module.read_text()))
                for name in (
                    [node.module or ""] if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names] if isinstance(node, ast.Import)
                    else []
                )
            }  # fmt: skip
            assert not imported & (programs - own), module


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_modules_stay_readable(source: Path) -> None:
    for module in source.rglob("*.py"):
        text = module.read_text()
        assert text.count("\n") <= 500, module
        assert ast.get_docstring(ast.parse(text)), f"{module} opens without a docstring"


def test_a_built_wheel_works_outside_the_tree(tmp_path: Path) -> None:
    """Packages, typing markers, SQL and Lua files are all in the wheel."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    tree = tmp_path / "tree"  # setuptools builds inside the tree it is given
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".venv", ".git", "build", ".*_cache", "__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(tree)],
        check=True,
        env=environment,
        capture_output=True,
        timeout=200,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    code = (
        "import relaywarden, relaywarden_policyd, relaywarden_milter, relaywarden_monitor;"
        "from relaywarden.ledger.scripts import scripts; assert scripts()['charge'].source;"
        "from importlib.resources import files; assert files('relaywarden.ledger').joinpath('schema.sql').is_file();"
        "print(relaywarden.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    for package in packages().values():
        if "/" not in package or (package.count("/") == 1 and "relaywarden_" in package):
            assert (site / Path(package).name / "py.typed").exists()
