"""``import rxflow`` is light, and brings the names that it promises, and no others."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rxflow
import rxflow.operators
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


@pytest.mark.parametrize("module", [rxflow, rxflow.operators, rxflow.testing], ids=lambda module: module.__name__)
def test_all_is_exact(module: ModuleType) -> None:
    promised: list[str] = module.__all__
    assert len(promised) == len(set(promised))
    assert [name for name in promised if not hasattr(module, name)] == []
    defined = {
        name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert defined - set(promised) == set()
