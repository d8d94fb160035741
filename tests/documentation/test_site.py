"""The documentation site: built without the network, with a page for each public package."""

import ast
import importlib
import posixpath
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="what builds the site comes with the extra docs")

from docs import build_site, read_docstrings

ROOT = Path(__file__).parents[2]
PACKAGES = ["rxflow", "rxflow.crew", "rxflow.flow", "rxflow.llm", "rxflow.operators", "rxflow.testing", "rxflow.tools"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. No proxy and no name leads to the network from there."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", target],
        cwd=ROOT,
        env={"PATH": "", "NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def read_inventory(site: Path) -> set[str]:
    """The names that the site has an entry for, from its inventory in Sphinx's format."""
    header_lines = 4
    packed = (site / "objects.inv").read_bytes().split(b"\n", header_lines)[header_lines]
    return {line.split(" ", 1)[0] for line in zlib.decompress(packed).decode().splitlines()}


def test_every_public_name_has_its_entry(site: Path) -> None:
    entries = read_inventory(site)
    public = build_site.find_public()
    assert set(PACKAGES) <= public.keys()
    for package, names in public.items():
        module = importlib.import_module(package)
        assert set(module.__all__) == names.keys()
        assert [name for name in names if f"{build_site.find_home(name, package, public)}.{name}" not in entries] == []


def test_what_a_class_inherits_from_one_that_is_not_public_is_shown_with_it(site: Path) -> None:
    assert "rxflow.types.FlowStreamingOutput.close" in read_inventory(site)


@pytest.mark.parametrize(
    ("link", "written_in", "page", "expected"),
    [
        ("docs/testing.md#marbles", "README.md", "index.md", "testing.md#marbles"),
        ("../../CHANGELOG.md", "docs/contributing/releasing.md", "contributing/releasing.md", "../changelog.md"),
        ("../decisions.md", "docs/contributing/architecture.md", "contributing/architecture.md", "../decisions.md"),
        ("../tests/llm", "docs/providers.md", "providers.md", f"{build_site.REPOSITORY}/tree/main/tests/llm"),
        ("Makefile", "CONTRIBUTING.md", "contributing/index.md", f"{build_site.REPOSITORY}/blob/main/Makefile"),
        ("https://docs.litellm.ai", "README.md", "index.md", "https://docs.litellm.ai"),
        ("#stop-it", "README.md", "index.md", "#stop-it"),
        ("no-such.md", "docs/testing.md", "testing.md", "no-such.md"),
    ],
    ids=posixpath.basename,
)
def test_a_link_that_is_right_in_the_checkout_is_right_on_the_site(
    link: str, written_in: str, page: str, expected: str
) -> None:
    assert build_site.move_link(link, written_in, page) == expected


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://unpkg.com/shim"></script>',
        '<link rel="stylesheet" href="//fonts.googleapis.com/css">',
        '<img src="https://example.org/a.png">',
    ],
)
def test_a_page_that_loads_from_the_network_is_found_out(tag: str) -> None:
    assert len(build_site.find_remote(f"<a href='https://example.org'>there</a><img src='a.svg'>{tag}")) == 1


def test_docstrings_are_turned_into_markdown() -> None:
    said = "Runs :meth:`~Flow.kickoff`. ::\n\n    -a-|\n\nExample::\n\n    run()\n\nRaises:\n    ValueError: no."
    assert read_docstrings.to_markdown(said) == (
        "Runs `Flow.kickoff`.\n\n```text\n-a-|\n```\n\n"
        "**Example**\n\n```python\nrun()\n```\n\nRaises:\n    ValueError: no."
    )


def docstrings() -> Iterator[tuple[str, str]]:
    """All docstrings of rxflow, with their places."""
    for folder in ("rxflow", "operators"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    name = "" if isinstance(node, ast.Module) else node.name
                    yield f"{path.relative_to(ROOT)} {name}", ast.get_docstring(node) or ""


def test_every_literal_block_of_a_docstring_is_shown_as_code() -> None:
    """A block is not, if only the summary stands before it: the indentation that all later lines share is removed."""
    fenced = re.compile(r"```.*?```", re.DOTALL)
    missed = [
        f"{where}: {line}"
        for where, docstring in docstrings()
        for line in fenced.sub("", read_docstrings.to_markdown(docstring)).splitlines()
        if line.endswith("::")
    ]
    assert missed == []
