"""Methods that return a stream: the Observable of a model, of a crew or of another flow."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops
from reactivex.scheduler import NewThreadScheduler

from rxflow import Crew
from rxflow.flow import Flow, listen, start
from rxflow.llm.source import ReasoningDelta
from rxflow.operators import retry_stream, text, to_output
from rxflow.runs import Runs
from rxflow.testing import ScriptedLLM
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    CrewFailed,
    CrewFinished,
    CrewStarted,
    FlowFinished,
    LLMFailed,
    LLMFinished,
    MethodFinished,
    ReasoningChunk,
    Retracted,
)
from rxflow.types.results import CrewOutput, TaskOutput, UsageMetrics
from rxflow.types.streaming import CrewStreamingOutput, EventStream
from tests.flow.callers import Inner, told_by
from tests.flow.trip import text_of
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.spans import ranked
from tests.team import a_task, an_agent, crew_saying, solo


def say_gulls(output: object) -> tuple[bool, str]:
    return True, "Gulls"


class TestObservable:
    def test_that_a_method_returns_is_merged_in(self) -> None:
        class Returning(Flow):
            stream = True

            @start()
            def begin(self) -> Any:
                return reactivex.of("a", "b")

            @listen(begin)
            def end(self, text: str) -> str:
                return text * 2

        streaming = Returning().kickoff()
        assert [(chunk.content, chunk.flow_method) for chunk in streaming] == [("a", "begin"), ("b", "begin")]
        assert streaming.result == "abab"

    def test_may_come_from_an_async_method(self) -> None:
        class Returning(Flow):
            @start()
            async def begin(self) -> Any:
                return reactivex.of("a", "b")

        assert told_by(Returning()) == [("a", "begin"), ("b", "begin")]

    def test_of_objects_gives_the_last_as_result(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return reactivex.of(1, 2, 3)

        assert Returning().kickoff() == 3

    def test_may_emit_on_a_thread_of_its_own(self) -> None:
        class Returning(Flow):
            stream = True

            @start()
            def begin(self) -> Any:
                elsewhere = NewThreadScheduler()
                return reactivex.of("a", "b", "c").pipe(ops.subscribe_on(elsewhere), ops.observe_on(elsewhere))

        streaming = Returning().kickoff()
        assert [chunk.content for chunk in streaming] == ["a", "b", "c"]
        assert streaming.result == "abc"

    def test_may_be_a_timer(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return reactivex.timer(0.001).pipe(ops.map(lambda tick: f"tick {tick}"))

        assert Returning().kickoff() == "tick 0"

    def test_that_fails_fails_the_flow(self) -> None:
        class Returning(Flow):
            stream = True

            @start()
            def begin(self) -> Any:
                failing: reactivex.Observable[str] = reactivex.throw(LookupError("no more"))
                return reactivex.concat(reactivex.of("a"), failing)

        streaming = Returning().kickoff()
        with pytest.raises(LookupError, match="no more"):
            list(streaming)
        assert streaming.get_full_text() == "a"

    def test_that_fails_with_stop_iteration_fails_the_flow(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                words = iter(["a"])
                return reactivex.of(1, 2).pipe(ops.map(lambda _: next(words)))

        seen = outcome(Returning().events())
        assert isinstance(seen.error, RuntimeError)
        assert str(seen.error) == "a nested Observable raised StopIteration"
        assert isinstance(seen.error.__cause__, StopIteration)

    def test_that_is_empty_gives_no_text(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return reactivex.empty()

        assert Returning().kickoff() == ""

    def test_of_a_crews_chunks_keeps_their_labels_and_gives_its_text(self) -> None:
        class Returning(Flow):
            stream = True

            @start()
            def begin(self) -> Any:
                return crew_saying("hel", "lo").observe()

        streaming = Returning().kickoff()
        assert [(c.content, c.agent_role, c.flow_method, rank) for c, rank in ranked(streaming)] == [
            ("hel", "Speaker", "begin", 0),
            ("lo", "Speaker", "begin", 1),
        ]
        assert streaming.result == "hello"

    def test_of_a_crews_chunks_brings_the_events_behind_them(self) -> None:
        """So whoever reads the flow knows what has ended, and what it cost, however the method shows its crew."""

        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return crew_saying("hel", "lo").observe()

        class Asking(Flow):
            @start()
            def begin(self) -> Any:
                return crew_saying("hel", "lo").kickoff()

        returning, asking = outcome(Returning().events()), outcome(Asking().events())
        assert [type(event) for event in returning.events] == [type(event) for event in asking.events]
        assert returning.one(FlowFinished).result == "hello"
        assert returning.one(FlowFinished).usage == asking.one(FlowFinished).usage != UsageMetrics()

    def test_of_a_selection_brings_them_too_and_each_once(self) -> None:
        def retried() -> Any:
            crew = solo(ScriptedLLM("one-#", "two|"), agent={"max_retry_limit": 0})
            return crew.observe().pipe(retry_stream(1))

        class Showing(Flow):
            @start()
            def begin(self) -> Any:
                return retried()

        class Hiding(Flow):
            @start()
            def begin(self) -> Any:
                return retried().pipe(text())

        for flow in Showing(), Hiding():
            said = outcome(flow.events())
            assert [said.one(kind).origin.flow_method for kind in (Retracted, LLMFailed, LLMFinished)] == ["begin"] * 3
            assert said.one(FlowFinished).result == "two"

    def test_of_another_runs_events_loses_only_what_that_run_retracted(self) -> None:
        """The first task and the refused answer of the second have the same attempt."""

        def refuse_bad(output: TaskOutput) -> tuple[bool, str]:
            return output.raw != "bad.", output.raw

        agent = an_agent(Scripted("one.", "bad.", "good."))
        tasks = [a_task(agent), a_task(agent, guardrail=refuse_bad)]
        past = outcome(Crew(agents=[agent], tasks=tasks).events()).events

        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return reactivex.from_iterable(each for each in past if isinstance(each, StreamChunk | Retracted))

        seen = outcome(Returning().events())
        assert seen.one(FlowFinished).result == text_of(seen.events) == "one.good."

    @pytest.mark.parametrize("is_selection", [False, True])
    def test_of_another_runs_events_loses_the_reasoning_that_the_run_retracted(self, is_selection: bool) -> None:
        def refuse_bad(output: TaskOutput) -> tuple[bool, str]:
            return output.raw != "bad.", output.raw

        answers = [[ReasoningDelta(f"why {word}"), word] for word in ("one.", "bad.", "good.")]
        agent = an_agent(Scripted(*answers))
        tasks = [a_task(agent), a_task(agent, guardrail=refuse_bad)]

        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return run.observe() if is_selection else run.events()

        with Runs() as runs:
            run = runs.start(Crew(agents=[agent], tasks=tasks))
            run.result()
            seen = outcome(Returning().events())
        shown: list[StreamChunk | ReasoningChunk] = []
        for event in seen.events:
            if isinstance(event, StreamChunk | ReasoningChunk):
                shown.append(event)
            elif isinstance(event, Retracted):
                shown = [each for each in shown if not event.covers(each)]
        assert [each.content for each in shown] == ["why one.", "one.", "why good.", "good."]

    def test_of_words_that_is_tried_three_times_shows_only_the_last_try(self) -> None:
        tries = iter("abc")

        def begin_try(_: object) -> reactivex.Observable[str]:
            word = next(tries)
            ending: reactivex.Observable[str] = reactivex.empty() if word == "c" else reactivex.throw(OSError("lost"))
            return reactivex.concat(reactivex.of(word), ending)

        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return reactivex.defer(begin_try).pipe(retry_stream(2))

        seen = outcome(Returning().events())
        assert seen.one(FlowFinished).result == text_of(seen.events) == "c"

    def test_of_a_crews_events_gives_its_output(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return crew_saying("hello").events()

        result = Returning().kickoff()
        assert isinstance(result, CrewOutput)
        assert result.raw == "hello"

    def test_of_a_models_chunks_gives_its_text(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return Scripted(["hel", "lo"]).llm.observe("Hello")

        assert Returning().kickoff() == "hello"

    def test_of_a_models_events_gives_its_text_too(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return Scripted(["hel", "lo"]).llm.events("Hello")

        flow = Returning()
        assert told_by(flow) == [("hel", "begin"), ("lo", "begin")]
        assert flow.method_outputs == ["hello"]

    @pytest.mark.parametrize(
        ("guardrail", "answer"),
        [("It is short", "Terns"), (say_gulls, "Gulls"), (None, "Terns")],
    )
    def test_of_an_agents_events_gives_the_answer_that_was_accepted(self, guardrail: Any, answer: str) -> None:
        def an_answer() -> Any:
            return an_agent(Scripted("Terns", '{"accepted": true}'), guardrail=guardrail).events("Name a bird")

        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return an_answer()

        class Late(Flow):
            @start()
            def begin(self) -> Any:
                seen = list(an_answer().pipe(to_output()))
                judged = [each for each in seen if isinstance(each, LLMFinished)]
                return reactivex.from_iterable([*seen, *judged])

        assert Returning().kickoff() == answer
        assert Late().kickoff() == answer

    def test_of_a_crew_that_a_callback_starts_streams_in_the_method(self) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return crew_saying("first").observe().pipe(ops.flat_map(lambda _: crew_saying("then").observe()))

        flow = Returning(stream=True)
        chunks = list(flow.kickoff())
        assert [(c.content, c.flow_method, c.task_name) for c in chunks] == [("then", "begin", "saying")]

    def test_of_another_flow_streams_through(self) -> None:
        class Returning(Flow):
            stream = True

            @start()
            def begin(self) -> Any:
                return Inner().observe()

        streaming = Returning().kickoff()
        assert [(c.content, c.flow_name, c.flow_method) for c in streaming] == [("inner", "Inner", "speak")]
        assert streaming.result == "inner"


class TestCrews:
    def test_in_a_sync_method_stream_through(self) -> None:
        class Crewed(Flow):
            @start()
            def say(self) -> Any:
                return crew_saying("hel", "lo").kickoff().raw

        flow = Crewed()
        assert told_by(flow) == [("hel", "say"), ("lo", "say")]
        assert flow.method_outputs == ["hello"]

    def test_in_an_async_method_stream_through(self) -> None:
        class Crewed(Flow):
            @start()
            async def say(self) -> Any:
                return (await crew_saying("hel", "lo").kickoff_async()).raw

        flow = Crewed()
        assert told_by(flow) == [("hel", "say"), ("lo", "say")]
        assert flow.method_outputs == ["hello"]

    def test_gathered_in_an_async_method_all_stream_through(self) -> None:
        class Crewed(Flow):
            @start()
            async def say(self) -> Any:
                crews = [crew_saying("one"), crew_saying("two"), crew_saying("three")]
                return [output.raw for output in await asyncio.gather(*(crew.akickoff() for crew in crews))]

        flow = Crewed()
        assert sorted(told_by(flow)) == [("one", "say"), ("three", "say"), ("two", "say")]
        assert flow.method_outputs == [["one", "two", "three"]]

    def test_in_a_loop_that_a_sync_method_runs_stream_through(self) -> None:
        class Crewed(Flow):
            @start()
            def say(self) -> Any:
                return asyncio.run(crew_saying("hel", "lo").kickoff_async()).raw

        flow = Crewed()
        assert told_by(flow) == [("hel", "say"), ("lo", "say")]
        assert flow.method_outputs == ["hello"]

    def test_with_stream_that_a_method_returns_stream_through_and_give_their_output(self) -> None:
        class Crewed(Flow):
            @start()
            def say(self) -> Any:
                return crew_saying("hel", "lo", stream=True).kickoff()

        flow = Crewed()
        assert told_by(flow) == [("hel", "say"), ("lo", "say")]
        assert [output.raw for output in flow.method_outputs] == ["hello"]

    def test_with_stream_that_a_method_reads_stream_through_once(self) -> None:
        class Crewed(Flow):
            @start()
            def say(self) -> Any:
                streaming = crew_saying("hel", "lo", stream=True).kickoff()
                read = [chunk.content for chunk in streaming]
                return read, streaming.result.raw

        flow = Crewed()
        assert told_by(flow) == [("hel", "say"), ("lo", "say")]
        assert flow.method_outputs == [(["hel", "lo"], "hello")]

    def test_with_stream_that_an_async_method_reads_stream_through_once(self) -> None:
        class Crewed(Flow):
            @start()
            async def say(self) -> Any:
                streaming = await crew_saying("hel", "lo", stream=True).kickoff_async()
                return [chunk.content async for chunk in streaming]

        flow = Crewed()
        assert told_by(flow) == [("hel", "say"), ("lo", "say")]
        assert flow.method_outputs == [["hel", "lo"]]

    def test_that_fail_raise_in_the_method_which_may_handle_it(self) -> None:
        class Careful(Flow):
            @start()
            def say(self) -> str:
                try:
                    return str(solo(failing).kickoff().raw)
                except LookupError as error:
                    return f"handled: {error}"

        failing = Scripted(["so ", "far", LookupError("no further")])
        flow = Careful()
        assert told_by(flow) == [("so ", "say"), ("far", "say")]
        assert flow.method_outputs == ["handled: no further"]

    def test_calls_of_a_model_stream_through_too(self) -> None:
        class Calling(Flow):
            @start()
            def by_call(self) -> Any:
                return Scripted(["hel", "lo"]).llm.call("Hello")

            @listen(by_call)
            async def by_acall(self) -> Any:
                return await Scripted(["a", "gain"]).llm.acall("Hello")

        flow = Calling()
        assert told_by(flow) == [("hel", "by_call"), ("lo", "by_call"), ("a", "by_acall"), ("gain", "by_acall")]
        assert flow.method_outputs == ["hello", "again"]

    def test_many_sync_methods_may_wait_for_their_crews_at_once(self) -> None:
        crowd = 100
        meeting = threading.Barrier(crowd)

        def wait_and_say(self: Flow) -> str:
            meeting.wait(PATIENCE_S)
            return str(crew_saying("hello").kickoff().raw)

        # More than any pool of worker threads holds: none of them may keep another from its turn.
        methods = {f"m{i}": start()(partial_method(wait_and_say)) for i in range(crowd)}
        flow_type: type[Flow] = type("Crowd", (Flow,), methods)
        flow = flow_type()
        flow.kickoff()
        assert flow.method_outputs == ["hello"] * crowd


def partial_method(function: Any) -> Any:
    """The decorators note things on the function, so each method needs one of its own."""

    def method(self: Flow) -> Any:
        return function(self)

    return method


class TestNestedFlows:
    @pytest.mark.parametrize("inner_streams", [False, True])
    def test_in_a_sync_method_stream_through(self, inner_streams: bool) -> None:
        class Outer(Flow):
            @start()
            def nest(self) -> Any:
                return Inner(stream=inner_streams).kickoff()

        flow = Outer()
        assert told_by(flow) == [("inner", "speak")]
        assert flow.method_outputs == ["inner"]

    @pytest.mark.parametrize("inner_streams", [False, True])
    def test_in_an_async_method_stream_through(self, inner_streams: bool) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return await Inner(stream=inner_streams).kickoff_async()

        flow = Outer()
        assert told_by(flow) == [("inner", "speak")]
        assert flow.method_outputs == ["inner"]

    def test_that_a_method_reads_chunk_by_chunk_stream_through_once(self) -> None:
        class Outer(Flow):
            @start()
            def nest(self) -> Any:
                return [chunk.content.upper() for chunk in Inner(stream=True).kickoff()]

        flow = Outer()
        assert told_by(flow) == [("inner", "speak")]
        assert flow.method_outputs == [["INNER"]]

    def test_say_where_they_stand(self) -> None:
        class Middle(Flow):
            @start()
            def go_in(self) -> Any:
                return Inner().kickoff()

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return await Middle().kickoff_async()

        events = signals_of(Outer().events()).items
        places = [event.origin.namespace for event in events if isinstance(event, MethodFinished)]
        outer = ("Outer", "nest")
        assert places == [(*outer, "Middle", "go_in", "Inner", "speak"), (*outer, "Middle", "go_in"), outer]

    def test_share_the_running_number_of_the_outermost(self) -> None:
        class Outer(Flow):
            stream = True

            @start()
            async def nest(self) -> Any:
                yield "before "
                await Inner().kickoff_async()
                yield " after"

        assert [(chunk.content, rank) for chunk, rank in ranked(Outer().kickoff())] == [
            ("before ", 0),
            ("inner", 1),
            (" after", 2),
        ]

    def test_raise_their_error_where_they_were_called(self) -> None:
        class Failing(Flow):
            @start()
            def begin(self) -> None:
                raise LookupError("inside")

        class Outer(Flow):
            @start()
            def nest(self) -> str:
                try:
                    return str(Failing().kickoff())
                except LookupError as error:
                    return f"handled: {error}"

        assert Outer().kickoff() == "handled: inside"


@pytest.mark.parametrize("front", [Crew.observe, Crew.events])
def test_an_output_that_a_method_reads_shows_each_event_once(front: Callable[[Crew], EventStream[Any]]) -> None:
    model = ScriptedLLM("a-#", "-b-c-|")

    class Outer(Flow):
        @start()
        def nest(self) -> str:
            output = CrewStreamingOutput(source=front(solo(model)).pipe(retry_stream(2)))
            assert "".join(chunk.content for chunk in output) == "abc"
            return str(output.result)

    seen = outcome(Outer().events())
    assert seen.one(FlowFinished).result == "bc"
    assert len(seen.of(CrewStarted)) == 2
    for kind in (CrewFailed, LLMFailed, Retracted, CrewFinished, LLMFinished):
        seen.one(kind)
