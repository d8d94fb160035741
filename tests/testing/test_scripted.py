"""A scripted model says what its script says, when it says so, and notes what it was asked."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from reactivex import operators as ops

from rxflow import LLM
from rxflow.flow import Flow, start
from rxflow.llm.source import Delta, Ending, ToolCallDelta
from rxflow.testing._diagrams import MarbleError, MarbleSyntaxError
from rxflow.testing._scripted import ScriptedLLM, Turn, UnscriptedRequest, Value, thinking, tool_call, turn
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.tools import tool
from rxflow.types.events import Event, LLMFinished, LLMRetrying, ReasoningChunk
from rxflow.types.results import UsageMetrics
from tests.signals import Outcome, outcome
from tests.team import a_crew, a_task, an_agent, solo


def timed(llm: LLM, prompt: str = "Speak") -> list[tuple[float, str]]:
    """Each chunk with its millisecond, and the end."""
    seen: list[tuple[float, str]] = []

    async def main() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def note(what: str) -> None:
            seen.append((round(loop.time() * 1000, 6), what))

        def on_error(error: Exception) -> None:
            note(f"#{error}")
            ended.set()

        def on_completed() -> None:
            note("|")
            ended.set()

        llm.observe(prompt).subscribe(lambda chunk: note(chunk.content), on_error, on_completed)
        await ended.wait()

    VirtualClock().run(main)
    return seen


def deltas(llm: ScriptedLLM, prompt: str = "Speak") -> list[Delta]:
    """What its source answers."""
    seen: list[Delta] = []

    async def main() -> None:
        ended = asyncio.Event()
        llm._source.stream(llm.request(prompt)).subscribe(seen.append, on_completed=ended.set)  # pyright: ignore[reportPrivateUsage]
        await ended.wait()

    VirtualClock().run(main)
    return seen


def finished(llm: ScriptedLLM, prompt: str = "Speak", **given: Any) -> LLMFinished:
    return outcome(llm.events(prompt, **given)).one(LLMFinished)


class TestTheScript:
    def test_says_each_item_at_its_millisecond(self) -> None:
        assert timed(ScriptedLLM("he-ll-o|")) == [(0, "he"), (3, "ll"), (6, "o"), (7, "|")]

    def test_lets_seconds_pass(self) -> None:
        assert timed(ScriptedLLM("-a 2s b|")) == [(1, "a"), (2002, "b"), (2003, "|")]

    def test_is_played_in_real_time_where_time_is_real(self) -> None:
        llm = ScriptedLLM("he-ll-o|")
        assert llm.call("Speak") == "hello"
        (call,) = llm.calls
        assert call.ended_at is not None
        assert call.ended_at - call.subscribed_at >= 0.007

    def test_names_stand_for_values_and_all_else_for_itself(self) -> None:
        values: dict[str, Value] = {"a": 'Good day.\n\n{"x": "-|#"}', "b": ["one", " two"]}
        assert [text for _, text in timed(ScriptedLLM("a-b-c|", values=values))] == [
            'Good day.\n\n{"x": "-|#"}',
            "one",
            " two",
            "c",
            "|",
        ]

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({}, "##"),
            ({"error": ValueError("no more")}, "#no more"),
            ({"values": {"#": KeyError("of values")}}, "#'of values'"),
        ],
    )
    def test_breaks_off_with_an_error(self, given: dict[str, Any], told: str) -> None:
        assert timed(ScriptedLLM("he-#", **given)) == [(0, "he"), (3, told)]

    def test_only_an_exception_breaks_off(self) -> None:
        with pytest.raises(TypeError, match="stands for an exception; values has 'text'"):
            ScriptedLLM("a#", values={"#": "text"})

    def test_an_error_has_a_class_of_its_own_where_none_was_given(self) -> None:
        with pytest.raises(MarbleError):
            ScriptedLLM("#").call("Speak")

    def test_an_error_as_a_value_breaks_off_where_it_stands(self) -> None:
        assert timed(ScriptedLLM("he-x-y|", values={"x": OSError("gone")})) == [(0, "he"), (3, "#gone")]

    def test_without_an_end_it_stays_open_until_it_is_cancelled(self) -> None:
        llm = ScriptedLLM("he-")

        async def main() -> None:
            async with asyncio.timeout(60):
                await llm.acall("Speak")

        with pytest.raises(TimeoutError):
            VirtualClock().run(main)
        (call,) = llm.calls
        assert (call.subscribed_at, call.ended_at, call.cancelled_at) == (0, None, 60)

    def test_what_cannot_be_read_is_said_when_the_model_is_made(self) -> None:
        with pytest.raises(MarbleSyntaxError, match="column 4"):
            ScriptedLLM("he|x")

    @pytest.mark.parametrize("said", [42, ["text", 42]])
    def test_what_a_model_cannot_say_is_refused(self, said: Any) -> None:
        with pytest.raises(TypeError, match=r"a model emits text, tool_call.*; got 42"):
            ScriptedLLM(said)

    def test_without_turns_it_is_never_to_be_asked(self) -> None:
        llm = ScriptedLLM()
        llm.assert_used_up()
        with pytest.raises(UnscriptedRequest, match=r"request 1 .* 0 turn\(s\)"):
            llm.call("x")
        llm.unscripted.clear()

    def test_only_turns_can_be_repeated(self) -> None:
        with pytest.raises(TypeError, match="repeat=True needs a turn"):
            ScriptedLLM(repeat=True)


class TestTurns:
    def test_answer_requests_in_their_order(self) -> None:
        llm = ScriptedLLM("one|", "two|")
        assert [llm.call("1"), llm.call("2")] == ["one", "two"]
        assert llm.prompts == ["1", "2"]
        assert [request.messages for request in llm.requests] == [
            [{"role": "user", "content": "1"}],
            [{"role": "user", "content": "2"}],
        ]

    def test_show_the_text_of_a_prompt_in_parts(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        texts = [{"type": "text", "text": text} for text in ("What is ", "this?", None)]
        llm = ScriptedLLM("one|", "two|", "three|", "four|")
        for content in ([*texts, image], [image], ["What is ", {"text": "this?"}], None):
            llm.call([{"role": "user", "content": content}])
        assert llm.prompts == ["What is this?", "", "What is this?", ""]

    def test_a_request_beyond_the_last_turn_is_an_error_that_names_it(self) -> None:
        llm = ScriptedLLM("one|")
        llm.call("1")
        with pytest.raises(
            UnscriptedRequest, match=r"request 2 to .* has no turn: the script has 1 turn.*'And then\?'"
        ):
            llm.call("And then?")
        with pytest.raises(AssertionError, match="request 2"):  # also where the code under test caught it
            llm.assert_used_up()
        llm.unscripted.clear()
        llm.assert_used_up()

    def test_can_be_repeated_for_ever(self) -> None:
        llm = ScriptedLLM("one|", "two|", repeat=True)
        assert [llm.call("x") for _ in range(5)] == ["one", "two", "one", "two", "one"]
        llm.assert_used_up()

    def test_those_left_over_are_listed(self) -> None:
        llm = ScriptedLLM("one|", "two|", tool_call("look"))
        llm.call("1")
        with pytest.raises(AssertionError, match=r"asked 1×.*\n    turn 2: two\|\n    turn 3: .*look"):
            llm.assert_used_up()
        llm.call("2")
        llm.call("3")
        llm.assert_used_up()

    def test_a_list_is_said_at_once(self) -> None:
        assert timed(ScriptedLLM(["Hello, ", "world"])) == [(0, "Hello, "), (0, "world"), (0, "|")]

    def test_an_exception_is_raised_at_once(self) -> None:
        with pytest.raises(OSError, match="gone"):
            ScriptedLLM(OSError("gone")).call("x")

    def test_subscriptions_at_the_same_time_have_turns_of_their_own(self) -> None:
        llm = ScriptedLLM("a--b|", "--c|")

        async def main() -> tuple[Any, Any]:
            first, second = await asyncio.gather(llm.acall("1"), llm.acall("2"))
            return first, second

        assert VirtualClock().run(main) == ("ab", "c")
        assert [call.ended_at for call in llm.calls] == [0.004, 0.003]

    def test_are_tried_again_where_that_was_asked_for(self) -> None:
        llm = ScriptedLLM("#", "yes|", max_retries=1)
        told = outcome(llm.events("x"))
        assert told.text == "yes"
        assert len(told.of(LLMRetrying)) == 1


class TestReasoning:
    def test_is_no_part_of_the_answer(self) -> None:
        llm = ScriptedLLM("t-so|", values={"t": thinking("Hm.")})
        told = outcome(llm.events("x"))
        assert [event.content for event in told.of(ReasoningChunk)] == ["Hm."]
        assert told.text == "so"
        assert told.one(LLMFinished).usage.reasoning_tokens == 1


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"nothing in the {where}"


class TestToolCalls:
    def test_go_out_as_providers_send_them(self) -> None:
        first, *pieces, ending = deltas(ScriptedLLM(tool_call("search", {"query": "reactive"}, id="c1")))
        assert first == ToolCallDelta(0, "c1", "search")
        assert len(pieces) > 1
        assert all(isinstance(each, ToolCallDelta) and each.id is None and each.name is None for each in pieces)
        assert "".join(each.arguments for each in pieces if isinstance(each, ToolCallDelta)) == '{"query": "reactive"}'
        assert isinstance(ending, Ending)
        assert ending.finish_reason == "tool_calls"

    def test_of_one_turn_have_indices_and_ids_of_their_own(self) -> None:
        llm = ScriptedLLM([thinking("Both."), tool_call("a"), tool_call("b", "{broken")], tool_call("c"))
        ended = finished(llm), finished(llm)
        assert [(call.name, call.arguments) for call in ended[0].tool_calls] == [("a", "{}"), ("b", "{broken")]
        ids = [call.id for each in ended for call in each.tool_calls]
        assert len(set(ids)) == 3

    def test_come_at_their_time_in_a_script(self) -> None:
        llm = ScriptedLLM("ok--t|", values={"t": tool_call("look", '{"a"}')})
        assert timed(llm) == [(0, "ok"), (4, ""), (4, '{"a"}'), (5, "|")]

    def test_are_carried_out_by_a_call(self) -> None:
        assert ScriptedLLM(tool_call("look", {"where": "north"})).call("x", tools=[look]) == "nothing in the north"

    @pytest.mark.parametrize("native", [True, False])
    def test_are_carried_out_by_an_agent(self, native: bool) -> None:
        llm = ScriptedLLM(tool_call("look", {"where": "north"}), "all-done|", function_calling=native)
        crew = solo(llm, agent={"tools": [look]})
        assert str(crew.kickoff()) == "alldone"
        assert "nothing in the north" in str(llm.requests[1].messages)


class TestUsage:
    def test_counts_deltas_and_words_so_that_sums_are_known(self) -> None:
        llm = ScriptedLLM("a-b-c|", "d|")
        usage = finished(llm, "two words").usage
        assert usage == UsageMetrics(
            prompt_tokens=2, completion_tokens=3, total_tokens=5, successful_requests=1, reasoning_tokens=0
        )
        assert finished(llm, "x").cost == 0.0

    def test_is_what_it_was_told_to_be(self) -> None:
        of_all, of_one = UsageMetrics(total_tokens=9), UsageMetrics(total_tokens=7)
        llm = ScriptedLLM("a|", turn("b|", usage=of_one, cost=0.25, finish_reason="length"), usage=of_all, cost=0.5)
        first, second = finished(llm), finished(llm)
        assert (first.usage, first.cost, first.finish_reason) == (of_all, 0.5, "stop")
        assert (second.usage, second.cost, second.finish_reason) == (of_one, 0.25, "length")

    def test_turns_can_be_values_too(self) -> None:
        llm = ScriptedLLM(turn([thinking("Hm."), "Well."], cost=2.0))
        ended = finished(llm)
        assert (ended.text, ended.cost) == ("Well.", 2.0)
        assert isinstance(turn("a|"), Turn)


class TestWhereAnLLMIs:
    def test_crews_speak_through_it(self) -> None:
        llm = ScriptedLLM("fir-st|", "sec-ond|")
        agent = an_agent(llm)
        crew = a_crew(a_task(agent, "One"), a_task(agent, "Two"))
        told: Outcome = outcome(crew.events())
        assert told.texts == ["fir", "st", "sec", "ond"]
        assert ["One" in llm.prompts[0], "Two" in llm.prompts[1]] == [True, True]

    def test_flows_run_in_virtual_time(self) -> None:
        llm = ScriptedLLM("he 1h llo|")

        class Asking(Flow):
            @start()
            async def question(self) -> Any:
                return await llm.acall("x")

        async def main() -> Any:
            return await Asking().kickoff_async()

        clock = VirtualClock()
        assert clock.run(main) == "hello"
        assert clock.now == 3600.005

    def test_cancellation_is_noted_with_its_time(self) -> None:
        llm = ScriptedLLM("a 10s b|")

        async def main() -> None:
            events: list[Event] = []
            subscription = llm.events("x").subscribe(events.append)
            await asyncio.sleep(2)
            subscription.dispose()
            await asyncio.sleep(2)

        VirtualClock().run(main)
        (call,) = llm.calls
        assert (call.cancelled_at, call.ended_at, call.error) == (2, None, None)

    def test_an_error_is_noted_with_its_time(self) -> None:
        error = ValueError("no")
        llm = ScriptedLLM("a-#", error=error)
        timed(llm)
        (call,) = llm.calls
        assert (call.cancelled_at, call.ended_at, call.error) == (None, 0.002, error)

    @pytest.mark.parametrize("script", ["(ab|)", ["a", "b"], "(ab#)"])
    def test_a_call_that_is_cancelled_in_its_last_moment_has_not_ended(self, script: Any) -> None:
        async def main() -> ScriptedLLM:
            llm = ScriptedLLM(script)
            assert len(await llm.observe("Speak").pipe(ops.take(1), ops.to_list())) == 1
            return llm

        (call,) = VirtualClock().run(main).calls
        assert (call.cancelled_at, call.ended_at, call.error) == (0, None, None)

    def test_has_the_parameters_of_an_llm(self) -> None:
        llm = ScriptedLLM("a|", temperature=0.5, model="mine")
        llm.call("x")
        assert llm.requests[0].parameters == {"temperature": 0.5}
        assert (llm.requests[0].model, repr(llm)) == ("mine", "ScriptedLLM('mine')")
        assert isinstance(llm, LLM)


def test_litellm_is_not_needed() -> None:
    code = (
        "import sys\n"
        "from rxflow.testing._scripted import ScriptedLLM\n"
        "assert ScriptedLLM('he-llo|').call('x') == 'hello'\n"
        "assert 'litellm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
