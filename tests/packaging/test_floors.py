"""Each floor of rxflow imports only floors below it; no modules import each other in a circle, and none is too long.

The imports are read from the source, those inside functions too: an import that hides there dodges no circle.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Lowest first. Rooms of one line may use each other.
FLOORS = [
    {"_lazy", "_hooks", "_text", "_loops", "_options", "_copies"},
    {"types"},
    {"_streaming", "_prices", "tools", "_tool_adapter", "_tool_parameters"},
    {"operators"},
    {"llm"},
    {"crew"},
    {"flow"},
    {"runs"},
    {"project", "testing", "screens", "adapters", "cluster", "_aliases", "__init__"},
    {"cli", "_new_project", "__main__"},
]
MAX_LINES = 450
# What other rooms need of these, they import from the package, as far as they do not need a whole module of it.
FACES = ["rxflow._streaming", "rxflow.operators._core"]
BESIDE_FACES = {
    "rxflow._streaming.loop_thread",
    "rxflow.operators._core.blocks",
    "rxflow.operators._core.log_reader",
    "rxflow.operators._core.log_writer",
    "rxflow.operators._core.run_log",
}
# The names that programs import from one place live on two floors: this module only gathers them.
GATHERS = "rxflow.types.streaming"

# pydantic and mcp pin these exactly; pytest loads the plugin, so it is there.
COME_WITH_OTHERS = {"pydantic_core", "mcp_types", "pytest"}


def source_files() -> dict[str, Path]:
    """The modules and packages by name; rxflow.operators lies in operators/."""
    paths = [path for path in (ROOT / "rxflow").rglob("*.py") if "operators" not in path.relative_to(ROOT).parts]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    for path in (ROOT / "operators").rglob("*.py"):
        named[".".join(("rxflow", *path.relative_to(ROOT).with_suffix("").parts))] = path
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imports_of(path: Path) -> Iterator[str]:
    """The modules and packages of rxflow that a file imports, without those that only type checkers see."""
    following: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while following:
        node = following.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            following.extend(node.orelse)
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rxflow"):
            for each in node.names:
                submodule = f"{node.module}.{each.name}"
                yield submodule if submodule in FILES else node.module or ""
        following.extend(ast.iter_child_nodes(node))


FILES = source_files()
IMPORTS = {name: sorted({each for each in imports_of(path) if each in FILES}) for name, path in FILES.items()}


def packages_of(path: Path) -> Iterator[str]:
    """The top-level packages that a file imports, by a statement or by ``import_module``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for each in node.args[:1]:
                if isinstance(each, ast.Constant):
                    yield str(each.value).partition(".")[0]


def floor_of(module: str) -> int:
    room = module.split(".")[1] if module != "rxflow" else "__init__"
    (floor,) = (number for number, rooms in enumerate(FLOORS) if room in rooms)
    return floor


def test_every_import_goes_down() -> None:
    upward = [
        f"{module} imports {imported}"
        for module, all_imported in IMPORTS.items()
        for imported in all_imported
        if module != GATHERS and floor_of(imported) > floor_of(module)
    ]
    assert upward == []


def test_a_package_with_a_face_is_imported_by_it() -> None:
    past_the_face = [
        f"{module} imports {imported}"
        for module, all_imported in IMPORTS.items()
        for face in FACES
        for imported in all_imported
        if imported.startswith(f"{face}.") and not f"{module}.".startswith(f"{face}.") and imported not in BESIDE_FACES
    ]
    assert past_the_face == []


def test_the_reading_of_imports_sees_them() -> None:
    assert "rxflow.llm._call" in IMPORTS["rxflow.llm.model"]
    assert "rxflow.operators._core.calls" in IMPORTS["rxflow.operators._core.text"]
    assert "rxflow.types" in IMPORTS["rxflow.llm.model"]
    assert len(IMPORTS) > 100


def test_what_is_imported_is_declared() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    needed = [
        *project["dependencies"],
        *(need for name in extras.keys() - {"test", "docs", "dev"} for need in extras[name]),
    ]
    declared = {name.lower() for need in needed for name in re.findall(r"^[\w-]+", need)}
    named = packages_distributions()
    undeclared = [
        f"{module} imports {package}"
        for module, path in FILES.items()
        if not module.startswith("rxflow.llm.")  # it sends requests with what litellm sends them with
        for package in packages_of(path)
        if package not in sys.stdlib_module_names | {"rxflow"} | COME_WITH_OTHERS
        and declared.isdisjoint(each.lower().replace("_", "-") for each in named.get(package, [package]))
    ]
    assert undeclared == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the circle


def test_no_module_is_longer_than_one_can_read() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}
