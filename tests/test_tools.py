"""Tools: made of functions and classes, described by their signature, used by hand."""

import asyncio
import threading
from functools import partial
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from rxflow.tools import BaseTool, tool


class TestMakingOne:
    def test_a_function_gives_its_name_its_docstring_and_its_arguments(self) -> None:
        @tool
        def search(query: str, limit: int = 3) -> str:
            """Search the web.

            Gives the best hits.
            """
            return query * limit

        assert search.name == "search"
        assert search.description == "Search the web.\n\nGives the best hits."
        assert search.schema_for_model == {
            "type": "function",
            "function": {
                "name": "search",
                "description": "Search the web.\n\nGives the best hits.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "query": {"title": "Query", "type": "string"},
                        "limit": {"title": "Limit", "type": "integer", "default": 3},
                    },
                    "required": ["query"],
                },
            },
        }

    def test_a_name_may_be_given(self) -> None:
        @tool("Web Search")
        def search(query: str) -> str:
            """Search the web."""
            return query

        assert search.name == "Web Search"
        # Providers take letters, digits, _ and - only.
        assert search.schema_for_model["function"]["name"] == "Web_Search"

    def test_a_function_without_a_docstring_is_refused(self) -> None:
        def search(query: str) -> str:
            return query

        with pytest.raises(ValueError, match="the tool 'search' has no docstring"):
            tool(search)
        with pytest.raises(ValueError, match="the tool 'search' has no docstring"):
            tool("Web Search")(search)

    @pytest.mark.parametrize("make", [tool, tool("Web Search")])
    def test_a_partial_is_refused(self, make: Any) -> None:
        def search(query: str) -> str:
            """Search the web."""
            return query

        with pytest.raises(TypeError, match="tools are made of functions; put this in one that has a name"):
            make(partial(search, "terns"))

    def test_a_class_gives_the_arguments_of_its_run(self) -> None:
        class Search(BaseTool):
            name: str = "Search"
            description: str = "Search the web."
            site: str = "example.org"

            def _run(self, query: str, kind: Literal["text", "image"] = "text") -> str:
                return f"{self.site}: {query}"

        search = Search(site="example.com")
        assert set(search.args_schema.model_fields) == {"query", "kind"}
        assert search.run("terns") == "example.com: terns"

    def test_a_class_may_say_its_arguments_itself(self) -> None:
        class Arguments(BaseModel):
            query: str = Field(description="What to look for")

        class Search(BaseTool):
            name: str = "search"
            description: str = "Search the web."
            args_schema: type[BaseModel] = Arguments

            def _run(self, **arguments: Any) -> Any:
                return arguments["query"]

        parameters = Search().schema_for_model["function"]["parameters"]
        assert parameters["properties"]["query"]["description"] == "What to look for"

    def test_what_an_annotation_says_of_an_argument_is_told_to_the_model(self) -> None:
        @tool
        def search(query: Annotated[str, Field(description="What to look for", max_length=9)]) -> str:
            """Search the web."""
            return query

        said = search.schema_for_model["function"]["parameters"]["properties"]["query"]
        assert (said["description"], said["maxLength"]) == ("What to look for", 9)

    def test_a_function_without_annotations_takes_anything(self) -> None:
        def echo(what, times=1):  # type: ignore[no-untyped-def]
            """Say it again."""
            return [what] * times  # pyright: ignore[reportUnknownVariableType]

        made = tool(echo)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        assert made.schema_for_model["function"]["parameters"]["required"] == ["what"]

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_that_allows_no_use_is_refused(self, limit: int) -> None:
        with pytest.raises(ValueError, match="max_usage_count"):

            @tool(max_usage_count=limit)
            def search(query: str) -> str:  # pyright: ignore[reportUnusedFunction]
                """Search the web."""
                return query


class TestUsingOneByHand:
    def test_it_can_be_called_like_the_function_that_it_was(self) -> None:
        assert double(4) == 8

    def test_run_calls_it(self) -> None:
        assert double.run(4) == double.run(number=4) == 8

    def test_arun_runs_a_sync_tool_off_the_loop(self) -> None:
        @tool
        def thread_of() -> int:
            """Tell the thread."""
            return threading.get_ident()

        assert asyncio.run(thread_of.arun()) != threading.get_ident()

    def test_arun_awaits_an_async_tool(self) -> None:
        assert asyncio.run(triple.arun(4)) == 12

    def test_run_of_an_async_tool_says_what_to_do(self) -> None:
        with pytest.raises(TypeError, match=r"the tool 'triple' is async: await tool\.arun"):
            triple.run(4)

    def test_after_its_last_use_it_refuses(self) -> None:
        @tool(max_usage_count=2)
        def once_or_twice() -> str:
            """Not more."""
            return "done"

        assert once_or_twice.run() == "done"
        assert asyncio.run(once_or_twice.arun()) == "done"
        assert once_or_twice.usage_count == 2
        with pytest.raises(RuntimeError, match="'once_or_twice' may be used 2 times, and that has been done"):
            once_or_twice.run()

    def test_what_it_raises_is_raised(self) -> None:
        @tool
        def fail() -> None:
            """Fail."""
            raise LookupError("nothing there")

        with pytest.raises(LookupError, match="nothing there"):
            fail.run()


@tool
def double(number: int) -> int:
    """Double it."""
    return 2 * number


@tool
async def triple(number: int) -> int:
    """Triple it."""
    await asyncio.sleep(0)
    return 3 * number
