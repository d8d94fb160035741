"""The command ``rxflow`` in the test's process: a process of its own takes a second to start."""

import importlib
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rxflow.cli import app

OF_MODELS = {"MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME", "OPENAI_API_KEY"}


def run_here(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of ``rxflow arguments…``, typed in ``folder``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        importlib.invalidate_caches()
        for name in OF_MODELS - environment.keys():
            patch.delenv(name, raising=False)
        modules = [path.stem for path in folder.glob("*.py")]  # those of another test's folder may have the same names
        for module in modules:
            sys.modules.pop(module, None)
        done = CliRunner().invoke(app, arguments, env=environment)
        for module in modules:
            sys.modules.pop(module, None)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr
