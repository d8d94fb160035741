"""Agents use tools: all of a turn at once, and whatever goes wrong is told to the model and to the stream."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

import pytest
from pydantic import AfterValidator, BaseModel

from rxflow import LLM
from rxflow.tools import BaseTool, tool
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import LLMFinished, ToolFailed, ToolFinished, ToolStarted
from tests.gate import PATIENCE_S
from tests.loopback import Loopback, Reply, ToolCall as Call
from tests.scripted import Scripted, calls
from tests.spans import check_laws
from tests.team import played, solo


@tool
def search(query: str, limit: int = 3) -> str:
    """Search the web."""
    return f"{limit} hits for {query}"


@tool
async def lookup(key: str) -> str:
    """Look a key up."""
    await asyncio.sleep(0)
    return f"value of {key}"


ENDLESS: list[Any] = [1]
ENDLESS.append(ENDLESS)


def told(model: Scripted, request: int = 1) -> list[str]:
    """What the model was told of its calls."""
    return [message["content"] for message in model.conversations[request] if message["role"] == "tool"]


def test_the_result_is_told_to_the_model_and_the_model_answers() -> None:
    model = Scripted(["Looking. ", *calls(("search", {"query": "terns"}))], "Found them.")
    assert solo(model, agent={"tools": [search]}).kickoff().raw == "Found them."
    asking, result = model.conversations[1][-2:]
    assert asking == {
        "role": "assistant",
        "content": "Looking. ",
        "tool_calls": [
            {
                "id": "call_0",
                "type": "function",
                "function": {"name": "search", "arguments": '{"query": "terns"}'},
            }
        ],
    }
    assert result == {
        "role": "tool",
        "tool_call_id": "call_0",
        "name": "search",
        "content": "3 hits for terns",
    }


@pytest.mark.parametrize("name", ["_id", "copy", "schema", "json", "model_x"])
@pytest.mark.parametrize("copied", [False, True])
def test_a_parameter_of_any_name_gets_what_the_model_gives(name: str, copied: bool) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def find({name}): 'Find.'; return {name}", namespace)
    found = cast(BaseTool, tool(namespace["find"]))
    model = Scripted(calls(("find", {name: "terns"})), "Done.")
    solo(model, agent={"tools": [found.model_copy() if copied else found]}).copy().kickoff()
    assert told(model) == ["terns"]


def test_the_tools_of_a_task_stand_in_for_those_of_its_agent() -> None:
    model = Scripted("Done.")
    solo(model, agent={"tools": [search]}, tools=[lookup]).kickoff()
    assert [each["function"]["name"] for each in model.requests[0].tools] == ["lookup"]


def test_the_stream_sees_each_tool_begin_and_end() -> None:
    model = Scripted(calls(("search", {"query": "terns"}), ("lookup", {"key": "k"})), "Done.")
    seen = played(solo(model, agent={"tools": [search, lookup]}))
    started = {each.tool_id: (each.tool_name, dict(each.arguments)) for each in seen.of(ToolStarted)}
    assert started == {"call_0": ("search", {"query": "terns"}), "call_1": ("lookup", {"key": "k"})}
    finished = {each.tool_id: each.result for each in seen.of(ToolFinished)}
    assert finished == {"call_0": "3 hits for terns", "call_1": "value of k"}
    assert all(each.origin.agent_role == "Writer" for each in seen.of(ToolStarted))


def test_the_tools_of_one_turn_run_at_once() -> None:
    here, there = threading.Barrier(3, timeout=PATIENCE_S), asyncio.Event()

    @tool
    def wait_one() -> str:
        """Wait for the others."""
        here.wait()
        return "one"

    @tool
    def wait_two() -> str:
        """Wait for the others."""
        here.wait()
        return "two"

    @tool
    async def wait_three() -> str:
        """Wait for the others."""
        await asyncio.wait_for(there.wait(), PATIENCE_S)
        return "three"

    @tool
    async def wait_four() -> str:
        """Wait for the others."""
        await asyncio.to_thread(here.wait)
        there.set()
        return "four"

    model = Scripted(calls(("wait_three", {}), ("wait_one", {}), ("wait_four", {}), ("wait_two", {})), "Done.")
    seen = played(solo(model, agent={"tools": [wait_one, wait_two, wait_three, wait_four]}))
    assert seen.error is None
    assert told(model) == ["three", "one", "four", "two"], "in the order of the calls"
    assert not seen.of(ToolFailed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"query": 5}', "query: Input should be a valid string"),
        ("{}", "query: Field required"),
        ('{"query": "a", "limit": "many"}', "limit: Input should be a valid integer"),
        ('{"query": ', "Invalid JSON"),
        ("[1]", "arguments: Input should be"),
    ],
    ids=["wrong type", "missing", "wrong optional", "no JSON", "no object"],
)
def test_arguments_that_do_not_fit_are_told_to_the_model_and_to_the_stream(arguments: str, said: str) -> None:
    model = Scripted(calls(("search", arguments)), "Done.")
    seen = played(solo(model, agent={"tools": [search]}))
    assert seen.error is None
    (content,) = told(model)
    assert content.startswith("Error: the arguments of search are not valid.")
    assert said in content
    failed, started = seen.one(ToolFailed), seen.one(ToolStarted)
    assert (failed.tool_id, failed.stage, failed.origin) == ("call_0", "arguments", started.origin)
    assert failed.arguments == started.arguments
    check_laws(seen.events)


def test_a_validator_that_raises_another_error_is_told_to_the_model_too() -> None:
    def shout(code: Any) -> Any:
        return code.upper()

    @tool
    def find(code: Annotated[Any, AfterValidator(shout)]) -> str:
        """Find."""
        return f"found {code}"

    model = Scripted(calls(("find", {"code": 5})), calls(("find", {"code": "a"})), "Done.")
    seen = played(solo(model, agent={"tools": [find]}))
    assert seen.error is None
    said, then = told(model, 2)
    assert said == "Error: the arguments of find are not valid. AttributeError: 'int' object has no attribute 'upper'"
    assert then == "found A"
    assert (seen.one(ToolFailed).stage, seen.one(ToolFailed).arguments) == ("arguments", {"code": 5})
    check_laws(seen.events)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_tool_raises_is_told_to_the_model_and_to_the_stream(is_async: bool) -> None:
    error = LookupError("nothing there")

    @tool("broken")
    def broken() -> str:
        """Fail."""
        raise error

    @tool("broken")
    async def broken_async() -> str:
        """Fail."""
        raise error

    model = Scripted(calls(("broken", {}), ("search", {"query": "terns"})), "Done without it.")
    seen = played(solo(model, agent={"tools": [broken_async if is_async else broken, search]}))
    assert told(model) == ["Error: broken raised LookupError: nothing there", "3 hits for terns"]
    failed = seen.one(ToolFailed)
    assert (failed.error, failed.tool_name, failed.tool_id) == (error, "broken", "call_0")
    assert seen.one(ToolFinished).tool_name == "search"
    assert seen.of(LLMFinished)[-1].text == "Done without it."


def test_a_tool_that_is_not_there_is_told_to_the_model_with_those_that_are() -> None:
    model = Scripted(calls(("fly", {})), "Done.")
    seen = played(solo(model, agent={"tools": [search, lookup]}))
    assert told(model) == ["Error: there is no tool 'fly'; the tools are ['lookup', 'search']"]
    assert seen.one(ToolFailed).tool_name == "fly"


def test_a_tool_that_was_used_up_is_told_to_the_model() -> None:
    @tool(max_usage_count=1)
    def once() -> str:
        """Works once."""
        return "worked"

    model = Scripted(calls(("once", {})), calls(("once", {})), "Done.")
    seen = played(solo(model, agent={"tools": [once]}))
    first, second = told(model, 2)
    assert first == "worked"
    assert "has been used max_usage_count=1 times" in second
    assert seen.one(ToolFinished).result == "worked"
    assert seen.one(ToolFailed).tool_name == "once"


def test_of_several_calls_in_one_turn_only_as_many_as_allowed_run() -> None:
    ran: list[int] = []

    @tool(max_usage_count=2)
    def some(number: int) -> str:
        """Works twice."""
        ran.append(number)
        return "worked"

    model = Scripted(calls(*(("some", {"number": number}) for number in range(4))), "Done.")
    seen = played(solo(model, agent={"tools": [some]}))
    assert sorted(ran) == [0, 1]
    assert len(seen.of(ToolFailed)) == 2


def test_a_result_may_be_the_answer() -> None:
    @tool(result_as_answer=True)
    def report() -> str:
        """Report."""
        return "The report, word for word."

    model = Scripted(calls(("report", {})), "never asked")
    assert solo(model, agent={"tools": [report]}).kickoff().raw == "The report, word for word."
    assert len(model.requests) == 1


def test_a_failed_tool_is_no_answer() -> None:
    @tool(result_as_answer=True)
    def report() -> str:
        """Report."""
        raise OSError("no paper")

    model = Scripted(calls(("report", {})), "There is no paper.")
    assert solo(model, agent={"tools": [report]}).kickoff().raw == "There is no paper."


class Point(BaseModel):
    x: int
    y: int = 0


def test_arguments_arrive_as_they_are_declared() -> None:
    got: list[Any] = []

    @tool
    def move(to: Point, by: list[Point], note: str | None = None, speed: float = 1.5) -> None:
        """Move."""
        got.extend([to, by, note, speed])

    model = Scripted(calls(("move", {"to": {"x": 1}, "by": [{"x": 2, "y": 3}]})), "Done.")
    solo(model, agent={"tools": [move]}).kickoff()
    assert got == [Point(x=1), [Point(x=2, y=3)], None, 1.5]


def test_arguments_may_have_any_name() -> None:
    got: list[tuple[str, str, str]] = []

    @tool
    def plot(function: str, args: str, name: str) -> None:
        """Plot."""
        got.append((function, args, name))

    model = Scripted(calls(("plot", {"function": "sin", "args": "x", "name": "n"})), "Done.")
    seen = played(solo(model, agent={"tools": [plot]}))
    assert not seen.of(ToolFailed)
    assert got == [("sin", "x", "n")]


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ("text", "text"),
        (5, "5"),
        (None, "None"),
        ({"a": [1, 2]}, '{"a":[1,2]}'),
        (Point(x=1), '{"x":1,"y":0}'),
        ([Point(x=1)], '[{"x":1,"y":0}]'),
        ({"page": b"\xff"}, r"{'page': b'\xff'}"),
        (ENDLESS, "[1, [...]]"),
    ],
)
def test_a_result_is_told_as_text(result: Any, content: str) -> None:
    @tool
    def give() -> Any:
        """Give."""
        return result

    model = Scripted(calls(("give", {})), "Done.")
    seen = played(solo(model, agent={"tools": [give]}))
    assert told(model) == [content]
    assert repr(seen.one(ToolFinished).result) == repr(result)  # an endless list cannot be compared


def test_a_class_is_a_tool_too() -> None:
    class Shout(BaseTool):
        name: str = "Shout it out"
        description: str = "Shout."

        async def _run(self, what: str) -> str:
            await asyncio.sleep(0)
            return what.upper()

    model = Scripted(calls(("Shout_it_out", {"what": "hey"})), "Done.")
    solo(model, agent={"tools": [Shout()]}).kickoff()
    assert told(model) == ["HEY"]


def test_of_the_thousands_that_a_model_may_ask_for_some_dozens_run_at_once() -> None:
    at_work = most = 0

    @tool
    async def dig(at: int) -> str:
        """Dig deep."""
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        return "gold"

    model = Scripted(calls(*(("dig", {"at": place}) for place in range(2000))), "fine")
    assert str(solo(model, agent={"tools": [dig]}).kickoff()) == "fine"
    assert len([message for message in model.requests[1].messages if message["role"] == "tool"]) == 2000
    assert most == 64


def test_a_model_call_in_a_tool_is_in_the_stream() -> None:
    inner = Scripted("a deep thought").llm

    @tool
    def think() -> str:
        """Think."""
        return str(inner.call("Think"))

    seen = played(solo(Scripted(calls(("think", {})), "Done."), agent={"tools": [think]}))
    assert seen.texts == ["a", " deep", " thought", "Done."]


def test_the_deltas_of_calls_are_chunks_with_name_and_id(provider: Loopback, llm: LLM) -> None:
    provider.script(
        Reply(tool_calls=[Call("search", {"query": "terns"}, id="one"), Call("lookup", {"key": "k"}, id="two")]),
        Reply(text="Done."),
    )
    seen = played(solo(llm, agent={"tools": [search, lookup]}))
    deltas = [each for each in seen.of(StreamChunk) if each.chunk_type is StreamChunkType.TOOL_CALL]
    assert {(each.tool_call.tool_id, each.tool_call.tool_name) for each in deltas if each.tool_call} == {
        ("one", "search"),
        ("two", "lookup"),
    }
    arguments = "".join(each.content for each in deltas if each.tool_call and each.tool_call.tool_id == "one")
    assert json.loads(arguments) == {"query": "terns"}
    assert [message["content"] for message in provider.requests[1].messages if message["role"] == "tool"] == [
        "3 hits for terns",
        "value of k",
    ]


class TestTheNumberOfTurns:
    def test_the_last_turn_is_without_tools(self) -> None:
        model = Scripted(calls(("search", {"query": "a"})), calls(("search", {"query": "b"})), "My best answer.")
        assert solo(model, agent={"tools": [search], "max_iter": 3}).kickoff().raw == "My best answer."
        assert [request.may_call_tools for request in model.requests] == [True, True, False]
        # The schemas stay: some providers refuse a conversation with tool calls but without them.
        assert all(request.tools for request in model.requests)
        assert model.requests[-1].hints["tool_choice"] == "none"
        assert "Give your best answer now" in model.requests[-1].last_user_text

    def test_a_model_that_calls_tools_in_its_last_turn_too_is_an_error(self) -> None:
        model = Scripted(calls(("search", {"query": "a"})))
        with pytest.raises(RuntimeError, match=r"called tools even in its last turn \(max_iter=2\)"):
            solo(model, agent={"tools": [search], "max_iter": 2}).kickoff()
        assert len(model.requests) == 2

    def test_what_the_model_calls_in_its_last_turn_is_not_run(self) -> None:
        ran: list[str] = []

        @tool
        def act() -> None:
            """Act."""
            ran.append("once")

        with pytest.raises(RuntimeError, match="called tools even in its last turn"):
            solo(Scripted(calls(("act", {}))), agent={"tools": [act], "max_iter": 2}).kickoff()
        assert ran == ["once"]

    def test_a_single_turn_is_without_tools(self) -> None:
        model = Scripted("My only answer.")
        assert solo(model, agent={"tools": [search], "max_iter": 1}).kickoff().raw == "My only answer."
        (request,) = model.requests
        assert not request.may_call_tools
        assert request.last_user_text.startswith("Write")

    def test_a_model_without_function_calling_is_told_of_its_calls_in_words_to_the_last(self) -> None:
        fence = '```tool_call\n{"name": "search", "arguments": {"query": "a"}}\n```'
        model = Scripted([fence], "My best answer.", native=False)
        assert solo(model, agent={"tools": [search], "max_iter": 2}).kickoff().raw == "My best answer."
        assert {message["role"] for message in model.conversations[-1]} == {"system", "assistant", "user"}

    @pytest.mark.parametrize("turns", [0, -1])
    def test_no_turns_at_all_are_refused(self, turns: int) -> None:
        with pytest.raises(ValueError, match="max_iter"):
            solo(Scripted("Done."), agent={"max_iter": turns})


class TestAToolThatExits:
    """argparse, for one, ends a program that calls it amiss."""

    @pytest.mark.parametrize("is_async", [False, True])
    def test_it_is_told_to_the_model_like_any_failure(self, is_async: bool) -> None:
        model = Scripted(calls(("leave", {}), ("search", {"query": "terns"})), "Done without it.")
        seen = played(solo(model, agent={"tools": [exiting(SystemExit(3), is_async), search]}))
        assert seen.error is None
        assert told(model) == ["Error: leave raised SystemExit: 3", "3 hits for terns"]
        assert isinstance(seen.one(ToolFailed).error, SystemExit)

    @pytest.mark.parametrize("is_async", [False, True])
    def test_the_loop_that_it_runs_on_goes_on(self, is_async: bool) -> None:
        crew = solo(Scripted(calls(("leave", {})), "Done."), agent={"tools": [exiting(SystemExit(3), is_async)]})

        async def main() -> str:
            result = await crew.kickoff_async()
            await asyncio.sleep(0)
            return str(result)

        assert asyncio.run(main()) == "Done."

    @pytest.mark.parametrize("is_async", [False, True])
    def test_an_interrupt_ends_the_run_and_not_the_loop(self, is_async: bool) -> None:
        interrupt = KeyboardInterrupt("enough")
        crew = solo(Scripted(calls(("leave", {}))), agent={"tools": [exiting(interrupt, is_async)]})

        async def main() -> BaseException | None:
            try:
                await crew.kickoff_async()
            except KeyboardInterrupt as error:
                await asyncio.sleep(0)
                return error
            return None

        assert asyncio.run(main()) is interrupt
        assert played(crew).error is interrupt


class TestSomethingCancelledInATool:
    """Is a failure of that tool, as any other: nobody cancelled the run."""

    @pytest.mark.parametrize("how", ["future", "task", "raised", "in a thread", "scope", "generator"])
    def test_the_model_is_told_and_the_tools_beside_it_go_on(self, how: str) -> None:
        model = Scripted(calls(("wait", {}), ("lookup", {"key": "k"})), "Done.")
        seen = played(solo(model, agent={"tools": [waiting_for_what_was_cancelled(how), lookup]}))
        assert seen.error is None
        failure, result = told(model)
        assert failure.startswith("Error: wait raised RuntimeError: this code awaited something that was cancelled")
        assert result == "value of k"
        assert isinstance(seen.one(ToolFailed).error, RuntimeError)

    def test_a_run_that_is_cancelled_is_not_taken_for_it(self) -> None:
        begun = asyncio.Event()

        @tool
        async def wait() -> None:
            """Wait."""
            begun.set()
            await asyncio.get_running_loop().create_future()

        async def main() -> None:
            running = asyncio.create_task(solo(model, agent={"tools": [wait]}).kickoff_async())
            await begun.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        model = Scripted(calls(("wait", {})), "never asked")
        asyncio.run(main())
        assert len(model.requests) == 1


def waiting_for_what_was_cancelled(how: str) -> BaseTool:
    @tool("wait")
    async def wait() -> None:
        """Wait."""
        if how == "task":
            task = asyncio.create_task(asyncio.sleep(5))
            task.cancel()
            await task
        elif how == "future":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        elif how == "scope":
            await asyncio.gather(cancelled())
        raise asyncio.CancelledError

    @tool("wait")
    def in_thread() -> None:
        """Wait."""
        asyncio.run(cancelled())

    @tool("wait")
    async def items() -> AsyncIterator[str]:
        """Wait."""
        yield "one"
        await cancelled()

    return {"in a thread": in_thread, "generator": items}.get(how, wait)


async def cancelled() -> None:
    raise asyncio.CancelledError


def exiting(error: BaseException, is_async: bool) -> BaseTool:
    @tool
    def leave() -> str:
        """Leave."""
        raise error

    @tool("leave")
    async def leave_async() -> str:
        """Leave."""
        raise error

    return leave_async if is_async else leave


@pytest.mark.parametrize("call", [("fail", "{}"), ("nobody", "{}"), ("search", "[]"), ("search", "")])
def test_a_tool_that_fails_is_a_warning_in_the_log(call: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    @tool
    def fail() -> None:
        """Fail."""
        raise LookupError("nothing there")

    solo(Scripted(calls(call), "Done."), agent={"tools": [fail, search]}).kickoff()
    (record,) = [record for record in caplog.records if record.name == "rxflow"]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"Writer: the tool {call[0]!r} failed: ")
