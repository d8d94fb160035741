"""What is built is what is in the repository: every module of rxflow, and nothing else."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The first test that asks for the wheel waits for two builds: the sdist, and the wheel from it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def sources() -> dict[str, Path]:
    """The modules and pages that a user must get: by the name in the wheel, the file in the repository."""
    found: dict[str, Path] = {}
    for folder, package in ((ROOT / "rxflow", "rxflow"), (ROOT / "operators", "rxflow/operators")):
        for directory, _, files in os.walk(folder):  # does not follow the link
            for file in files:
                path = Path(directory, file)
                if path.suffix in {".py", ".html", ".css", ".js"} or file == "py.typed":
                    found[f"{package}/{path.relative_to(folder).as_posix()}"] = path
    return found


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, built from a copy: nothing left of older builds can get in."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("rxflow", "operators", "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("dist")
    built = run("-m", "build", "--no-isolation", "--outdir", out, copy, cwd=out)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    done = run(*("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, wheel), cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def python(code: str, installed: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs code where only the installed wheel can answer: -S leaves out the editable install."""
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    path = os.pathsep.join([str(installed), *sorted(dependencies)])
    return run("-S", "-W", "error", "-c", code, cwd=cwd, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")


def test_operators_are_reached_by_a_relative_link() -> None:
    assert (ROOT / "rxflow" / "operators").readlink() == Path("../operators")


def test_packages_are_the_folders() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    folders = {name.rpartition("/")[0].replace("/", ".") for name in sources() if name.endswith(".py")}
    assert sorted(setuptools["packages"]) == sorted(folders)
    assert setuptools["package-dir"] == {"": "."}


def test_every_package_has_an_init() -> None:
    names = sources().keys()
    packages = {name.rpartition("/")[0] for name in names if name.endswith(".py")}
    assert [package for package in sorted(packages) if f"{package}/__init__.py" not in names] == []


def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert held == {name: path.read_bytes() for name, path in sources().items()}
    assert "rxflow/py.typed" in held
    assert "rxflow/operators/__init__.py" in held
    assert len(licences) == 1


def test_installed_wheel_imports(installed: Path, tmp_path: Path) -> None:
    code = "import rxflow, rxflow.operators; print(rxflow.__file__); print(rxflow.operators.__file__)"
    done = python(code, installed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [Path(line) for line in done.stdout.splitlines()] == [
        installed / "rxflow" / "__init__.py",
        installed / "rxflow" / "operators" / "__init__.py",
    ]


def test_operators_is_no_top_level_package(installed: Path, tmp_path: Path) -> None:
    done = python("import operators", installed, tmp_path)
    assert done.returncode == 1
    assert "No module named 'operators'" in done.stderr


def test_operators_is_no_top_level_package_of_the_editable_install(tmp_path: Path) -> None:
    done = run("-c", "import rxflow.operators; import operators", cwd=tmp_path)
    assert done.returncode == 1
    assert "No module named 'operators'; import rxflow.operators" in done.stderr


def test_the_editable_install_is_a_path_and_not_an_import_hook() -> None:
    site_packages = Path(sysconfig.get_path("purelib"))
    (pth,) = site_packages.glob("__editable__.rxflow-*.pth")
    assert [Path(line) for line in pth.read_text(encoding="utf-8").splitlines()] == [ROOT]


PROGRAM = """
from rxflow import Flow
from rxflow import operators as ops
from rxflow.types import FlowStreamingOutput

reveal_type(Flow().observe())
reveal_type(Flow().observe().pipe(ops.words()))
output: FlowStreamingOutput = Flow().stream_chunks()
"""


def test_pyright_follows_the_editable_install(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pyright comes with the extra dev")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = run("-m", "pyright", "--pythonpath", sys.executable, "program.py", cwd=tmp_path)
    assert '"EventStream[StreamChunk]"' in done.stdout
    assert '"Observable[StreamChunk]"' in done.stdout
    assert done.stdout.rstrip().endswith("0 errors, 0 warnings, 2 informations"), done.stdout
