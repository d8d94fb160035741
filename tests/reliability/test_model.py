"""Outputs against a simple model of the log: random pulls, items, ends, errors, closes and readers, in any order."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rxflow import Flow, _hooks
from rxflow.flow import start
from rxflow.testing.leaks import assert_nothing_is_left
from rxflow.types.streaming import CrewStreamingOutput, FlowStreamingOutput, StreamChunk
from tests.reliability.fed import Fed
from tests.reliability.readers import Attentive, Reader, Readers, Told
from tests.team import solo

pytestmark = pytest.mark.slow

ENDS = st.sampled_from(("completes", "fails", "is closed", "is closed by a coroutine"))
MANY = 5  # readers at once
SOON = 5.0  # seconds: what does not come until then does not come
TEXT = st.text("ab é😀", min_size=1, max_size=3)
END = Told("end")
ALIKE = settings(deadline=None, report_multiple_bugs=False, phases=set(Phase) - {Phase.explain})


class Seen(Counter[str]):
    """What all examples together came to: where they hardly come to anything, they show nothing."""

    patience = SOON

    def told(self, pull: Future[Told]) -> Told:
        try:
            return pull.result(self.patience)
        except TimeoutError:
            self.patience = 0.02  # hypothesis is going to look for a shorter way to the same, many times
            raise AssertionError("a reader was not woken") from None

    def at_least(self, **expected: int) -> None:
        few = {what: self[what] for what, count in expected.items() if self[what] < count}
        assert not few, f"the examples are hollow: {few}, of {dict(self)}"


class OutputMachine(RuleBasedStateMachine):
    """The model: a list of texts, and one of the five states; a reader sees the list from its place, then the end."""

    readers = Bundle("readers")
    kinds = ("a flow with a sync method", "a flow with an async method", "a crew")

    seen: ClassVar[Seen] = Seen()

    def __init__(self) -> None:
        super().__init__()
        self.source = Fed()
        self.where = Readers()
        self.items: list[str] = []
        self.length = 0
        self.last = ""
        self.needs_an_item = False
        self.times_closed = 0
        self.state = "not started"
        self.error: Exception | None = None
        self.all_readers: list[Reader] = []
        self.present = 0
        self.output: FlowStreamingOutput | CrewStreamingOutput

    @initialize(
        target=readers,
        kind=st.sampled_from(kinds),
        first=st.lists(st.booleans(), max_size=3),
        length=st.integers(0, 6),
        last=ENDS,
    )
    def kickoff(self, kind: str, first: list[bool], length: int, last: str) -> MultipleResults[Reader]:
        """``first`` are the readers from the start, of which kind each.

        ``length`` says how many items come before an end, ``last`` how it ends at last.
        """
        self.length, self.last = length, last
        self.needs_an_item = kind == "a crew"
        llm = self.source.llm

        class Sync(Flow):
            stream = True

            @start()
            def question(self) -> Any:
                return llm.call("Hi")

        class Async(Flow):
            stream = True

            @start()
            async def question(self) -> Any:
                return await llm.acall("Hi")

        runs: dict[str, Any] = {
            "a flow with a sync method": Sync(),
            "a flow with an async method": Async(),
            "a crew": solo(llm, crew={"stream": True}),
        }
        self.output = runs[kind].kickoff()
        reading = [self.new_reader(is_async=is_async) for is_async in first]
        for reader in reading:
            self.read_on(reader)
        return multiple(*reading)

    def new_reader(self, *, is_async: bool) -> Reader:
        reader = Reader(aiter(self.output) if is_async else iter(self.output))
        self.all_readers.append(reader)
        self.present += 1
        return reader

    def pull(self, reader: Reader) -> None:
        if self.state == "not started":
            self.state = "running"
        reader.waiting = self.where.pull(reader)
        if self.state == "running" and not self.items:
            self.source.began.wait()

    def read_on(self, reader: Reader) -> None:
        """As a loop does."""
        reader.reads_on = True
        if reader.waiting is None:
            self.pull(reader)
            self.answer(reader)

    def count(self, what: str) -> None:
        """It is about to happen, to those who wait for it."""
        self.seen[what] += 1
        for reader in self.all_readers:
            if reader.waiting is not None:
                self.seen[f"{what}_wakes_{'coroutine' if reader.is_async else 'thread'}"] += 1

    @precondition(lambda self: self.present < MANY)
    @rule(target=readers, is_async=st.booleans())
    def a_reader_comes(self, is_async: bool) -> Reader:
        return self.new_reader(is_async=is_async)

    @rule(reader=readers)
    def a_reader_pulls(self, reader: Reader) -> None:
        if reader.waiting is None:
            self.pull(reader)

    @rule(reader=readers)
    def a_reader_reads_on(self, reader: Reader) -> None:
        self.read_on(reader)

    @rule(reader=readers)
    def an_async_reader_is_cancelled(self, reader: Reader) -> None:
        if reader.waiting is not None and reader.is_async:
            reader.waiting.cancel()
            reader.waiting = None
            reader.reads_on = False

    @rule(reader=consumes(readers))
    def a_reader_goes(self, reader: Reader) -> None:
        """One that waits goes on waiting."""
        self.present -= 1
        if reader.waiting is None:
            self.all_readers.remove(reader)

    @precondition(lambda self: self.state == "running")
    @rule(text=TEXT)
    def an_item_comes(self, text: str) -> None:
        self.count("item")
        self.source.feed(text)
        self.items.append(text)

    @precondition(lambda self: self.state == "running" and len(self.items) >= self.length)
    @rule(how=ENDS)
    def it_ends(self, how: str) -> None:
        self.end(how)

    def end(self, how: str) -> None:
        if how == "completes" and self.needs_an_item and not self.items:  # an empty answer is a failure
            self.source.feed("word")
            self.items.append("word")
            self.every_pull_that_can_be_answered_is()
        self.count("close" if "closed" in how else "end")
        if how == "completes":
            self.source.feed(None)
            self.state = "completed"
            self.settle(END)
        elif how == "fails":
            self.error = RuntimeError("no more")
            self.source.feed(self.error)
            self.state = "failed"
            self.settle(Told("error", self.error))
        else:
            self.close(is_async="coroutine" in how)
            self.source.left.wait()
            self.state = "cancelled"

    @precondition(lambda self: self.state != "running" and self.times_closed < 2)
    @rule(is_async=st.booleans())
    def it_is_closed_before_its_start_or_after_its_end(self, is_async: bool) -> None:
        self.close(is_async=is_async)
        if self.state == "not started":
            self.state = "cancelled"

    def close(self, *, is_async: bool) -> None:
        self.times_closed += 1
        if is_async:
            asyncio.run_coroutine_threadsafe(self.output.aclose(), self.where.loop).result(SOON)
        else:
            self.output.close()

    def settle(self, end: Told) -> None:
        """Wait for the terminal, which takes some steps of the run's loop."""
        late = Reader(iter(self.output))
        told = [self.seen.told(self.where.pull(late)) for _ in range(len(self.items) + 1)]
        assert told == [*(Told("item", text) for text in self.items), end]

    @invariant()
    def every_pull_that_can_be_answered_is(self) -> None:
        for reader in self.all_readers:
            self.answer(reader)

    def answer(self, reader: Reader) -> None:
        while reader.waiting is not None:
            if reader.position < len(self.items):
                assert self.seen.told(reader.waiting) == Told("item", self.items[reader.position])
                reader.position += 1
                reader.waiting = None
                if reader.reads_on:
                    self.pull(reader)
            elif self.state == "running":
                assert not reader.waiting.done()
                return
            else:
                end = Told("error", self.error) if self.state == "failed" else END
                assert self.seen.told(reader.waiting) == end
                reader.waiting = None

    @invariant()
    def the_output_says_what_the_model_says(self) -> None:
        if not hasattr(self, "output"):
            return
        assert [chunk.content for chunk in self.output.chunks] == self.items
        assert self.output.get_full_text() == "".join(self.items)
        assert self.output.is_cancelled == (self.state == "cancelled")
        assert self.output.is_completed == (self.state in ("completed", "failed", "cancelled"))
        assert f" {self.state}, {len(self.items)} chunks" in repr(self.output)

    @invariant()
    def its_result_is_there_after_a_good_end_only(self) -> None:
        if not hasattr(self, "output"):
            return
        if self.state == "completed":
            assert str(self.output.result) == "".join(self.items)
        elif self.state == "failed":
            with pytest.raises(RuntimeError) as raised:
                _ = self.output.result
            assert raised.value is self.error
        else:
            said = "was cancelled" if self.state == "cancelled" else "has not completed yet"
            with pytest.raises(RuntimeError, match=said):
                _ = self.output.result

    def teardown(self) -> None:
        try:
            if self.state == "running" and sys.exc_info()[0] is None:  # a step that failed is not to be covered
                for is_async in (False, True):  # both wait for the end, whoever else does
                    self.read_on(self.new_reader(is_async=is_async))
                self.end(self.last)
                self.every_pull_that_can_be_answered_is()
                self.the_output_says_what_the_model_says()
        finally:
            self.clean_up()

    def clean_up(self) -> None:
        if hasattr(self, "output"):
            self.output.close()
        if self.source.began.is_open:
            self.source.left.wait()
        self.where.close(self.seen.patience)
        assert_nothing_is_left()


class PlainMachine(RuleBasedStateMachine):
    """An output that is built from an iterator: nothing goes on while nobody pulls, and the log grows by pulls."""

    readers = Bundle("readers")
    seen: ClassVar[Seen] = Seen()

    @initialize(texts=st.lists(TEXT, max_size=6), fails=st.booleans(), length=st.integers(0, 6), is_left=st.booleans())
    def build(self, texts: list[str], fails: bool, length: int, is_left: bool) -> None:
        """It is not closed before its ``length`` was pulled; where ``is_left``, nobody comes to its end before that."""
        self.texts = texts
        self.is_left = is_left
        self.length = min(length, len(texts))
        self.fails = fails
        self.given = 0
        self.cleaned_up = 0
        self.is_cancelled = False
        self.is_ended = False

        def chunks() -> Iterator[StreamChunk]:
            try:
                for text in texts:
                    self.given += 1
                    yield StreamChunk(content=text)
                if fails:
                    raise RuntimeError("no more")
            finally:
                self.cleaned_up += 1

        self.output = FlowStreamingOutput(sync_iterator=chunks(), result="result")

    @rule(target=readers)
    def a_reader_comes(self) -> Reader:
        return Reader(iter(self.output))

    @rule(reader=readers)
    def a_reader_pulls(self, reader: Reader) -> None:
        self.pull(reader)

    @rule(reader=readers)
    def a_reader_comes_to_what_is_new(self, reader: Reader) -> None:
        while reader.position < self.given:
            self.pull(reader)
        self.pull(reader)

    def pull(self, reader: Reader) -> None:
        known = self.given if self.is_cancelled or self.is_ended else len(self.texts)
        cursor = reader.cursor
        assert isinstance(cursor, Iterator)
        if reader.position < known:
            assert next(cursor).content == self.texts[reader.position]
            reader.position += 1
            assert self.given >= reader.position
            self.seen["item"] += 1
            return
        if self.is_left and not self.output.is_completed:
            return
        self.seen["end"] += 1
        if not self.is_cancelled:
            self.is_ended = True
        if self.is_ended and self.fails:
            with pytest.raises(RuntimeError, match="no more"):
                next(cursor)
        else:
            assert next(cursor, None) is None

    @precondition(lambda self: self.given >= self.length)
    @rule()
    def it_is_closed(self) -> None:
        self.close()

    def close(self) -> None:
        if self.given and not self.output.is_completed:
            self.seen["close"] += 1
        self.output.close()
        self.is_cancelled = not self.is_ended

    @invariant()
    def the_output_says_what_the_model_says(self) -> None:
        if not hasattr(self, "output"):
            return
        assert [chunk.content for chunk in self.output.chunks] == self.texts[: self.given]
        assert self.output.is_cancelled == self.is_cancelled
        assert self.output.is_completed == (self.is_cancelled or self.is_ended)
        # A generator that was never entered has nothing to clean up.
        assert self.cleaned_up <= (1 if self.is_cancelled or self.is_ended else 0)
        assert self.cleaned_up == 1 or not self.given or not self.output.is_completed

    def teardown(self) -> None:
        if hasattr(self, "output") and sys.exc_info()[0] is None:
            self.close()
            self.the_output_says_what_the_model_says()


@pytest.mark.timeout(90)  # where it fails, the shortest example is looked for
def test_outputs_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hooks, "loop_factory", Attentive)
    seen = OutputMachine.seen = Seen()
    run_state_machine_as_test(OutputMachine, settings=settings(ALIKE, max_examples=120, stateful_step_count=40))
    # A third of the least that hundreds of runs of this test have seen, or less.
    seen.at_least(item=90, item_wakes_thread=50, item_wakes_coroutine=20)
    seen.at_least(end=10, end_wakes_thread=10, end_wakes_coroutine=10)
    seen.at_least(close=5, close_wakes_thread=5, close_wakes_coroutine=5)


def test_outputs_of_iterators() -> None:
    seen = PlainMachine.seen = Seen()
    run_state_machine_as_test(PlainMachine, settings=settings(ALIKE, max_examples=100, stateful_step_count=20))
    seen.at_least(item=30, end=20, close=2)
