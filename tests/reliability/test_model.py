"""Outputs against a simple model of the log: random pulls, items, ends, errors, closes and readers, in any order."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from rxflow import Flow
from rxflow.flow import start
from rxflow.testing.leaks import assert_nothing_is_left
from rxflow.types.streaming import CrewStreamingOutput, FlowStreamingOutput, StreamChunk
from tests.reliability.fed import Fed
from tests.reliability.readers import Reader, Readers, Told
from tests.team import solo

SOON = 5.0  # seconds: what does not come until then does not come
TEXT = st.text("ab é😀", min_size=1, max_size=3)
END = Told("end")


class OutputMachine(RuleBasedStateMachine):
    """The model: a list of texts, and one of the five states; a reader sees the list from its place, then the end."""

    readers = Bundle("readers")
    kinds = ("a flow with a sync method", "a flow with an async method", "a crew")

    def __init__(self) -> None:
        super().__init__()
        self.source = Fed()
        self.where = Readers()
        self.items: list[str] = []
        self.state = "not started"
        self.error: Exception | None = None
        self.all_readers: list[Reader] = []
        self.output: FlowStreamingOutput | CrewStreamingOutput

    @initialize(kind=st.sampled_from(kinds))
    def kickoff(self, kind: str) -> None:
        llm = self.source.llm

        class Sync(Flow):
            stream = True

            @start()
            def ask(self) -> Any:
                return llm.call("Hi")

        class Async(Flow):
            stream = True

            @start()
            async def ask(self) -> Any:
                return await llm.acall("Hi")

        runs: dict[str, Any] = {
            "a flow with a sync method": Sync(),
            "a flow with an async method": Async(),
            "a crew": solo(llm, crew={"stream": True}),
        }
        self.output = runs[kind].kickoff()

    @rule(target=readers, is_async=st.booleans())
    def a_reader_comes(self, is_async: bool) -> Reader:
        reader = Reader(aiter(self.output) if is_async else iter(self.output))
        self.all_readers.append(reader)
        return reader

    @rule(reader=readers)
    def a_reader_pulls(self, reader: Reader) -> None:
        if reader.waiting is not None:
            return
        if self.state == "not started":
            self.state = "running"
        reader.waiting = self.where.pull(reader)
        if self.state == "running" and not self.items:
            self.source.began.wait()

    @rule(reader=readers)
    def an_async_reader_is_cancelled(self, reader: Reader) -> None:
        if reader.waiting is not None and not isinstance(reader.cursor, Iterator):
            reader.waiting.cancel()
            reader.waiting = None

    @rule(reader=consumes(readers))
    def a_reader_goes(self, reader: Reader) -> None:
        if reader.waiting is None:
            self.all_readers.remove(reader)

    @precondition(lambda self: self.state == "running")
    @rule(text=TEXT)
    def an_item_comes(self, text: str) -> None:
        self.source.feed(text)
        self.items.append(text)

    @precondition(lambda self: self.state == "running")
    @rule()
    def it_completes(self) -> None:
        self.source.feed(None)
        self.state = "completed"
        self.settle(END)

    @precondition(lambda self: self.state == "running")
    @rule(words=TEXT)
    def it_fails(self, words: str) -> None:
        self.error = RuntimeError(words)
        self.source.feed(self.error)
        self.state = "failed"
        self.settle(Told("error", self.error))

    @rule(is_async=st.booleans(), times=st.integers(1, 2))
    def it_is_closed(self, is_async: bool, times: int) -> None:
        for _ in range(times):
            if is_async:
                asyncio.run_coroutine_threadsafe(self.output.aclose(), self.where.loop).result(SOON)
            else:
                self.output.close()
        if self.state == "running":
            self.source.left.wait()
        if self.state in ("not started", "running"):
            self.state = "cancelled"

    def settle(self, end: Told) -> None:
        """Wait for the terminal, which takes some steps of the run's loop."""
        late = Reader(iter(self.output))
        told = [self.where.pull(late).result(SOON) for _ in range(len(self.items) + 1)]
        assert told == [*(Told("item", text) for text in self.items), end]

    @invariant()
    def every_pull_that_can_be_answered_is(self) -> None:
        for reader in self.all_readers:
            if reader.waiting is None:
                continue
            if reader.position < len(self.items):
                assert reader.waiting.result(SOON) == Told("item", self.items[reader.position])
                reader.position += 1
            elif self.state == "running":
                assert not reader.waiting.done()
                continue
            else:
                end = Told("error", self.error) if self.state == "failed" else END
                assert reader.waiting.result(SOON) == end
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
        if hasattr(self, "output"):
            self.output.close()
        if self.source.began.is_open:
            self.source.left.wait()
        self.where.close()
        assert_nothing_is_left()


class PlainMachine(RuleBasedStateMachine):
    """An output that is built from an iterator: nothing goes on while nobody pulls, and the log grows by pulls."""

    readers = Bundle("readers")

    @initialize(texts=st.lists(TEXT, max_size=6), fails=st.booleans())
    def build(self, texts: list[str], fails: bool) -> None:
        self.texts = texts
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
        known = self.given if self.is_cancelled or self.is_ended else len(self.texts)
        cursor = reader.cursor
        assert isinstance(cursor, Iterator)
        if reader.position < known:
            assert next(cursor).content == self.texts[reader.position]
            reader.position += 1
            assert self.given >= reader.position
            return
        if not self.is_cancelled:
            self.is_ended = True
        if self.is_ended and self.fails:
            with pytest.raises(RuntimeError, match="no more"):
                next(cursor)
        else:
            assert next(cursor, None) is None

    @rule()
    def it_is_closed(self) -> None:
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


TestOutput = OutputMachine.TestCase
TestOutput.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPlain = PlainMachine.TestCase
TestPlain.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
