"""CrewAI's import paths lead to rxflow's names, or say what to do instead."""

import importlib
import subprocess
import sys

import pytest

import rxflow
from rxflow import _aliases

NAMES = [(path, name) for path, names in _aliases.ALIASES.items() for name in names]


@pytest.mark.parametrize(("path", "name"), NAMES, ids=".".join)
def test_a_path_of_crewai_has_its_name(path: str, name: str) -> None:
    module = importlib.import_module(path)
    assert hasattr(module, name)
    assert name in module.__all__
    assert name in dir(module)


def test_the_paths_of_published_programs_import_in_a_fresh_interpreter() -> None:
    program = (
        "from rxflow.agents.agent_builder.base_agent import BaseAgent\n"
        "from rxflow.crews.crew_output import CrewOutput\n"
        "from rxflow.tasks.task_output import TaskOutput\n"
        "from rxflow.tools.base_tool import BaseTool\n"
        "from rxflow.llms.base_llm import BaseLLM\n"
        "from rxflow.lite_agent_output import LiteAgentOutput\n"
        "from rxflow.flow.flow import FlowState\n"
        "from rxflow.project.annotations import agent\n"
        "import rxflow, rxflow.tools\n"
        "assert BaseAgent is rxflow.Agent and TaskOutput is rxflow.TaskOutput and BaseTool is rxflow.tools.BaseTool\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=100)


@pytest.mark.parametrize("path", [*_aliases.ALIASES, *_aliases.ABSENT])
def test_a_path_in_the_tables_is_not_a_module_of_ours(path: str) -> None:
    loader = importlib.import_module("importlib.util").find_spec(path).loader
    assert type(loader).__module__ == "rxflow._aliases"


@pytest.mark.parametrize("path", _aliases.ABSENT)
def test_what_rxflow_does_not_have_says_what_to_do_instead(path: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"there is no {path}: rxflow .*; ") as raised:
        importlib.import_module(path)
    package, _, name = path.rpartition(".")
    with pytest.raises(ModuleNotFoundError) as from_package:
        exec(f"from {package} import {name}")
    assert str(from_package.value) == str(raised.value)
    assert not hasattr(importlib.import_module(package), name)


def test_what_lies_below_it_says_the_same() -> None:
    with pytest.raises(ModuleNotFoundError, match="rxflow has no knowledge sources"):
        importlib.import_module("rxflow.knowledge.source.string_knowledge_source")


def test_a_misspelt_path_is_python_s_own_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'rxflow\.agnet'$"):
        importlib.import_module("rxflow.agnet")


def test_a_name_that_a_path_does_not_have_is_python_s_own_error() -> None:
    with pytest.raises(ImportError, match=r"cannot import name 'Agnet' from 'rxflow\.agent'"):
        exec("from rxflow.agent import Agnet")


@pytest.mark.parametrize("path", _aliases.ALIASES)
def test_a_path_says_where_its_names_are_in_rxflow(path: str) -> None:
    documented = importlib.import_module(path).__doc__ or ""
    homes = ", ".join(sorted({str(home) for home in _aliases.ALIASES[path].values()}))
    assert (
        documented == f"CrewAI's path; {f'the names are those of {homes}' if homes else 'it has no names in rxflow'}."
    )


def test_the_finder_stands_in_the_list_of_finders_once() -> None:
    before = len(sys.meta_path)
    _aliases.install()
    assert len(sys.meta_path) == before


@pytest.mark.parametrize("read", ["rxflow.operators.words", "rxflow.__version__", "rxflow.tool", "rxflow.BaseLLM"])
def test_a_plain_import_is_enough(read: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", f"import rxflow; {read}"], check=True, timeout=100)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert rxflow.__version__ == importlib.import_module("importlib.metadata").version("rxflow")
