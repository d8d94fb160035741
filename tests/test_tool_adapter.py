"""Tools of other libraries work where a tool is given, and nothing of theirs is imported."""

import asyncio
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, Field

from rxflow import LLM
from rxflow._tool_adapter import as_tool
from rxflow.tools import BaseTool, tool
from rxflow.types.events import ToolFailed
from tests.scripted import Scripted, calls
from tests.team import a_crew, a_task, an_agent, played, solo


class Query(BaseModel):
    query: str = Field(description="what to look for")
    limit: int = 3


JSON_SCHEMA = {
    "type": "object",
    "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}, "_raw": {"type": "boolean"}},
    "required": ["query"],
}


class Foreign:
    """What tools of all libraries have."""

    name = "search"
    description = "Search the web."
    args_schema: Any = Query


class CrewAILike(Foreign):
    def _run(self, query: str, limit: int = 3) -> str:
        return f"{limit} hits for {query}"


class AsyncCrewAILike(Foreign):
    async def _run(self, query: str, limit: int = 3) -> str:
        await asyncio.sleep(0)
        return f"{limit} hits for {query}"


class LangChainLike(Foreign):
    """Its ``_run`` cannot be called by name; ``invoke`` takes one dict."""

    def _run(self, *args: Any, config: Any, **kwargs: Any) -> str:
        raise AssertionError("LangChain's _run is called by its invoke")

    def invoke(self, given: dict[str, Any], config: Any = None) -> str:
        return f"{given.get('limit', 3)} hits for {given['query']}"


class AsyncLangChainLike(LangChainLike):
    def invoke(self, given: dict[str, Any], config: Any = None) -> str:
        raise NotImplementedError("it has a coroutine only")

    async def ainvoke(self, given: dict[str, Any], config: Any = None) -> str:
        return super().invoke(given)


class LegacyLangChainLike(LangChainLike):
    args_schema = None
    args = {"query": {"type": "string"}, "limit": {"type": "integer", "default": 3}}  # noqa: RUF012


class NamedByASchema(CrewAILike):
    args_schema = JSON_SCHEMA


class OfPydantic1(CrewAILike):
    args_schema = SimpleNamespace(schema=lambda: JSON_SCHEMA)


class WithoutSchema(CrewAILike):
    args_schema = None


class WithInvoke(CrewAILike):
    """What its ``_run`` takes is nowhere but in the signature, and ``invoke`` takes it in one dict."""

    args_schema = None

    def invoke(self, given: dict[str, Any], config: Any = None) -> str:
        return self._run(**given)


class OnlyRun(Foreign):
    def run(self, query: str, limit: int = 3) -> str:
        return f"{limit} hits for {query}"


class OnlyFunc(Foreign):
    def __init__(self) -> None:
        self.func: Any = vars(CrewAILike)["_run"].__get__(self)


FOREIGN = [
    CrewAILike,
    AsyncCrewAILike,
    LangChainLike,
    AsyncLangChainLike,
    LegacyLangChainLike,
    NamedByASchema,
    OfPydantic1,
    WithoutSchema,
    WithInvoke,
    OnlyRun,
    OnlyFunc,
]
every_kind = pytest.mark.parametrize("kind", FOREIGN)


def told(model: Scripted) -> str:
    return str(model.conversations[1][-1]["content"])


@every_kind
@pytest.mark.parametrize("holder", ["agent", "task"])
def test_a_tool_of_another_library_is_offered_and_called(kind: Callable[[], Any], holder: str) -> None:
    model = Scripted(calls(("search", {"query": "terns"})), "Found.")
    given: dict[str, Any] = {holder: {"tools": [kind()]}}
    crew = solo(model, agent=given.get("agent"), **given.get("task", {}))
    assert crew.kickoff().raw == "Found."
    assert told(model) == "3 hits for terns"
    function = model.requests[0].tools[0]["function"]
    assert (function["name"], function["description"]) == ("search", "Search the web.")
    assert set(function["parameters"]["properties"]) >= {"query", "limit"}
    assert function["parameters"]["required"] == ["query"]


@pytest.mark.parametrize("kind", [CrewAILike, LangChainLike, WithoutSchema, WithInvoke])
def test_arguments_that_do_not_fit_are_told_to_the_model(kind: Callable[[], Any]) -> None:
    model = Scripted(calls(("search", {"limit": 1})), "Sorry.")
    run = played(solo(model, agent={"tools": [kind()]}))
    assert told(model).startswith("Error: the arguments of search are not valid. query: Field required")
    assert len(run.of(ToolFailed)) == 1


def test_a_json_schema_is_shown_as_it_is() -> None:
    assert as_tool(NamedByASchema()).schema_for_model["function"]["parameters"] == JSON_SCHEMA


def test_what_fails_in_it_is_told_to_the_model() -> None:
    class Failing(CrewAILike):
        def _run(self, query: str, limit: int = 3) -> str:
            raise ConnectionError("no network")

    model = Scripted(calls(("search", {"query": "x"})), "Sorry.")
    solo(model, agent={"tools": [Failing()]}).kickoff()
    assert told(model) == "Error: search raised ConnectionError: no network"


class LangChainTool(LangChainLike):
    """Its methods call each other as those of LangChain's tools do."""

    def __init__(self) -> None:
        self.called = 0

    def work(self) -> str:
        self.called += 1
        raise NotImplementedError("no such unit")

    def _run(self, *args: Any, **kwargs: Any) -> str:
        return self.work()

    def invoke(self, given: dict[str, Any], config: Any = None) -> str:
        return self._run(**given)


class WithAinvoke(LangChainTool):
    async def ainvoke(self, given: dict[str, Any], config: Any = None) -> str:
        return self.invoke(given)


@pytest.mark.parametrize("kind", [LangChainTool, WithAinvoke])
def test_a_langchain_tool_whose_own_code_is_not_implemented_is_called_once(kind: type[LangChainTool]) -> None:
    model, search = Scripted(calls(("search", {"query": "x"})), "Sorry."), kind()
    solo(model, agent={"tools": [search]}).kickoff()
    assert told(model) == "Error: search raised NotImplementedError: no such unit"
    assert search.called == 1


@pytest.mark.parametrize("flag", ["result_as_answer", "return_direct"])
def test_its_result_may_be_the_answer(flag: str) -> None:
    original = CrewAILike()
    setattr(original, flag, True)
    model = Scripted(calls(("search", {"query": "x"})), "not asked")
    assert solo(model, agent={"tools": [original]}).kickoff().raw == "3 hits for x"


def test_its_limit_holds() -> None:
    original: Any = CrewAILike()
    original.max_usage_count = 1
    model = Scripted(calls(("search", {"query": "x"}), ("search", {"query": "y"})), "Done")
    solo(model, agent={"tools": [original]}).kickoff()
    said = [message["content"] for message in model.conversations[1] if message["role"] == "tool"]
    assert said[0] == "3 hits for x"
    assert "has been used max_usage_count=1 times" in said[1]


@pytest.mark.parametrize("is_kept", [True, False])
def test_its_cache_function_says_what_is_kept(is_kept: bool) -> None:
    class Counting(CrewAILike):
        calls = 0

        def _run(self, query: str, limit: int = 3) -> str:
            self.calls += 1
            return super()._run(query, limit)

        def cache_function(self, arguments: object, result: object) -> bool:
            return is_kept

    original = Counting()
    asked = calls(("search", {"query": "x"}))
    solo(Scripted(asked, asked, "Done"), agent={"tools": [original]}).kickoff()
    assert original.calls == (1 if is_kept else 2)


def test_an_llm_takes_it_too() -> None:
    model = Scripted(calls(("search", {"query": "terns"})))
    tools: list[Any] = [CrewAILike()]
    assert model.llm.call("Find terns", tools=tools) == "3 hits for terns"


def test_a_tool_of_ours_is_left_as_it_is() -> None:
    @tool
    def own(query: str) -> str:
        """Search."""
        return query

    assert as_tool(own) is own
    assert isinstance(as_tool(CrewAILike()), BaseTool)


def function(query: str) -> str:
    return query


NO_TOOLS: dict[str, tuple[Any, str]] = {
    "a function": (function, "function is a function, not a tool; put @tool on it"),
    "a class": (CrewAILike, "CrewAILike is a class, not a tool; give an object of it, CrewAILike(…)"),
    "a dict": ({"name": "search"}, "{'name': 'search'} is not a tool; give"),
    "a number": (3, "3 is not a tool; give"),
    "a model": (LLM("rxflow/demo"), "LLM('rxflow/demo') is not a tool; give"),
    "no description": (type("Quiet", (CrewAILike,), {"description": " "})(), "the tool 'search' has no description"),
    "a wrong schema": (type("Odd", (CrewAILike,), {"args_schema": 3})(), "the args_schema of the tool 'search' is not"),
}


@pytest.mark.parametrize(("given", "words"), NO_TOOLS.values(), ids=NO_TOOLS.keys())
@pytest.mark.parametrize("holder", [an_agent, a_task])
def test_what_is_not_a_tool_is_refused_where_it_is_given(given: Any, words: str, holder: Any) -> None:
    with pytest.raises(TypeError) as raised:
        holder(Scripted("Done") if holder is an_agent else None, tools=[given])
    assert str(raised.value).startswith(words)


def test_two_agents_may_share_one() -> None:
    shared = CrewAILike()
    agents = [an_agent(Scripted("Done"), role, tools=[shared]) for role in ("One", "Other")]
    assert a_crew(*(a_task(agent, tools=[shared]) for agent in agents)).kickoff().raw == "Done"


def test_the_adapter_imports_nothing_of_other_libraries() -> None:
    source = inspect.getsource(inspect.getmodule(as_tool) or as_tool)
    assert "import langchain" not in source
    assert "import crewai" not in source
