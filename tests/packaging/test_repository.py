"""What maintainers rely on: the targets of make, the scripts of CI, the hooks, the templates of issues."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_target_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8")))
    assert named - TARGETS == set()


def test_every_target_is_listed_as_phony_and_says_what_it_does() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS
    assert set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE)) == TARGETS


def test_hooks_before_a_commit_need_no_network() -> None:
    repositories = read_yaml(".pre-commit-config.yaml")["repos"]
    assert [each["repo"] for each in repositories] == ["local"]
    hooks = [hook for each in repositories for hook in each["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_a_template_of_issues_asks_for_something(name: str) -> None:
    form = read_yaml(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    asked = [field["id"] for field in form["body"] if field.get("validations", {}).get("required")]
    assert asked


def test_ci_says_what_it_needs_where_it_cannot_install_it(tmp_path: Path) -> None:
    for program in ("dirname", "bash"):  # no apt-get, no sudo, and none of the programs
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    done = subprocess.run(
        [tmp_path / "bash", ROOT / ".ci" / "run"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    said = re.search(r"^\.ci/run needs (.*), which are missing here\.", done.stderr)
    assert said is not None, done.stderr
    assert set(said[1].split()) == {"redis-server", "nodejs", "npm", "chromium", "iproute2"}


def collect(*arguments: str) -> tuple[int, int]:
    """How many tests pytest would run with these arguments, and how many there are."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    counted = re.search(r"^(\d+)/(\d+) tests collected", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout[-2000:]
    return int(counted[1]), int(counted[2])


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_no_test_is_lost_between_test_and_the_slow_ones() -> None:
    fast, all_tests = collect("-m", "not slow")
    slow, _ = collect("-m", "slow")
    assert fast + slow == all_tests
    assert slow < fast


@pytest.mark.parametrize(("target", "chosen"), [("test", '-m "not slow"'), ("test-all", ""), ("check", "")])
def test_a_target_of_tests_leaves_out_what_it_says(target: str, chosen: str) -> None:
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    (command,) = re.findall(r"\$\(BIN\)/\$\(PYTEST\)(.*) \$\(ARGS\)", recipe)
    assert command.strip() == chosen


def test_every_file_of_tests_is_below_a_folder_where_pytest_looks() -> None:
    folders = [
        path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "tests", "examples"))
    ]
    assert [path for folder in folders for path in folder.rglob("test_*.py")] == []
