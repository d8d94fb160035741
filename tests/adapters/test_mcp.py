"""Agents use the tools of a server over standard input and output, and MCP's own client uses flows as tools."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.server import Server
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, ElicitRequestFormParams, ElicitResult, InputRequiredResult, TextContent
from mcp_types._v2025_11_25 import PrimitiveSchemaDefinition
from pydantic import BaseModel, TypeAdapter

from rxflow import Flow, operators as ops
from rxflow._loops import Once
from rxflow.adapters import mcp
from rxflow.flow import HumanFeedbackResult, human_feedback, listen, or_, start
from rxflow.runs import Runs
from rxflow.testing import ScriptedLLM
from rxflow.tools import BaseTool
from rxflow.types.events import ToolFailed, ToolFinished, ToolProgress, ToolStarted
from tests.adapters import flows, mcp_servers
from tests.adapters.flows import of_type
from tests.gate import PATIENCE_S
from tests.screens.web_flows import AskingTwo
from tests.scripted import Scripted, calls
from tests.team import solo

ROOT = Path(__file__).parents[2]


def server(name: str) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "tests.adapters.mcp_servers", name], cwd=ROOT)


def by_name(tools: list[BaseTool]) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in tools}


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.mark.slow
def test_an_agent_uses_the_tools_of_a_server() -> None:
    model = Scripted(calls(("add", {"a": 2, "b": 3}), ("fail", {"why": "no wind"}), ("count", {})), "five")
    with mcp.connect(server("tools")) as tools:
        crew = solo(model, agent={"tools": tools})
        with crew.events().pipe(ops.to_output()) as output:
            events = list(output)
    assert {each.tool_name: each.result for each in of_type(events, ToolFinished)} == {"add": "5", "count": "three"}
    progress = of_type(events, ToolProgress)
    assert [(each.progress, each.total, each.message) for each in progress] == [
        (1, 3, "at 1"),
        (2, 3, "at 2"),
        (3, 3, "at 3"),
    ]
    (counting,) = (each for each in of_type(events, ToolStarted) if each.tool_name == "count")
    assert {each.origin.span_id for each in progress} == {counting.origin.span_id}
    (failed,) = of_type(events, ToolFailed)
    assert isinstance(failed.error, mcp.ServerError)
    assert "no wind" in str(failed.error)
    offered = {each["function"]["name"]: each["function"] for each in model.requests[0].tools}
    assert offered["add"]["description"] == "Add two numbers."
    assert offered["add"]["parameters"]["required"] == ["a", "b"]


def test_arguments_that_do_not_fit_are_the_server_s_to_refuse() -> None:
    with mcp.connect(mcp_servers.tools, only=("add",)) as (add,), pytest.raises(mcp.ServerError, match="a"):
        add.run(a="x", b=1)


def test_errors_of_the_block_pass_as_they_are() -> None:
    with pytest.raises(KeyError, match="mine"), mcp.connect(mcp_servers.tools):
        raise KeyError("mine")


def test_a_server_that_cannot_be_reached_says_why() -> None:
    with pytest.raises(Exception, match="All connection attempts failed"), mcp.connect("http://127.0.0.1:1/mcp"):
        pass
    ends = StdioServerParameters(command=sys.executable, args=["-c", "raise SystemExit(3)"])
    with pytest.raises(MCPError, match="Connection closed"), mcp.connect(ends):
        pass


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_connection_that_is_cancelled_while_it_is_made_leaves_nothing() -> None:
    program = "import time; time.sleep(1)\nfrom tests.adapters import mcp_servers\nmcp_servers.tools.run('stdio')"
    slow = StdioServerParameters(command=sys.executable, args=["-c", program], cwd=ROOT)

    def count_portals() -> int:
        return sum("portal" in each.name for each in threading.enumerate())

    def wait_for_portals(number: int) -> None:
        while count_portals() != number:
            time.sleep(0.01)

    async def run() -> None:
        before = count_portals()
        connection = mcp.connect(slow)  # kept here, as a traceback keeps it
        connecting = asyncio.ensure_future(connection.__aenter__())
        await asyncio.to_thread(wait_for_portals, before + 1)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.to_thread(wait_for_portals, before)

    asyncio.run(run())


def test_a_connection_that_is_cancelled_at_its_last_moment_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    is_made, is_cancelled = threading.Event(), threading.Event()

    class Paused(Once):
        """Lets the task be cancelled as soon as the thread that connects has taken the token."""

        def take(self) -> bool:
            taken = super().take()
            if not is_made.is_set():
                is_made.set()
                is_cancelled.wait(PATIENCE_S)
            return taken

    monkeypatch.setattr("rxflow.adapters._mcp_tools.Once", Paused)
    before = set(threading.enumerate())

    async def run() -> None:
        connection = mcp.connect(mcp_servers.tools)  # kept here, as a traceback keeps it
        connecting = asyncio.ensure_future(connection.__aenter__())
        await asyncio.to_thread(is_made.wait, PATIENCE_S)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        portals = [each for each in set(threading.enumerate()) - before if "portal" in each.name]
        is_cancelled.set()
        for each in portals:
            await asyncio.to_thread(each.join, PATIENCE_S)
        left = [each.name for each in portals if each.is_alive()]
        connection.__exit__(None, None, None)
        assert left == []

    asyncio.run(run())


def test_an_error_of_several_errors_is_not_its_own_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ExceptionGroup("the connection failed", [OSError("no route"), ValueError("no session")])

    async def fail(client: object) -> None:
        raise group

    monkeypatch.setattr("rxflow.adapters._mcp_tools.Client.__aenter__", fail)
    with pytest.raises(ExceptionGroup) as raised, mcp.connect(mcp_servers.tools):
        pass
    assert raised.value is group
    assert raised.value.__cause__ is None


def test_a_connection_that_failed_can_be_made_again() -> None:
    async def run() -> list[str]:
        connection = mcp.connect(mcp_servers.tools, only=("divide",))
        for _ in range(2):
            with pytest.raises(LookupError, match="no tool divide"):
                await connection.__aenter__()
        async with mcp.connect(mcp_servers.tools, only=("add",)) as tools:
            return [tool.name for tool in tools]

    assert asyncio.run(run()) == ["add"]


def test_a_tool_that_the_server_does_not_have() -> None:
    with pytest.raises(LookupError, match="no tool divide; it has"), mcp.connect(mcp_servers.tools, only=("divide",)):
        pass


def test_cancelling_a_run_cancels_its_call_at_the_server() -> None:
    async def run() -> None:
        async with mcp.connect(server("tools")) as given:
            tools = by_name(given)

            class Waits(Flow[dict[str, Any]]):
                @start()
                async def wait(self) -> str:
                    return str(await tools["wait"].arun())

            async with Waits().events().pipe(ops.to_output()) as output:
                async for event in output:
                    if isinstance(event, ToolProgress):
                        break  # the server has begun
            while await tools["name_stopped"].arun() != "wait":
                pass  # it has not heard of it yet

    asyncio.run(run())


def test_mcp_s_client_runs_a_flow_as_a_tool() -> None:
    notes: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        notes.append(message)

    async def run() -> Any:
        async with Client(server("flows")) as client:
            offered = {tool.name: tool for tool in (await client.list_tools()).tools}
            called = await client.call_tool("Trip", {"place": "Lisbon", "days": 3}, progress_callback=note)
            return offered, called

    offered, called = asyncio.run(run())
    assert offered["Trip"].description == "Plan a trip."
    assert sorted(offered["Trip"].input_schema["properties"]) == ["days", "place"]
    assert called.structured_content == {"plan": "3 days in Lisbon", "how": "by sea"}
    assert notes == ["plan begins", "write begins", "Writer works on: Write"]


def test_the_id_of_a_state_is_not_asked_for() -> None:
    class Numbered(BaseModel):
        id: str
        topic: str = "tides"

    class Writes(Flow[Numbered]):
        @start()
        def write(self) -> str:
            return self.state.topic

    schema = mcp.FlowTool(Writes).as_offered().input_schema
    assert list(schema["properties"]) == ["topic"]
    assert "id" not in schema.get("required", [])


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("what", ["bytes", "surrogate", "cycle"])
def test_a_result_that_json_cannot_hold_is_text(what: str, is_plain: bool) -> None:
    async def run() -> CallToolResult:
        offered = mcp.FlowTool(flows.Unencodable, input_schema={"properties": {}})
        async with Client(mcp.create_server("finds", offered)) as client:
            return await client.call_tool("Unencodable", {"what": what, "is_plain": is_plain})

    result = asyncio.run(run())
    assert not result.is_error
    text_of(result).encode()


def test_a_flow_without_a_result_returns_nothing() -> None:
    class Silent(Flow[dict[str, Any]]):
        @start()
        def tell(self) -> None:
            return None

    async def run() -> CallToolResult:
        async with Client(mcp.create_server("tells", mcp.FlowTool(Silent))) as client:
            return await client.call_tool("Silent", {})

    result = asyncio.run(run())
    assert (result.content, result.is_error) == ([], False)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("Failing", {}, "ConnectionError: line cut"),
        ("Trip", {"days": "many"}, "days"),
        ("Nothing", {}, "unknown tool: 'Nothing'"),
    ],
)
def test_an_error_is_told_to_the_client(tool: str, arguments: dict[str, Any], said: str) -> None:
    async def run() -> CallToolResult:
        async with Client(mcp_servers.create_flows()) as client:
            return await client.call_tool(tool, arguments)

    result = asyncio.run(run())
    assert result.is_error
    assert said in text_of(result)


def test_a_client_that_cancels_its_call_disposes_the_run() -> None:
    async def run() -> str:
        async with Client(mcp_servers.create_flows()) as client:
            has_begun = asyncio.Event()

            async def note(progress: float, total: float | None, message: str | None) -> None:
                if message and "Writer" in message:
                    has_begun.set()

            waiting = asyncio.create_task(client.call_tool("Waiting", {}, progress_callback=note))
            await has_begun.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            return text_of(await client.call_tool("Stopped", {}))

    assert asyncio.run(run()) == "Waiting"


@pytest.fixture(params=["legacy", "auto"], ids=["within the call", "between calls"])
def mode(request: pytest.FixtureRequest) -> str:
    """How a server asks: by a request to the client, or, from the protocol's version of 2026 on, by the result."""
    return str(request.param)


class TestQuestions:
    """MCP's elicitation: a server asks the user of its client."""

    @pytest.mark.parametrize(
        ("replies", "said"),
        [
            ([("accept", {"answer": "Ada"}), ("accept", {"approved": True})], "Ada: done, paid 40"),
            (
                [("accept", {"answer": "Ada"}), ("accept", {"approved": False, "reason": "too much"})],
                "Ada: done, not paid",
            ),
            ([("accept", {"answer": "Ada"}), ("decline", None)], "Ada: done, not paid"),
        ],
    )
    def test_the_user_of_a_client_answers(self, mode: str, replies: list[tuple[Any, Any]], said: str) -> None:
        asked, result = book(mode, replies)
        assert text_of(result) == said
        name, approval = asked
        assert name.message == "In whose name?"
        assert name.requested_schema["properties"] == {"answer": {"type": "string", "title": "Answer"}}
        assert "amount" in approval.message
        assert approval.requested_schema["required"] == ["approved"]

    @pytest.mark.parametrize("action", ["decline", "cancel"])
    def test_a_question_that_the_user_does_not_answer_is_in_the_error(self, mode: str, action: str) -> None:
        _, result = book(mode, [(action, None)])
        assert result.is_error
        assert text_of(result) == "the run waits for a person: In whose name?"

    def test_so_is_one_that_the_client_cannot_put(self, mode: str) -> None:
        async def run() -> CallToolResult:
            async with Client(mcp_servers.create_flows(), mode=mode) as client:
                return await client.call_tool("Booking", {})

        assert text_of(asyncio.run(run())) == "the run waits for a person: In whose name?"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"answer": "again"}, "again: again"),
            ({"words": "make it shorter"}, "again: make it shorter"),
            ({"answer": "approved", "words": "make it shorter"}, "again: make it shorter"),
            ({"answer": "approved", "words": ""}, "approved: approved"),
            ({}, "ValueError: the answer to 'Good?' does not fit: it is empty; answer with one of approved, again, "),
        ],
    )
    def test_the_user_chooses_an_option_or_answers_in_words(self, mode: str, content: Any, said: str) -> None:
        answer = '{"outcome": "again"}'

        class Reviewed(Flow):
            @start()
            @human_feedback("Good?", emit=["approved", "again"], llm=ScriptedLLM([answer], repeat=True))
            def write(self) -> str:
                return "a text"

            @listen(or_("approved", "again"))
            def tell(self, given: HumanFeedbackResult) -> str:
                return f"{given.outcome}: {given.feedback}"

        (asked,), result = put(mcp.create_server("reviews", mcp.FlowTool(Reviewed)), mode, [("accept", content)])
        assert text_of(result).startswith(said)
        assert bool(result.is_error) is not bool(content)
        assert asked.requested_schema["properties"]["answer"]["enum"] == ["approved", "again"]
        assert "required" not in asked.requested_schema, "a client would insist on an option"
        for each in asked.requested_schema["properties"].values():
            TypeAdapter(PrimitiveSchemaDefinition).validate_python(each)


class TestBetweenCalls:
    """From the protocol's version of 2026 on a call ends with what is asked, and is made again with the answers."""

    def test_what_is_asked_at_once_is_answered_at_once(self) -> None:
        with Runs() as runs:
            asked, result = take_trip(runs, lambda message: {"answer": f"{message}!"})
            assert runs.list() == []
        assert sorted(asked) == ["Where?", "Who?"]
        assert text_of(result) == "Where?! Who?!"

    def test_nothing_is_kept_of_a_run_whose_questions_nobody_answers(self) -> None:
        with Runs() as runs:
            _, result = take_trip(runs, lambda message: None)
            assert runs.list() == []
        assert text_of(result).startswith("the run waits for a person: ")

    def test_an_answer_to_a_run_that_was_forgotten_says_so(self) -> None:
        async def run(runs: Runs) -> tuple[InputRequiredResult, CallToolResult]:
            trips = mcp.create_server("trips", mcp.FlowTool(AskingTwo), runs=runs)
            async with Client(trips, elicitation_callback=refuse) as client:
                first = await client.session.call_tool("AskingTwo", {}, allow_input_required=True)
                assert isinstance(first, InputRequiredResult)
                for each in runs.list():
                    runs.forget(each.id)
                return first, await client.call_tool("AskingTwo", {}, request_state=first.request_state)

        with Runs() as runs:
            first, result = asyncio.run(run(runs))
        assert first.input_requests is not None
        assert result.is_error
        assert text_of(result).startswith("LookupError: ")

    def test_a_run_that_no_client_comes_back_to_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run() -> CallToolResult:
            async with Client(
                mcp.create_server("trips", mcp.FlowTool(AskingTwo)), elicitation_callback=refuse
            ) as client:
                first = await client.session.call_tool("AskingTwo", {}, allow_input_required=True)
                assert isinstance(first, InputRequiredResult)
                await client.session.call_tool("AskingTwo", {}, allow_input_required=True)
                return await client.call_tool("AskingTwo", {}, request_state=first.request_state)

        monkeypatch.setattr(mcp, "_KEEP", timedelta(microseconds=1))
        assert text_of(asyncio.run(run())).startswith("LookupError: ")

    def test_which_run_is_answered_cannot_be_made_up(self) -> None:
        async def run(runs: Runs) -> str:
            trips = mcp.create_server("trips", mcp.FlowTool(AskingTwo), runs=runs)
            async with Client(trips, elicitation_callback=refuse) as client:
                await client.session.call_tool("AskingTwo", {}, allow_input_required=True)
                (kept,) = runs.list()
                with pytest.raises(MCPError) as error:
                    await client.call_tool("AskingTwo", {}, request_state=kept.id)
                assert kept.status == "paused"
                return str(error.value)

        with Runs() as runs:
            assert "request" in asyncio.run(run(runs)).lower()


async def refuse(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="decline")


def take_trip(runs: Runs, reply: Callable[[str], Any]) -> tuple[list[str], CallToolResult]:
    """What the client's user was asked, and what became of the call."""
    asked: list[str] = []

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        content = reply(params.message)
        return ElicitResult(action="accept" if content else "decline", content=content)

    async def run() -> CallToolResult:
        trips = mcp.create_server("trips", mcp.FlowTool(AskingTwo), runs=runs)
        async with Client(trips, elicitation_callback=answer) as client:
            return await client.call_tool("AskingTwo", {})

    return asked, asyncio.run(run())


def book(mode: str, replies: list[tuple[Any, Any]]) -> tuple[list[ElicitRequestFormParams], CallToolResult]:
    return put(mcp_servers.create_flows(), mode, replies, "Booking")


def put(
    served: Server[Any], mode: str, replies: list[tuple[Any, Any]], tool: str = "Reviewed"
) -> tuple[list[ElicitRequestFormParams], CallToolResult]:
    """What the client's user was asked, and what became of the call."""
    asked: list[ElicitRequestFormParams] = []
    left = iter(replies)

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params)
        action, content = next(left)
        return ElicitResult(action=action, content=content)

    async def run() -> CallToolResult:
        async with Client(served, elicitation_callback=answer, mode=mode) as client:
            return await client.call_tool(tool, {})

    return asked, asyncio.run(run())


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tools have one name; the names are AskingTwo, AskingTwo"):
        mcp.create_server("trips", mcp.FlowTool(AskingTwo), mcp.FlowTool(AskingTwo))
