"""Results of tools: what goes back to the model, and what is in the stream."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from rxflow.llm.source import Ending
from rxflow.tools import BaseTool, tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import ToolFailed, ToolFinished, ToolStarted
from rxflow.types.results import TaskOutput
from tests.crew.test_tools_of_agents import search, told
from tests.scripted import Scripted, calls
from tests.team import a_crew, a_task, an_agent, played, solo


def test_a_tool_may_return_the_stream_of_a_crew() -> None:
    inner = solo(Scripted("inner text"), agent={"role": "Inner"}, crew={"stream": True})

    @tool
    def ask() -> Any:
        """Ask the others."""
        return inner.kickoff()

    model = Scripted(calls(("ask", {})), "Done.")
    seen = played(solo(model, agent={"tools": [ask]}))
    assert told(model) == ["inner text"]
    assert seen.one(ToolFinished).result.raw == "inner text"
    assert [(chunk.content, chunk.agent_role) for chunk in seen.of(StreamChunk) if chunk.content][1:] == [
        ("inner", "Inner"),
        (" text", "Inner"),
        ("Done.", "Writer"),
    ]


def test_the_answer_of_a_crew_in_a_tool_is_told_as_its_text() -> None:
    inner = solo(Scripted("inner text"))

    @tool
    def ask() -> Any:
        """Ask the others."""
        return inner.kickoff()

    model = Scripted(calls(("ask", {})), "Done.")
    solo(model, agent={"tools": [ask]}).kickoff()
    assert told(model) == ["inner text"]


def test_a_result_that_cannot_be_told_is_a_failure_of_the_tool() -> None:
    class Odd:
        def __str__(self) -> str:
            raise LookupError("no words")

    @tool
    def give() -> Any:
        """Give."""
        return Odd()

    model = Scripted(calls(("give", {})), "Done.")
    seen = played(solo(model, agent={"tools": [give]}))
    assert told(model) == ["Error: give raised LookupError: no words"]
    assert seen.one(ToolFailed).tool_name == "give"


def test_uses_are_counted_over_runs_until_they_are_reset() -> None:
    @tool(max_usage_count=1)
    def once() -> str:
        """Works once."""
        return "worked"

    model = Scripted(*(turn for _ in range(3) for turn in (calls(("once", {})), "Done.")))
    crew = solo(model, agent={"tools": [once]})
    crew.kickoff()
    crew.kickoff()
    once.reset_usage_count()
    crew.kickoff()
    assert told(model, 1) == told(model, 5) == ["worked"]
    assert "has been used max_usage_count=1 times" in told(model, 3)[0]


AGAIN = "Call it again with all of them as one JSON object, {} for none."


class TestArgumentsThatDidNotArrive:
    """Never become a call with defaults that nobody gave."""

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_the_model_is_told(self, text: str) -> None:
        ran: list[str] = []

        @tool
        def look(city: str = "?") -> str:
            """Look."""
            ran.append(city)
            return f"seen {city}"

        model = Scripted(calls(("look", text)), calls(("look", "{}")), "Done.")
        seen = played(solo(model, agent={"tools": [look]}))
        assert told(model, 2) == [
            f"Error: the arguments of look did not arrive. {AGAIN}",
            "seen ?",
        ]
        assert "did not arrive" in str(seen.one(ToolFailed).error)
        assert ran == ["?"]

    def test_a_tool_that_takes_anything_is_not_called_without_them(self) -> None:
        @tool
        def note(**facts: Any) -> str:
            """Note."""
            return str(facts)

        model = Scripted(calls(("note", "")), "Done.")
        solo(model, agent={"tools": [note]}).kickoff()
        assert "did not arrive" in told(model)[0]

    def test_a_tool_without_parameters_needs_none(self) -> None:
        @tool
        def now() -> str:
            """The time."""
            return "noon"

        model = Scripted(calls(("now", "")), "Done.")
        solo(model, agent={"tools": [now]}).kickoff()
        assert told(model) == ["noon"]


class TestWhatGoesBack:
    """Providers read their history, and refuse all of it for one call that is not as they write them."""

    @pytest.mark.parametrize(
        "text", ['{"query": "Os', "[1]", "null", "5", "words", '{"query": NaN}', '{"query": "\n"}', '{"query": "a"},']
    )
    def test_arguments_that_are_not_an_object_go_back_inside_one(self, text: str) -> None:
        model = Scripted(calls(("search", text)), "Done.")
        assert solo(model, agent={"tools": [search]}).kickoff().raw == "Done."
        (call,) = model.conversations[1][-2]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"invalid_arguments": text}

    @pytest.mark.parametrize("text", ['{"query": "a"}', ' {"query": "a", "limit": 1e400}', '{"unknown": {}}'])
    def test_an_object_goes_back_as_it_is(self, text: str) -> None:
        model = Scripted(calls(("search", text)), "Done.")
        solo(model, agent={"tools": [search]}).kickoff()
        (call,) = model.conversations[1][-2]["tool_calls"]
        assert call["function"]["arguments"] == text

    @pytest.mark.parametrize(("name", "back"), [("", "unnamed"), ("web.search now", "web_search_now")])
    def test_a_name_that_the_model_made_up_goes_back_in_letters_that_providers_take(self, name: str, back: str) -> None:
        model = Scripted(calls((name, "{}")), "Done.")
        solo(model, agent={"tools": [search]}).kickoff()
        asking, answered = model.conversations[1][-2:]
        assert asking["tool_calls"][0]["function"]["name"] == answered["name"] == back


class Counting:
    """A tool that notes its calls."""

    def __init__(self, **given: Any) -> None:
        self.calls: list[str] = []

        @tool("look", **given)
        def look(city: str, n: int = 0) -> str:
            """Look."""
            self.calls.append(city)
            if city == "Atlantis":
                raise LookupError("lost")
            return f"seen {city}"

        self.tool = look


def looking(*turns: Sequence[str]) -> list[Any]:
    """Turns of calls, by city, and an answer."""
    return [*(calls(*(("look", {"city": city}) for city in turn)) for turn in turns), "Done."]


class TestEqualCalls:
    """Are carried out once in a run, as CrewAI 1.15.1 does it."""

    @pytest.mark.parametrize("turns", [(["Oslo"], ["Riga"], ["Oslo"]), (["Oslo", "Riga", "Oslo"],)])
    def test_the_second_gets_the_result_of_the_first(self, turns: tuple[list[str], ...]) -> None:
        look = Counting()
        model = Scripted(*looking(*turns))
        seen = played(solo(model, agent={"tools": [look.tool]}))
        assert sorted(look.calls) == ["Oslo", "Riga"]
        assert told(model, len(turns)) == ["seen Oslo", "seen Riga", "seen Oslo"]
        assert (len(seen.of(ToolStarted)), len(seen.of(ToolFinished))) == (3, 3)
        assert look.tool.current_usage_count == 2

    def test_equal_is_what_says_the_same(self) -> None:
        look = Counting()
        model = Scripted(
            calls(
                ("look", '{"city": "Oslo", "n": 1}'), ("look", '{ "n":1,"city":"Oslo" }'), ("look", '{"city": "Oslo"}')
            ),
            "Done.",
        )
        solo(model, agent={"tools": [look.tool]}).kickoff()
        assert len(look.calls) == 2

    @pytest.mark.parametrize(("crew", "agent"), [({"cache": False}, {}), ({}, {"cache": False})])
    def test_not_if_the_crew_or_the_agent_says_so(self, crew: dict[str, Any], agent: dict[str, Any]) -> None:
        look = Counting()
        model = Scripted(*looking(["Oslo"], ["Oslo"]))
        solo(model, agent={"tools": [look.tool], **agent}, crew=crew).kickoff()
        assert look.calls == ["Oslo", "Oslo"]

    def test_a_call_that_failed_is_tried_again(self) -> None:
        look = Counting()
        solo(Scripted(*looking(["Atlantis", "Atlantis"], ["Atlantis"])), agent={"tools": [look.tool]}).kickoff()
        assert look.calls == ["Atlantis"] * 3

    def test_the_tool_may_decide_by_arguments_and_result(self) -> None:
        look, asked = Counting(), list[tuple[Any, Any]]()

        def may_keep(arguments: Any, result: Any) -> bool:
            asked.append((arguments, result))
            return bool(result == "seen Riga")

        look.tool.cache_function = may_keep
        solo(Scripted(*looking(["Oslo"], ["Riga"], ["Oslo"], ["Riga"])), agent={"tools": [look.tool]}).kickoff()
        assert look.calls == ["Oslo", "Riga", "Oslo"]
        assert asked == [({"city": city}, f"seen {city}") for city in look.calls]

    @pytest.mark.parametrize("cache", [True, False])
    def test_a_cache_function_that_fails_fails_no_call(self, cache: bool, caplog: pytest.LogCaptureFixture) -> None:
        look, asked = Counting(), list[Any]()

        def may_keep(arguments: Any, result: Any) -> bool:
            asked.append(result)
            raise LookupError("lost")

        look.tool.cache_function = may_keep
        model = Scripted(*looking(["Oslo"], ["Oslo"]))
        seen = played(solo(model, agent={"tools": [look.tool], "cache": cache}))
        assert told(model, 2) == ["seen Oslo", "seen Oslo"]
        assert (look.calls, len(seen.of(ToolFinished))) == (["Oslo", "Oslo"], 2)
        assert asked == (["seen Oslo"] * 2 if cache else [])
        assert caplog.text.count("the cache_function of 'look' failed: LookupError: lost") == len(asked)

    def test_a_tool_that_is_used_up_does_not_answer_from_what_it_said(self) -> None:
        look = Counting(max_usage_count=1)
        model = Scripted(*looking(["Oslo"], ["Oslo"]))
        solo(model, agent={"tools": [look.tool]}).kickoff()
        assert "has been used max_usage_count=1 times" in told(model, 2)[1]

    def test_the_agents_of_a_crew_share_results_and_other_tools_of_that_name_do_not(self) -> None:
        shared, other = Counting(), Counting()
        turns = looking(["Oslo"])
        crew = a_crew(
            a_task(an_agent(Scripted(*turns), "A", tools=[shared.tool])),
            a_task(an_agent(Scripted(*turns), "B", tools=[shared.tool])),
            a_task(an_agent(Scripted(*turns), "C", tools=[other.tool])),
        )
        crew.kickoff()
        assert (shared.calls, other.calls) == (["Oslo"], ["Oslo"])

    def test_a_run_begins_without_them(self) -> None:
        look = Counting()
        model = Scripted(*looking(["Oslo"]), *looking(["Oslo"]))
        crew = solo(model, agent={"tools": [look.tool]})
        crew.kickoff()
        crew.kickoff()
        assert look.calls == ["Oslo", "Oslo"]

    def test_an_agent_by_itself_has_them_too(self) -> None:
        look = Counting()
        agent = an_agent(Scripted(*looking(["Oslo"], ["Oslo"])), tools=[look.tool])
        assert agent.kickoff("Where?").raw == "Done."
        assert look.calls == ["Oslo"]


def test_a_run_uses_the_async_twin_of_a_tool() -> None:
    class Twin(BaseTool):
        name: str = "twin"
        description: str = "Two ways."

        def _run(self, u: str) -> str:
            return f"sync {u}"

        async def _arun(self, u: str) -> str:
            await asyncio.sleep(0)
            return f"async {u}"

    model = Scripted(calls(("twin", {"u": "x"})), "Done.")
    solo(model, agent={"tools": [Twin()]}).kickoff()
    assert told(model) == ["async x"]
    blocking = Scripted(calls(("twin", {"u": "x"})))
    assert blocking.llm.call("?", [Twin()]) == "sync x"
    assert asyncio.run(blocking.llm.acall("?", [Twin()])) == "async x"


@pytest.mark.parametrize("is_async", [False, True])
def test_the_items_of_a_generator_are_its_result(is_async: bool) -> None:
    @tool("rows")
    def rows() -> Iterator[str]:
        """Rows."""
        assert threading.current_thread() is not threading.main_thread()
        yield from ("north", "south")

    @tool("rows")
    async def async_rows() -> AsyncIterator[str]:
        """Rows."""
        yield "north"
        await asyncio.sleep(0)
        yield "south"

    made = async_rows if is_async else rows
    model = Scripted(calls(("rows", {})), "Done.")
    seen = played(solo(model, agent={"tools": [made]}))
    assert told(model) == ['["north","south"]']
    assert seen.one(ToolFinished).result == ["north", "south"]
    assert asyncio.run(Scripted(calls(("rows", {}))).llm.acall("?", [made])) == ["north", "south"]


def test_an_async_generator_is_closed_with_its_run() -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    @tool
    async def rows() -> AsyncIterator[int]:
        """Rows."""
        try:
            yield 1
            begun.set()
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    async def main() -> None:
        running = asyncio.create_task(solo(Scripted(calls(("rows", {}))), agent={"tools": [rows]}).kickoff_async())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert closed.is_set()

    asyncio.run(main())


def test_what_a_model_thought_goes_back_with_its_calls_and_its_answers() -> None:
    thought = {"reasoning_content": "Hm.", "thinking_blocks": [{"type": "thinking", "signature": "s"}]}
    model = Scripted(
        [*calls(("search", {"query": "terns"})), Ending("tool_calls", message=thought)],
        ["Too long", Ending("stop", message=thought)],
        "Fine",
    )
    verdicts = iter([(False, "shorter"), (True, "Fine")])

    def judge(output: TaskOutput) -> tuple[bool, Any]:
        return next(verdicts)

    solo(model, agent={"tools": [search]}, guardrail=judge).kickoff()
    asking, _, answered, _ = model.conversations[2][-4:]
    assert {name: asking[name] for name in thought} == thought
    assert asking["tool_calls"][0]["function"] == {"name": "search", "arguments": '{"query": "terns"}'}
    assert answered == {"role": "assistant", "content": "Too long", **thought}
