"""Tools: made of functions and classes, described by their signature, used by hand."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from rxflow.flow.flow import Flow, listen, start
from rxflow.tools import BaseTool, ToolUsageLimit, tool
from tests.scripted import Scripted
from tests.warned import unawaited


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

    @pytest.mark.parametrize("returns", ["OnlyForTheTypeChecker", "typing.Missing", "not a type"])
    def test_a_return_annotation_that_cannot_be_read_does_no_harm(self, returns: str) -> None:
        members: dict[str, Any] = {}
        exec(f"import typing\ndef double(number: 'int') -> '{returns}':\n    'Double.'\n    return number * 2", members)
        made: Any = tool(members["double"])
        assert made.args_schema.model_json_schema()["properties"]["number"]["type"] == "integer"
        assert made.run(number="2") == 4
        assert made.result_schema is None

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_that_allows_no_use_is_refused(self, limit: int) -> None:
        with pytest.raises(ValueError, match="max_usage_count"):

            @tool(max_usage_count=limit)
            def search(query: str) -> str:  # pyright: ignore[reportUnusedFunction]
                """Search the web."""
                return query


class TestSignatures:
    """What a model cannot give is refused when the tool is made; the rest works."""

    @pytest.mark.parametrize("name", ["_id", "__x", "copy", "schema", "model_config", "json", "_1", "model_x"])
    def test_a_parameter_may_have_any_name(self, name: str) -> None:
        made = tool(function_of(f"def find({name}: str, id: int = 1): 'Find.'; return {name}, id"))
        parameters = made.schema_for_model["function"]["parameters"]
        assert set(parameters["properties"]) == {name, "id"}
        assert parameters["required"] == [name]
        assert made.run(**{name: "7"}) == made.run("7") == ("7", 1)
        assert made.read_arguments(f'{{"{name}": "7", "id": "2"}}') == {name: "7", "id": 2}

    def test_names_that_would_meet_are_kept_apart(self) -> None:
        made = tool(function_of("def find(id, _id, id_=3): 'Find.'; return id, _id, id_"))
        assert made.run(id=1, _id=2) == (1, 2, 3)

    @pytest.mark.parametrize(("one", "other"), [("copy", "_copy"), ("_copy", "copy"), ("_id", "__id"), ("_id", "_id_")])
    def test_two_names_that_are_not_allowed_are_kept_apart(self, one: str, other: str) -> None:
        made = tool(function_of(f"def find({one}: int, {other}: int): 'Find.'; return {one}, {other}"))
        assert made.schema_for_model["function"]["parameters"]["required"] == [one, other]
        assert made.run(**{one: "1", other: "2"}) == made.run(1, 2) == (1, 2)
        assert made.read_arguments(f'{{"{one}": 1, "{other}": 2}}') == {one: 1, other: 2}

    def test_a_default_of_the_function_applies_whatever_its_parameter_is_called(self) -> None:
        made = tool(function_of("def find(copy=[1], other=[2]): 'Find.'; return copy, other"))
        assert made.read_arguments("{}") == {}
        assert made.run()[0] is made.run()[0]

    def test_a_positional_only_parameter_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"'a' of the tool 'find' is positional-only, .*; remove the /"):
            tool(function_of("def find(a, /, b): 'Find.'"))

    def test_a_method_is_a_tool_once_it_has_its_object(self) -> None:
        class Shop:
            def __init__(self, **prices: int) -> None:
                self.prices = prices

            def price(self, of: str) -> int:
                """Find a price."""
                return self.prices[of]

        made = tool(Shop(tea=3).price)
        assert list(made.args_schema.model_fields) == ["of"]
        assert made.run("tea") == 3
        with pytest.raises(
            TypeError, match=r"^the tool 'price' is a method, .* cannot give it a self; .*tool\(thing\.price\)"
        ):
            tool(Shop.price)

    def test_a_function_with_keyword_arguments_gets_all_that_is_given(self) -> None:
        made = tool(function_of("def find(a: int, *args, **others): 'Find.'; return a, args, others"))
        assert made.schema_for_model["function"]["parameters"]["additionalProperties"] is True
        assert made.run(a="1", b="2") == (1, (), {"b": "2"})
        assert made.read_arguments('{"a": 1, "b": [2]}') == {"a": 1, "b": [2]}

    def test_a_default_may_be_a_field_of_pydantic(self) -> None:
        @tool
        def find(a: int = Field(description="Which"), b: int = Field(default=2, gt=1)) -> Any:
            """Find."""
            return a, b

        assert find.run(a="1") == (1, 2)
        with pytest.raises(ValueError, match="b: Input should be greater than 1"):
            find.run(a=1, b=1)

    def test_a_schema_with_extra_allow_keeps_what_the_model_gave(self) -> None:
        class Open(BaseModel):
            model_config = ConfigDict(extra="allow")
            a: int

        made = with_schema(Open, "def _run(self, a, **others): return a, others")
        assert made.read_arguments('{"a": 1, "b": 2}') == {"a": 1, "b": 2}
        assert made.run(a=1, b=2) == (1, {"b": 2})
        assert with_schema(Open, "def _run(self, a): return a").run(a=1, b=2) == 1

    def test_a_default_of_the_schema_serves_a_function_without_one(self) -> None:
        class Paged(BaseModel):
            query: str
            page: int = 1
            size: int = 10

        made = with_schema(Paged, "def _run(self, query, page, size=99): return query, page, size")
        assert made.run(query="a") == ("a", 1, 99)
        assert made.read_arguments('{"query": "a"}') == {"query": "a", "page": 1}
        assert with_schema(Paged, "def _run(self, **given): return given['size']").run(query="a") == 10

    def test_a_schema_may_have_other_names_for_the_model(self) -> None:
        class Trip(BaseModel):
            start: str = Field(alias="from")

        made = with_schema(Trip, "def _run(self, start): return start")
        assert made.read_arguments('{"from": "Bern"}') == {"start": "Bern"}
        assert made.run(start="Bern") == made.run(**{"from": "Bern"}) == "Bern"

    @pytest.mark.parametrize(
        ("run", "said"),
        [
            ("def _run(self, a, b): ...", "needs b, which its args_schema does not have"),
            ("def _run(self): ...", "has a, which it does not take"),
        ],
    )
    def test_a_schema_that_its_run_cannot_serve_is_refused(self, run: str, said: str) -> None:
        class Arguments(BaseModel):
            a: int

        with pytest.raises(TypeError, match=said):
            with_schema(Arguments, run)

    def test_a_class_may_have_a_hook_of_its_own_after_it_is_built(self) -> None:
        class Search(BaseTool):
            name: str = "search"
            description: str = "Search."

            def model_post_init(self, context: Any, /) -> None:
                pass

            def _run(self, query: str) -> str:
                return query

        assert Search().run("terns") == "terns"


def function_of(source: str) -> Callable[..., Any]:
    """A function that a type checker need not see."""
    names: dict[str, Any] = {}
    exec(source, names)
    function: Callable[..., Any] = names.popitem()[1]
    return function


def with_schema(schema: type[BaseModel], run: str) -> BaseTool:
    made = type("Made", (BaseTool,), {"_run": function_of(run), "__module__": __name__})
    instance: BaseTool = made(name="made", description="Made.", args_schema=schema)
    return instance


def generating(kind: str) -> BaseTool:
    @tool("rows")
    def rows() -> Iterator[str]:
        """Rows."""
        yield from ("north", "south")

    @tool("rows")
    async def async_rows() -> AsyncIterator[str]:
        """Rows."""
        yield "north"
        await asyncio.sleep(0)
        yield "south"

    @tool("rows")
    def hidden() -> Any:
        """Rows."""
        return async_rows.func()

    @tool("rows")
    async def awaited() -> Any:
        """Rows."""
        return async_rows.func()

    @tool("rows")
    async def later() -> Any:
        """Rows."""
        return rows.func()

    return {"generator": rows, "async generator": async_rows, "of a function": hidden, "of a coroutine": awaited}.get(
        kind, later
    )


def arun(each: BaseTool, **given: Any) -> Any:
    return asyncio.run(each.arun(**given))


class Place(BaseModel):
    city: str


OSLO = Place(city="Oslo")


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

    def test_run_awaits_an_async_tool_where_no_loop_runs(self) -> None:
        assert triple.run(4) == 12

    def test_an_async_tool_may_return_what_it_has_not_awaited(self) -> None:
        async def work() -> str:
            return "done"

        async def twice() -> Any:
            return work()

        @tool
        async def later() -> Any:
            """Work later."""
            return twice()

        assert asyncio.run(later.arun()) == "done"
        assert later.run() == "done"
        assert later.format_output_for_agent(asyncio.run(later.ainvoke({}))) == "done"

    def test_all_that_is_async_in_one_thread_runs_on_one_loop(self) -> None:
        """A client or a lock that is made once belongs to one loop."""
        loops: list[asyncio.AbstractEventLoop] = []

        @tool
        async def note() -> None:
            """Note the loop."""
            loops.append(asyncio.get_running_loop())

        class Noting(Flow):
            @start()
            async def by_itself(self) -> None:
                loops.append(asyncio.get_running_loop())

            @listen(by_itself)
            def by_hand(self) -> None:
                note.run()

        note.run()
        Noting().kickoff()
        note.run()
        assert len(loops) == 4
        assert len(set(loops)) == 1

    def test_what_an_async_tool_says_is_in_the_stream_of_the_flow_that_runs_it_by_hand(self) -> None:
        @tool
        async def ask() -> Any:
            """Ask."""
            return await Scripted("Rain").llm.acall("Weather?")

        class Asking(Flow):
            @start()
            def by_hand(self) -> Any:
                return ask.run()

        output = Asking(stream=True).kickoff()
        assert [chunk.content for chunk in output if chunk.content] == [output.result] == ["Rain"]

    def test_something_cancelled_inside_it_is_an_error_like_others(self) -> None:
        @tool
        async def wait() -> None:
            """Wait."""
            waiting = asyncio.ensure_future(asyncio.Event().wait())
            waiting.cancel()
            await waiting

        with pytest.raises(RuntimeError, match="this code awaited something that was cancelled"):
            wait.run()

    def test_run_of_an_async_tool_in_a_running_loop_says_what_to_do_and_is_not_a_use(self) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match=r"the tool 'triple' is async: await tool\.arun"):
                triple.run(4)

        triple.reset_usage_count()
        asyncio.run(main())
        assert triple.current_usage_count == 0

    @pytest.mark.parametrize("kind", ["coroutine", "async generator", "of a coroutine"])
    def test_run_in_a_running_loop_starts_nothing_of_an_async_result_and_is_not_a_use(self, kind: str) -> None:
        started: list[str] = []

        async def work() -> None:
            started.append(kind)

        async def items() -> AsyncIterator[str]:
            started.append(kind)
            yield kind

        async def give_items() -> AsyncIterator[str]:
            return items()

        returned: dict[str, Callable[[], Any]] = {
            "coroutine": work,
            "async generator": items,
            "of a coroutine": give_items,
        }

        @tool
        def later() -> Any:
            """Work later."""
            return returned[kind]()

        async def main() -> None:
            with pytest.raises(TypeError, match=r"the tool 'later' is async: await tool\.arun"):
                later.run()

        with unawaited() as warned:
            asyncio.run(main())
        assert (started, warned, later.current_usage_count) == ([], [], 0)

    @pytest.mark.parametrize("use", [BaseTool.run, arun])
    def test_arguments_are_converted_and_others_dropped(self, use: Any) -> None:
        @tool
        def show(number: int, day: date | None = None, *, place: Place = OSLO) -> Any:
            """Show them."""
            return number, day, place

        assert use(show, number="5", day="2026-01-31", unknown=1) == (5, date(2026, 1, 31), OSLO)
        assert use(show, number=5, place={"city": "Riga"}) == (5, None, Place(city="Riga"))

    def test_arguments_that_do_not_fit_are_named_and_are_not_a_use(self) -> None:
        double.reset_usage_count()
        with pytest.raises(
            ValueError, match=r"the tool 'double': arguments validation failed: number: Input should be"
        ):
            double.run("many")
        with pytest.raises(ValueError, match=r"number: Field required"):
            double.run()
        with pytest.raises(TypeError, match="takes 1 arguments; got 2"):
            double.run(1, 2)
        with pytest.raises(TypeError, match="two values for number"):
            double.run(1, number=2)
        assert double.current_usage_count == 0

    def test_the_function_of_a_tool_can_be_reached(self) -> None:
        assert double.func("a") == "aa"

    def test_a_class_may_have_a_twin_for_async_code(self) -> None:
        class Twin(BaseTool):
            name: str = "twin"
            description: str = "Two ways."

            def _run(self, u: str) -> str:
                return f"sync {u}"

            async def _arun(self, u: str) -> str:
                await asyncio.sleep(0)
                return f"async {u}"

        assert (Twin().run(u="x"), asyncio.run(Twin().arun(u="x"))) == ("sync x", "async x")

    def test_a_class_that_is_only_async_gives_the_arguments_of_its_arun(self) -> None:
        class OnlyAsync(BaseTool):
            name: str = "only"
            description: str = "One way."

            def _run(self, *args: Any, **kwargs: Any) -> Any:
                raise NotImplementedError

            async def _arun(self, u: str, *, n: int = 2) -> str:
                await asyncio.sleep(0)
                return u * n

        assert asyncio.run(OnlyAsync().arun("x", n="3")) == "xxx"
        assert OnlyAsync().schema_for_model["function"]["parameters"]["required"] == ["u"]

    @pytest.mark.parametrize("use", [BaseTool.run, arun])
    @pytest.mark.parametrize("kind", ["generator", "async generator", "of a function", "of a coroutine", "later"])
    def test_the_items_of_a_generator_are_its_result(self, use: Any, kind: str) -> None:
        assert use(generating(kind)) == ["north", "south"]

    def test_after_its_last_use_it_refuses(self) -> None:
        @tool(max_usage_count=2)
        def once_or_twice() -> str:
            """Not more."""
            return "done"

        assert once_or_twice.run() == "done"
        assert asyncio.run(once_or_twice.arun()) == "done"
        assert once_or_twice.current_usage_count == 2
        with pytest.raises(RuntimeError, match="'once_or_twice' has been used max_usage_count=2 times already"):
            once_or_twice.run()

    def test_many_threads_do_not_use_it_more_often_than_it_allows(self) -> None:
        @tool(max_usage_count=50)
        def work() -> None:
            """Work."""

        def use_up() -> int:
            done = 0
            with suppress(ToolUsageLimit):
                while True:
                    work.run()
                    done += 1
            return done

        with ThreadPoolExecutor(8) as pool:
            assert sum(each.result() for each in [pool.submit(use_up) for _ in range(8)]) == 50
        assert (work.current_usage_count, work.is_used_up) == (50, True)

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
