"""Methods that are generators: what they yield is text of the stream, if it begins with text."""

import threading
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

from rxflow.flow import Flow, listen, router, start
from rxflow.types.events import FlowFinished
from rxflow.types.streaming import StreamChunk, StreamChunkType
from tests.flow.callers import Conversing, calling_as, told_by, whose
from tests.gate import PATIENCE_S
from tests.signals import outcome
from tests.team import crew_saying


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

    def test_of_other_things_runs_to_its_end_and_gives_the_last(self) -> None:
        done: list[str] = []

        class Rows(Flow):
            @start()
            async def rows(self) -> Any:
                try:
                    yield {"row": 1}
                    yield {"row": 2}
                    done.append("all")
                finally:
                    done.append("closed")

        assert Rows().kickoff() == {"row": 2}
        assert done == ["all", "closed"]

    def test_of_nothing_gives_no_text(self) -> None:
        class Silent(Flow):
            @start()
            async def tell(self) -> Any:
                for _ in range(0):
                    yield "never"

        assert Silent().kickoff() == ""

    def test_may_call_a_crew_between_its_own_words(self) -> None:
        class Framed(Flow):
            @start()
            async def tell(self) -> Any:
                yield "<"
                await crew_saying("hello").kickoff_async()
                yield ">"

        assert told_by(Framed()) == [("<", "tell"), ("hello", "tell"), (">", "tell")]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_generator_of_events_gives_their_result(is_async: bool) -> None:
    past = outcome(crew_saying("hel", "lo").events()).events

    def tell(self: Any) -> Any:
        yield from past

    async def tell_async(self: Any) -> Any:
        for event in past:
            yield event

    class Retelling(Flow):
        begin = start()(tell_async if is_async else tell)

    seen = outcome(Retelling().events())
    assert seen.texts == ["hel", "lo"]
    assert seen.one(FlowFinished).result.raw == "hello"


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
