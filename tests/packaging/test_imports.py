"""``import rxflow`` is light, and brings the names that it promises, and no others."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rxflow
import rxflow.crew
import rxflow.testing
import rxflow.testing.leaks
import rxflow.types
import rxflow.types.streaming

ROOT = Path(__file__).parents[2]

# litellm costs seconds and 190 MiB: it comes in when the first LLM needs it.
HEAVY = {"aiohttp", "httpx", "litellm", "openai", "pytest", "regex"}


@pytest.mark.parametrize("module", ["rxflow", "rxflow.operators", "rxflow.testing", "rxflow.types"])
def test_import_is_light(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "importtime", "-c", f"import {module}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert module in imported
    assert HEAVY & {name.partition(".")[0] for name in imported} == set()


def test_the_operators_are_reached_from_the_package_alone(tmp_path: Path) -> None:
    code = "import sys, rxflow; assert 'rxflow.operators' not in sys.modules; print(rxflow.operators.words.__name__)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stdout == "words\n", done.stderr


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
        timeout=100,
    )
    assert done.stdout.split() == ["rxflow"]


LAZY = [rxflow, rxflow.crew, rxflow.testing, rxflow.types]


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
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=100)
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Agnet'"):
        _ = module.Agnet
    with pytest.raises(ImportError, match="cannot import name 'Agnet'"):
        exec(f"from {module.__name__} import Agnet", {})


def find_public() -> list[ModuleType]:
    """The packages and modules right below rxflow whose names carry no underscore, and that promise names."""
    names = (each.name for each in pkgutil.iter_modules(rxflow.__path__) if not each.name.startswith("_"))
    modules = (importlib.import_module(f"rxflow.{name}") for name in sorted(names))
    return [rxflow, *(module for module in modules if hasattr(module, "__all__"))]


PUBLIC = find_public()
PACKAGES = [module for module in PUBLIC if module.__spec__ and module.__spec__.submodule_search_locations]


def test_what_is_public_is_found() -> None:
    names = {module.__name__.removeprefix("rxflow.") for module in PUBLIC}
    assert {"rxflow", "crew", "flow", "llm", "operators", "project", "testing", "tools", "types"} <= names


@pytest.mark.parametrize("module", [*PUBLIC, rxflow.testing.leaks, rxflow.types.streaming], ids=lambda m: m.__name__)
def test_each_promised_name_is_there_once(module: ModuleType) -> None:
    if module.__name__ == "rxflow.cluster":
        pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
    promised: list[str] = module.__all__
    assert len(promised) == len(set(promised))
    assert [name for name in promised if not hasattr(module, name)] == []


@pytest.mark.parametrize("module", PACKAGES, ids=lambda module: module.__name__)
def test_a_package_holds_no_name_that_it_does_not_promise(module: ModuleType) -> None:
    defined = {
        name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert defined - set(module.__all__) - {"annotations", "TYPE_CHECKING"} == set()


def test_the_types_are_all_that_travels() -> None:
    modules = [importlib.import_module(f"rxflow.types.{name}") for name in ("events", "frames", "results")]
    defined = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {*defined, "Event", *rxflow.types.streaming.__all__} - set(rxflow.types.__all__) == set()


IMPORT = re.compile(r"^\s*(?:from|import) +(rxflow[\w.]*)(?: +import +([^#\n]+))?", re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.py"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_users_read_imports_public_modules_only(path: Path) -> None:
    imported = [
        f"{module}.{name}"
        for module, names in IMPORT.findall(path.read_text(encoding="utf-8"))
        for name in names.split(", ")
    ]
    assert [each for each in imported if "._" in each] == []
