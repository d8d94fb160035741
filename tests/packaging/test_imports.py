"""``import rxflow`` is light, and brings the names that it promises, and no others."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rxflow
import rxflow.crew
import rxflow.flow
import rxflow.llm
import rxflow.operators
import rxflow.project
import rxflow.testing

# litellm costs seconds and 190 MiB: it comes in when the first LLM needs it.
HEAVY = {"aiohttp", "httpx", "litellm", "openai", "pytest", "regex"}


@pytest.mark.parametrize("module", ["rxflow", "rxflow.operators", "rxflow.testing"])
def test_import_is_light(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "importtime", "-c", f"import {module}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=25,
    )
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert module in imported
    assert HEAVY & {name.partition(".")[0] for name in imported} == set()


def test_the_pytest_plugin_costs_those_who_use_it_only(tmp_path: Path) -> None:
    code = (
        "import pytest, sys; before = set(sys.modules)\n"
        "import rxflow.testing.plugin\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=25,
    )
    assert done.stdout.split() == ["rxflow"]


LAZY = [rxflow, rxflow.crew, rxflow.testing]


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_what_comes_when_it_is_asked_for_is_what_type_checkers_are_told(module: ModuleType) -> None:
    assert module.__file__ is not None
    told = {
        alias.name: statement.module
        for statement in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(statement, ast.ImportFrom) and statement.module != "rxflow"
        for alias in statement.names
    }
    assert told.keys() == set(module.__all__)
    for name, home in told.items():
        assert getattr(module, name) is getattr(importlib.import_module(str(home)), name)


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_a_package_whose_names_come_late_looks_like_any_other(module: ModuleType) -> None:
    code = (
        f"import {module.__name__} as package\n"
        "assert set(package.__all__) <= set(dir(package))\n"
        f"from {module.__name__} import *\n"
        "assert set(package.__all__) <= set(globals())\n"
        "assert all(vars(package)[name] is globals()[name] for name in package.__all__)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=25)
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Agnet'"):
        _ = module.Agnet
    with pytest.raises(ImportError, match="cannot import name 'Agnet'"):
        exec(f"from {module.__name__} import Agnet", {})


PUBLIC = [*LAZY, rxflow.flow, rxflow.llm, rxflow.operators, rxflow.project]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_is_exact(module: ModuleType) -> None:
    promised: list[str] = module.__all__
    assert len(promised) == len(set(promised))
    assert [name for name in promised if not hasattr(module, name)] == []
    defined = {
        name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert defined - set(promised) == set()
