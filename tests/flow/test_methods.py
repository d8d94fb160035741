"""Methods: where each kind runs, what it may return, and what a ``kickoff()`` inside it does."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
import reactivex
import trio
import trio.to_thread
from reactivex import operators as ops
from reactivex.scheduler import NewThreadScheduler

from rxflow.flow import Flow, listen, router, start
from rxflow.operators import retry_stream, text, to_output
from rxflow.testing import ScriptedLLM
from rxflow.types.events import FlowFinished, LLMFailed, LLMFinished, MethodFinished, Retracted
from rxflow.types.results import CrewOutput, UsageMetrics
from rxflow.types.streaming import FlowStreamingOutput, StreamChunk, StreamChunkType
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.spans import ranked
from tests.team import an_agent, crew_saying, solo

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


@contextmanager
def calling_as(name: str) -> Generator[None]:
    token = whose.set(name)
    try:
        yield
    finally:
        whose.reset(token)


def told_by(flow: Flow) -> list[tuple[str, str]]:
    """The content of each chunk, and the method it came from."""
    flow.stream = True
    return [(chunk.content, chunk.flow_method) for chunk in flow.kickoff()]


class Whereabouts(Flow):
    """Each method tells where it ran and whose context it saw."""

    @start()
    def sync(self) -> None:
        self.state["sync"] = (threading.get_ident(), whose.get())

    @listen(sync)
    async def on_loop(self) -> None:
        self.state["async"] = (threading.get_ident(), whose.get())

    @listen(on_loop)
    async def generator(self) -> Any:
        self.state["generator"] = (threading.get_ident(), whose.get())
        yield ""


@pytest.mark.parametrize("method", ["sync", "async", "generator"])
def test_methods_see_the_callers_context(method: str) -> None:
    flow = Whereabouts()
    with calling_as("mine"):
        flow.kickoff()
    assert flow.state[method][1] == "mine"


def test_methods_of_a_stream_see_the_context_of_its_reader() -> None:
    flow = Whereabouts(stream=True)
    with calling_as("mine"):
        list(flow.kickoff())
    assert [flow.state[method][1] for method in ("sync", "async", "generator")] == ["mine"] * 3


def test_under_asyncio_async_methods_run_on_the_callers_loop_and_sync_ones_beside_it() -> None:
    flow = Whereabouts()

    async def main() -> None:
        with calling_as("mine"):
            await flow.kickoff_async()

    asyncio.run(main())
    here = threading.get_ident()
    assert flow.state["async"] == (here, "mine")
    assert flow.state["generator"] == (here, "mine")
    assert flow.state["sync"][0] != here
    assert flow.state["sync"][1] == "mine"


def test_a_sync_method_does_not_hold_up_the_loop() -> None:
    class Waiting(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.released = threading.Event()

        @start()
        def waits(self) -> bool:
            return self.released.wait(PATIENCE_S)

    async def main() -> object:
        flow = Waiting()
        task = asyncio.create_task(flow.kickoff_async())
        await asyncio.sleep(0)
        flow.released.set()
        return await task

    assert asyncio.run(main()) is True


def test_an_async_method_finds_what_belongs_to_the_callers_loop() -> None:
    async def main() -> object:
        answers: asyncio.Queue[str] = asyncio.Queue()

        class Asking(Flow):
            @start()
            async def question(self) -> str:
                return await answers.get()

        task = asyncio.create_task(Asking().kickoff_async())
        await asyncio.sleep(0)
        answers.put_nowait("from my loop")
        return await task

    assert asyncio.run(main()) == "from my loop"


def test_a_method_may_be_a_plain_callable_that_returns_a_coroutine() -> None:
    class Wrapped(Flow):
        @start()
        def begin(self) -> Any:
            async def work() -> str:
                return "awaited"

            return work()

    assert Wrapped().kickoff() == "awaited"


def test_stop_iteration_out_of_a_method_is_an_error_like_another() -> None:
    class Stopping(Flow):
        @start()
        def begin(self) -> Any:
            return next(iter(()))

    with pytest.raises(RuntimeError, match="begin raised StopIteration"):
        Stopping().kickoff()


async def said(*texts: str) -> AsyncIterator[str]:
    for each in texts:
        yield each


class TestStopAsyncIterationOutOfAMethod:
    """As it is, it would end the reader's ``async for`` without a word."""

    class Asking(Flow):
        @start()
        async def begin(self) -> str:
            return await anext(said())

    class Raising(Flow):
        @start()
        def begin(self) -> str:
            raise StopAsyncIteration

    @pytest.mark.parametrize("flow", [Asking, Raising])
    def test_is_an_error_like_another(self, flow: type[Flow]) -> None:
        with pytest.raises(RuntimeError, match="begin raised StopAsyncIteration") as caught:
            flow().kickoff()
        assert isinstance(caught.value.__cause__, StopAsyncIteration)

    @pytest.mark.parametrize("flow", [Asking, Raising])
    def test_is_raised_out_of_the_async_for(self, flow: type[Flow]) -> None:
        async def main() -> None:
            async for _ in flow(stream=True).kickoff():
                pass

        with pytest.raises(RuntimeError, match="begin raised StopAsyncIteration"):
            asyncio.run(main())


class Conversing(Flow):
    """Says its second chunk when its first was heard."""

    stream = True

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()

    @start()
    async def tell(self) -> Any:
        yield "first"
        yield str(await asyncio.to_thread(self.heard.wait, PATIENCE_S))


class TestAsyncGenerator:
    def test_of_text_gives_chunks_of_that_method_and_the_whole_text_as_result(self) -> None:
        class Telling(Flow):
            stream = True

            @start()
            async def tell(self) -> Any:
                yield "Once "
                yield "upon"

            @listen(tell)
            async def count(self, told: str) -> int:
                return len(told)

        streaming = Telling().kickoff()
        chunks = list(streaming)
        assert [(c.content, c.chunk_type, c.flow_method) for c in chunks] == [
            ("Once ", StreamChunkType.TEXT, "tell"),
            ("upon", StreamChunkType.TEXT, "tell"),
        ]
        assert streaming.result == len("Once upon")

    def test_arrives_while_it_runs(self) -> None:
        flow = Conversing()
        chunks = iter(flow.kickoff())
        assert next(chunks).content == "first"
        flow.heard.set()
        assert [chunk.content for chunk in chunks] == ["True"]

    def test_takes_the_result_it_listens_for(self) -> None:
        class Echo(Flow):
            @start()
            def begin(self) -> str:
                return "hello"

            @listen(begin)
            async def echo(self, heard: str) -> Any:
                for letter in heard:
                    yield letter.upper()

        assert told_by(Echo()) == [(letter, "echo") for letter in "HELLO"]

    def test_that_fails_fails_the_flow_after_what_it_had_told(self) -> None:
        class Failing(Flow):
            stream = True

            @start()
            async def tell(self) -> Any:
                yield "so far"
                raise LookupError("no further")

        streaming = Failing().kickoff()
        with pytest.raises(LookupError, match="no further"):
            list(streaming)
        assert streaming.get_full_text() == "so far"

    def test_may_yield_chunks_of_the_users_own_which_get_the_methods_labels(self) -> None:
        class Labelled(Flow):
            stream = True

            @start()
            async def tell(self) -> Any:
                yield StreamChunk(content="mine", task_name="my task")
                yield "plain"

        first, second = Labelled().kickoff()
        assert (first.task_name, first.flow_method, first.flow_name) == ("my task", "tell", "Labelled")
        assert (second.content, second.seq) == ("plain", first.seq + 1)

    def test_may_end_with_an_object_which_is_its_result(self) -> None:
        class Counting(Flow):
            @start()
            async def tell(self) -> Any:
                yield "text"
                yield {"words": 1}

        assert Counting().kickoff() == {"words": 1}

    def test_may_call_a_crew_between_its_own_words(self) -> None:
        class Framed(Flow):
            @start()
            async def tell(self) -> Any:
                yield "<"
                await crew_saying("hello").kickoff_async()
                yield ">"

        assert told_by(Framed()) == [("<", "tell"), ("hello", "tell"), (">", "tell")]


class TestGenerator:
    """A method that is one, or that returns one. One of text streams; any other is a value."""

    def test_of_text_gives_chunks_of_that_method_and_the_whole_text_as_result(self) -> None:
        class Telling(Flow):
            stream = True

            @start()
            def tell(self) -> Any:
                yield "Once "
                yield "upon"

            @listen(tell)
            def count(self, told: str) -> int:
                return len(told)

        streaming = Telling().kickoff()
        assert [(c.content, c.chunk_type, c.flow_method) for c in streaming] == [
            ("Once ", StreamChunkType.TEXT, "tell"),
            ("upon", StreamChunkType.TEXT, "tell"),
        ]
        assert streaming.result == len("Once upon")

    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_of_text_may_be_returned(self, is_async: bool) -> None:
        class Returning(Flow):
            @start()
            def begin(self) -> Any:
                return (letter for letter in "ab")

        class ReturningAsync(Flow):
            @start()
            async def begin(self) -> Any:
                return (letter for letter in "ab")

        flow = ReturningAsync() if is_async else Returning()
        assert told_by(flow) == [("a", "begin"), ("b", "begin")]
        flow.stream = False
        assert flow.kickoff() == "ab"

    def test_of_text_arrives_while_it_runs(self) -> None:
        class Conversing(Flow):
            stream = True

            def __init__(self) -> None:
                super().__init__()
                self.heard = threading.Event()

            @start()
            def talk(self) -> Any:
                yield "first"
                yield str(self.heard.wait(PATIENCE_S))

        flow = Conversing()
        chunks = iter(flow.kickoff())
        assert next(chunks).content == "first"
        flow.heard.set()
        assert [chunk.content for chunk in chunks] == ["True"]

    def test_of_text_runs_in_one_thread_beside_the_loop_in_the_callers_context(self) -> None:
        class Looking(Flow):
            @start()
            def look(self) -> Any:
                yield threading.current_thread().name
                yield threading.current_thread().name
                yield whose.get()

        with calling_as("mine"):
            first, second, name = (content for content, _ in told_by(Looking()))
        assert (first == second, first != threading.current_thread().name, name) == (True, True, "mine")

    def test_of_chunks_of_the_users_own_gives_them_the_methods_labels(self) -> None:
        class Labelled(Flow):
            stream = True

            @start()
            def tell(self) -> Any:
                yield StreamChunk(content="mine", task_name="my task")
                yield "plain"

        first, second = Labelled().kickoff()
        assert (first.task_name, first.flow_method, second.content) == ("my task", "tell", "plain")

    def test_of_text_may_call_a_crew_between_its_own_words(self) -> None:
        class Framed(Flow):
            @start()
            def tell(self) -> Any:
                yield "<"
                crew_saying("hello").kickoff()
                yield ">"

        assert told_by(Framed()) == [("<", "tell"), ("hello", "tell"), (">", "tell")]

    def test_of_text_may_return_its_result(self) -> None:
        class Counting(Flow):
            @start()
            def tell(self) -> Any:
                yield "text"
                return {"words": 1}

        assert Counting().kickoff() == {"words": 1}

    def test_of_text_of_a_router_is_its_label(self) -> None:
        class Routed(Flow):
            @router()
            @start()
            def which(self) -> Any:
                yield "le"
                yield "ft"

            @listen("left")
            def end(self) -> str:
                return "ended"

        assert Routed().kickoff() == "ended"

    @pytest.mark.parametrize("after", [0, 1])
    def test_that_fails_fails_the_flow_after_what_it_had_told(self, after: int) -> None:
        class Failing(Flow):
            stream = True

            @start()
            def tell(self) -> Any:
                yield from ["so far"][:after]
                raise LookupError("no further")

        streaming = Failing().kickoff()
        with pytest.raises(LookupError, match="no further"):
            list(streaming)
        assert streaming.get_full_text() == "so far"[: after * 6]

    def test_of_text_is_closed_when_its_run_is_closed(self) -> None:
        closed = threading.Event()
        released = threading.Event()

        class Endless(Flow):
            stream = True

            @start()
            def tell(self) -> Any:
                try:
                    yield "first"
                    released.wait(PATIENCE_S)
                    while True:
                        yield "more"
                finally:
                    closed.set()

        streaming = Endless().kickoff()
        next(iter(streaming))
        streaming.close()
        released.set()
        assert closed.wait(PATIENCE_S)

    def test_of_other_things_is_the_value_that_the_listener_gets(self) -> None:
        class Rows(Flow):
            @start()
            def rows(self) -> Any:
                return (n for n in (1, 2, 3))

            @start()
            def pairs(self) -> Any:
                yield (yield 1, 2)

            @listen(rows)
            def add(self, numbers: Any) -> int:
                return sum(numbers)

            @listen(pairs)
            def send(self, pairs: Any) -> object:
                return (next(pairs), pairs.send("sent"), list(pairs))

        flow = Rows()
        flow.kickoff()
        added = [each for each in flow.method_outputs if not isinstance(each, Generator)]
        assert sorted(added, key=str) == [((1, 2), "sent", []), 6]

    def test_of_nothing_is_a_value_too(self) -> None:
        class Empty(Flow):
            @start()
            def begin(self) -> Any:
                return iter_letters("")

            @listen(begin)
            def end(self, nothing: Any) -> list[Any]:
                return list(nothing)

        assert Empty().kickoff() == []

    def test_of_nothing_gives_what_the_method_returns(self) -> None:
        def nothing() -> Any:
            yield from ()

        class Silent(Flow):
            @router()
            @start()
            def which(self) -> Any:
                yield from ()
                return "left"

            @listen("left")
            def tell(self) -> Any:
                yield from ()

            @listen(tell)
            def end(self, told: str) -> Any:
                assert told == ""
                return nothing()

        flow = Silent()
        left = flow.kickoff()
        assert flow.method_outputs == ["left", "", left]
        assert list(left) == []

    def test_of_text_may_come_from_a_function_beside_the_flow(self) -> None:
        class Wrapped(Flow):
            @start()
            def begin(self) -> Any:
                return iter_letters("ab")

        assert told_by(Wrapped()) == [("a", "begin"), ("b", "begin")]

    def test_that_is_async_may_be_returned_too(self) -> None:
        async def letters() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        async def numbers() -> AsyncIterator[int]:
            yield 1
            yield 2

        async def nothing() -> AsyncIterator[int]:
            for _ in ():
                yield 0

        class Returning(Flow):
            @start()
            def text(self) -> Any:
                return letters()

            @start()
            async def values(self) -> Any:
                return numbers()

            @start()
            async def empty(self) -> Any:
                return nothing()

            @listen(values)
            async def add(self, given: AsyncIterator[int]) -> list[int]:
                return [each async for each in given]

            @listen(empty)
            async def drain(self, given: AsyncIterator[int]) -> list[int]:
                return [each async for each in given]

        flow = Returning()
        assert told_by(flow) == [("a", "text"), ("b", "text")]
        assert "ab" in flow.method_outputs
        assert [] in flow.method_outputs
        assert [1, 2] in flow.method_outputs


def iter_letters(word: str) -> Generator[str]:
    yield from word


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


class Inner(Flow):
    @start()
    async def speak(self) -> Any:
        yield "inner"


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


class TestSyncKickoffInAnAsyncMethod:
    """It blocks the loop of its own run; it must work all the same, and say what to use."""

    def test_of_a_flow_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Inner().kickoff()

        with pytest.warns(RuntimeWarning, match=r"await .*kickoff_async\(\)") as warned:
            assert told_by(Outer()) == [("inner", "speak")]
        assert [warning.filename for warning in warned] == [__file__]

    def test_of_a_crew_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return crew_saying("hel", "lo").kickoff().raw

        flow = Outer()
        with pytest.warns(RuntimeWarning, match=r"await .*kickoff_async\(\)") as warned:
            assert told_by(flow) == [("hel", "nest"), ("lo", "nest")]
        assert flow.method_outputs == ["hello"]
        assert [warning.filename for warning in warned] == [__file__]

    def test_a_call_of_a_model_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Scripted(["hel", "lo"]).llm.call("Hello")

        with pytest.warns(RuntimeWarning, match=r"await llm\.acall\(\)") as warned:
            assert Outer().kickoff() == "hello"
        assert [warning.filename for warning in warned] == [__file__]

    def test_a_for_loop_over_a_stream_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return [chunk.content for chunk in Inner(stream=True).kickoff()]

        with pytest.warns(RuntimeWarning, match="async for") as warned:
            assert Outer().kickoff() == ["inner"]
        assert [warning.filename for warning in warned] == [__file__]

    def test_works_on_the_callers_loop_too(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return crew_saying("hello").kickoff().raw

        with pytest.warns(RuntimeWarning, match="kickoff_async"):
            assert asyncio.run(Outer().kickoff_async()) == "hello"

    def test_of_something_that_needs_a_worker_thread_works(self) -> None:
        class Inside(Flow):
            @start()
            def sync(self) -> str:
                return str(crew_saying("deep").kickoff().raw)

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Inside().kickoff()

        with pytest.warns(RuntimeWarning, match="kickoff_async"):
            assert told_by(Outer()) == [("deep", "sync")]

    def test_raises_the_error_of_what_it_ran(self) -> None:
        class Failing(Flow):
            @start()
            def begin(self) -> None:
                raise LookupError("inside")

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Failing().kickoff()

        with pytest.warns(RuntimeWarning, match="kickoff_async"), pytest.raises(LookupError, match="inside"):
            Outer().kickoff()

    def test_hurts_no_other_run(self) -> None:
        blocking, released = threading.Event(), threading.Event()

        class Blocked(Flow):
            @start()
            def wait(self) -> bool:
                blocking.set()
                return released.wait(PATIENCE_S)

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Blocked().kickoff()

        def beside_another() -> object:
            with ThreadPoolExecutor(1) as pool:
                outer = pool.submit(Outer().kickoff)
                assert blocking.wait(PATIENCE_S)
                assert told_by(Inner()) == [("inner", "speak")]
                released.set()
                return outer.result(PATIENCE_S)

        with pytest.warns(RuntimeWarning, match="kickoff_async"):
            assert beside_another() is True

    def test_with_the_warning_made_an_error_nothing_is_run(self) -> None:
        ran: list[str] = []

        class Inside(Flow):
            @start()
            def begin(self) -> None:
                ran.append("begin")

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Inside().kickoff()

        with pytest.raises(RuntimeWarning, match="kickoff_async"):
            Outer().kickoff()
        assert ran == []


class TestInANotebook:
    """A running loop in this thread, and sync calls all the same."""

    def test_sync_kickoff_gives_the_result(self) -> None:
        async def cell() -> object:
            return Whereabouts().kickoff(), Inner().kickoff(), crew_saying("hello").kickoff().raw

        assert asyncio.run(cell()) == ("", "inner", "hello")

    def test_a_for_loop_streams(self) -> None:
        async def cell() -> tuple[list[str], object]:
            streaming = Inner(stream=True).kickoff()
            return [chunk.content for chunk in streaming], streaming.result

        assert asyncio.run(cell()) == (["inner"], "inner")

    def test_async_methods_run_although_the_cells_loop_is_blocked(self) -> None:
        class Awaiting(Flow):
            @start()
            async def begin(self) -> str:
                await asyncio.sleep(0)
                return await asyncio.to_thread(lambda: "awaited")

        async def cell() -> object:
            return Awaiting().kickoff()

        assert asyncio.run(cell()) == "awaited"


class TestUnderTrio:
    """Users' coroutines are asyncio's; trio awaits the flow and reads its stream."""

    def test_kickoff_async_gives_the_result(self) -> None:
        flow = Whereabouts()

        async def main() -> None:
            with calling_as("mine"):
                await flow.kickoff_async()

        trio.run(main)
        assert [flow.state[method][1] for method in ("sync", "async", "generator")] == ["mine"] * 3

    def test_async_for_streams_while_the_flow_runs(self) -> None:
        async def main() -> None:
            flow = Conversing()
            streaming: FlowStreamingOutput = await flow.kickoff_async()
            contents: list[str] = []
            async for chunk in streaming:
                contents.append(chunk.content)
                flow.heard.set()
            assert contents == ["first", "True"]
            assert streaming.result == "firstTrue"

        trio.run(main)

    def test_an_error_is_raised(self) -> None:
        class Failing(Flow):
            @start()
            async def begin(self) -> None:
                raise LookupError("failed")

        async def main() -> None:
            with pytest.raises(LookupError, match="failed"):
                await Failing().kickoff_async()

        trio.run(main)

    def test_cancelling_the_await_cancels_the_flow(self) -> None:
        begun, stopped = threading.Event(), threading.Event()

        class Endless(Flow):
            @start()
            async def begin(self) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    stopped.set()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Endless().kickoff_async)
                assert await trio.to_thread.run_sync(partial(begun.wait, PATIENCE_S))
                nursery.cancel_scope.cancel()
            assert await trio.to_thread.run_sync(partial(stopped.wait, PATIENCE_S))

        trio.run(main)

    def test_sync_kickoff_works_too(self) -> None:
        async def main() -> object:
            return Inner().kickoff()

        assert trio.run(main) == "inner"
