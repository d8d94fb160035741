"""What ``call`` and ``acall`` do with tools: those that they are given, and those that the model calls."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from rxflow import LLM, Flow
from rxflow.flow import start
from rxflow.tools import BaseTool, ToolUsageLimit, tool
from rxflow.types import ToolCall
from tests.gate import PATIENCE_S
from tests.scripted import Scripted, calls

ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
ADDING = calls(("add", {"a": 1, "b": 2}))


def call(llm: LLM, messages: str, tools: Any, functions: Any = None) -> Any:
    return llm.call(messages, tools, functions)


def acall(llm: LLM, messages: str, tools: Any, functions: Any = None) -> Any:
    return asyncio.run(llm.acall(messages, tools, functions))


BOTH = pytest.mark.parametrize("ask", [call, acall])


async def aplus(a: int, b: int) -> int:
    return a + b


def hidden(a: int, b: int) -> Any:
    """Async, but for its own looks."""
    return aplus(a, b)


def times(a: int, b: int) -> int:
    return a * b


def given(**arguments: Any) -> dict[str, Any]:
    return arguments


def adding() -> BaseTool:
    @tool
    def add(a: int, b: int = 40) -> int:
        """Adds."""
        return a + b

    return add


def adding_async() -> BaseTool:
    @tool("add")
    async def add(a: int, b: int) -> int:
        """Adds."""
        await asyncio.sleep(0)
        return a + b

    return add


class Place(BaseModel):
    name: str


class Look(BaseTool):
    name: str = "Look around"
    description: str = "Looks."

    def _run(self, place: Place) -> str:
        return f"{place.name} is fine"


class TestAsyncFunctions:
    def test_call_refuses_a_coroutine_function_before_the_model_is_asked(self) -> None:
        source = Scripted(ADDING)
        with pytest.raises(TypeError, match="the function 'add' is async: use acall"):
            source.llm.call("Hi", [ADD], {"add": aplus})
        assert source.requests == []

    @pytest.mark.parametrize("add", [hidden, adding_async()], ids=["hidden", "tool"])
    def test_call_refuses_one_that_does_not_show_it_before(self, add: Any) -> None:
        with pytest.raises(TypeError, match="the function 'add' is async: use acall"):
            Scripted(ADDING).llm.call("Hi", [ADD], {"add": add})

    def test_acall_awaits_what_a_coroutine_function_has_not_awaited(self) -> None:
        async def forgetful(a: int, b: int) -> Any:
            return aplus(a, b)

        assert acall(Scripted(ADDING).llm, "Hi", [ADD], {"add": forgetful}) == 3

    def test_acall_awaits_one_that_does_not_show_it(self) -> None:
        assert acall(Scripted(ADDING).llm, "Hi", [ADD], {"add": hidden}) == 3

    def test_a_cancelled_acall_does_not_wait_for_its_thread(self) -> None:
        begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def add(a: int, b: int) -> None:
            begun.set()
            assert go_on.wait(PATIENCE_S)
            ended.set()

        async def main() -> None:
            calling = asyncio.create_task(Scripted(ADDING).llm.acall("Hi", [ADD], {"add": add}))
            assert await asyncio.to_thread(begun.wait, PATIENCE_S)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            assert not ended.is_set()
            go_on.set()

        asyncio.run(main())
        assert ended.wait(PATIENCE_S)


class TestArguments:
    @BOTH
    @pytest.mark.parametrize("text", ["[1]", "{oops", "1", "null", '{"a": 1'])
    @pytest.mark.parametrize("tools", [[ADD], [adding()]], ids=["function", "tool"])
    def test_what_is_no_json_object_names_the_function_and_the_text(
        self, ask: Callable[..., Any], text: str, tools: list[Any]
    ) -> None:
        functions = {"add": given} if tools == [ADD] else None
        with pytest.raises(ValueError, match="the model called 'add' with arguments that ") as caught:
            ask(Scripted(calls(("add", text))).llm, "Hi", tools, functions)
        assert repr(text) in str(caught.value)

    @BOTH
    def test_arguments_that_do_not_fit_a_tool_name_it(self, ask: Callable[..., Any]) -> None:
        with pytest.raises(
            ValueError, match=r"the model called 'add' with arguments that do not fit: '\{\"a\": \"x\"\}'"
        ):
            ask(Scripted(calls(("add", {"a": "x"}))).llm, "Hi", [adding()])

    @BOTH
    @pytest.mark.parametrize("arguments", [{"a": 1}, {"a": 1, "b": 2, "c": 3}, {}])
    def test_arguments_that_do_not_fit_a_function_name_it(
        self, ask: Callable[..., Any], arguments: dict[str, int]
    ) -> None:
        with pytest.raises(ValueError, match="the model called 'add' with arguments that do not fit: ") as caught:
            ask(Scripted(calls(("add", arguments))).llm, "Hi", [ADD], {"add": times})
        assert isinstance(caught.value.__cause__, TypeError)

    @BOTH
    def test_an_error_of_the_function_itself_stays_as_it_is(self, ask: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="unsupported operand"):
            ask(Scripted(calls(("add", {"a": None, "b": None}))).llm, "Hi", [ADD], {"add": times})

    @BOTH
    @pytest.mark.parametrize("text", ["", "  "])
    def test_those_that_did_not_arrive_do_not_become_defaults(self, ask: Callable[..., Any], text: str) -> None:
        def look(city: str = "?") -> str:
            return city

        for tools, functions in (([ADD], {"add": look}), ([tool("add")(documented(look))], None)):
            with pytest.raises(ValueError, match="the model called 'add', and its arguments did not arrive"):
                ask(Scripted(calls(("add", text))).llm, "Hi", tools, functions)

    @pytest.mark.parametrize("text", ["", "  "])
    def test_no_text_is_no_arguments(self, text: str) -> None:
        assert Scripted(calls(("add", text))).llm.call("Hi", [ADD], {"add": given}) == {}


def documented(function: Callable[..., Any]) -> Callable[..., Any]:
    function.__doc__ = "Look."
    return function


class TestTools:
    @BOTH
    @pytest.mark.parametrize("native", [True, False], ids=["native", "in text"])
    def test_the_model_is_told_of_a_tool(self, ask: Callable[..., Any], native: bool) -> None:
        source = Scripted("No need", native=native)
        assert ask(source.llm, "Hi", [adding(), ADD]) == "No need"
        (request,) = source.requests
        if native:
            assert list(request.tools) == [adding().schema_for_model, ADD]
        else:
            assert '"name": "add"' in request.messages[0]["content"]

    def test_observables_and_sessions_take_tools_too(self) -> None:
        source = Scripted("No need")
        assert len(list(source.llm.stream_events("Hi", [adding()]))) > 0
        source.llm.events("Hi", [adding()])
        source.llm.observe("Hi", [adding()])
        assert list(source.requests[0].tools) == [adding().schema_for_model]

    @BOTH
    def test_a_called_tool_is_run_and_its_result_returned(self, ask: Callable[..., Any]) -> None:
        assert ask(Scripted(ADDING).llm, "Hi", [adding()]) == 3

    @BOTH
    def test_its_defaults_hold(self, ask: Callable[..., Any]) -> None:
        assert ask(Scripted(calls(("add", {"a": 2}))).llm, "Hi", [adding()]) == 42

    @BOTH
    def test_it_gets_its_arguments_as_it_declares_them_by_the_name_that_the_model_knows(
        self, ask: Callable[..., Any]
    ) -> None:
        source = Scripted(calls(("Look_around", {"place": {"name": "Bern"}})))
        assert ask(source.llm, "Hi", [Look()]) == "Bern is fine"

    def test_acall_awaits_an_async_tool(self) -> None:
        assert acall(Scripted(ADDING).llm, "Hi", [adding_async()]) == 3

    @BOTH
    def test_its_uses_are_counted(self, ask: Callable[..., Any]) -> None:
        once = adding()
        once.max_usage_count = 1
        assert ask(Scripted(ADDING).llm, "Hi", [once]) == 3
        with pytest.raises(ToolUsageLimit):
            ask(Scripted(ADDING).llm, "Hi", [once])

    @BOTH
    def test_available_functions_stand_beside_the_tools_and_before_them(self, ask: Callable[..., Any]) -> None:
        assert ask(Scripted(ADDING).llm, "Hi", [Look(), ADD], {"add": times}) == 2
        assert ask(Scripted(ADDING).llm, "Hi", [adding()], {"other": print}) == 3
        assert ask(Scripted(ADDING).llm, "Hi", [adding()], {"add": times}) == 2

    @BOTH
    def test_with_empty_available_functions_the_calls_are_returned(self, ask: Callable[..., Any]) -> None:
        assert ask(Scripted(ADDING).llm, "Hi", [adding()], {}) == [
            ToolCall(id="call_0", name="add", arguments='{"a": 1, "b": 2}')
        ]

    @BOTH
    def test_a_call_of_a_tool_that_is_not_there_says_which_are(self, ask: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match=r"the model called 'add', which is neither .*: \['Look_around'\]"):
            ask(Scripted(ADDING).llm, "Hi", [Look()])

    @BOTH
    @pytest.mark.parametrize("wrong", [adding(), ADD, "add", 7], ids=["tool", "schema", "name", "number"])
    def test_what_is_no_list_is_refused(self, ask: Callable[..., Any], wrong: Any) -> None:
        with pytest.raises(TypeError, match="tools is a list of tools or schemas; got "):
            ask(Scripted("Hello").llm, "Hi", wrong)

    @BOTH
    def test_functions_that_are_no_dict_are_refused_before_the_model_is_asked(self, ask: Callable[..., Any]) -> None:
        source = Scripted("never asked")
        with pytest.raises(TypeError):
            ask(source.llm, "Hi", None, [times])
        assert source.requests == []

    def test_a_plain_function_among_them_is_told_what_it_lacks(self) -> None:
        def add(a: int) -> int:
            return a

        wrong: Any = [add]
        with pytest.raises(TypeError, match="add is a function, not a tool; put @tool on it"):
            Scripted("Hello").llm.call("Hi", wrong)


@pytest.mark.parametrize("is_async", [False, True], ids=["call", "acall"])
def test_a_function_that_asks_the_model_again_does_so_in_the_stream_of_the_flow(is_async: bool) -> None:
    llm = Scripted(calls(("add", {"a": 1, "b": 2})), "three of course").llm

    def add(a: int, b: int) -> Any:
        return llm.call(f"{a} + {b}?")

    class Sync(Flow[dict[str, Any]]):
        stream = True

        @start()
        def question(self) -> Any:
            return llm.call("Hi", [ADD], {"add": add})

    class Async(Flow[dict[str, Any]]):
        stream = True

        @start()
        async def question(self) -> Any:
            return await llm.acall("Hi", [ADD], {"add": add})

    output = (Async if is_async else Sync)().kickoff()
    assert [chunk.flow_method for chunk in output] == ["question"] * len(output.chunks)
    assert output.get_full_text() == output.result == "three of course"
