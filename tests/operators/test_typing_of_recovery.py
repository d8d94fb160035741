"""What type checkers infer from the operators of time, limits and recovery, used in ``pipe``."""

from typing import Any, assert_type

import reactivex as rx
from reactivex import Observable

from rxflow import LLM, operators as ops
from rxflow.types.events import Event, Heartbeat, Retracted
from rxflow.types.streaming import StreamChunk


def apology(error: Exception) -> Observable[str]:
    return rx.of(f"sorry: {error}")


def test_operators_that_change_nothing_keep_the_type() -> None:
    llm = LLM("rxflow/demo")
    assert_type(llm.observe("Hello").pipe(ops.first_chunk_timeout(2)), Observable[StreamChunk])
    assert_type(llm.observe("Hello").pipe(ops.first_chunk_timeout(2), ops.idle_timeout(3)), Observable[StreamChunk])
    assert_type(llm.observe("Hello").pipe(ops.limit_tokens(500), ops.limit_cost(0.1)), Observable[StreamChunk])
    assert_type(llm.events("Hello").pipe(ops.limit_tokens(500, on_limit="error")), Observable[Event])
    assert_type(rx.of("a", "b").pipe(ops.idle_timeout(3)), Observable[str])


def test_those_that_add_an_event_say_so() -> None:
    llm = LLM("rxflow/demo")
    assert_type(llm.observe("Hello").pipe(ops.heartbeat(15)), Observable[StreamChunk | Heartbeat])
    assert_type(llm.observe("Hello").pipe(ops.retry_stream(2)), Observable[StreamChunk | Retracted])
    assert_type(
        llm.observe("Hello").pipe(ops.retry_stream(2, retry_on=(OSError, TimeoutError)), ops.idle_timeout(3)),
        Observable[StreamChunk | Retracted],
    )
    retrying = llm.observe("Hello").pipe(ops.retry_stream(2))
    assert_type(retrying.pipe(ops.heartbeat(15)), Observable[StreamChunk | Retracted | Heartbeat])
    assert_type(llm.events("Hello").pipe(ops.heartbeat(15)), Observable[Event])


def test_those_that_join_another_stream_join_its_type() -> None:
    llm = LLM("rxflow/demo")
    assert_type(llm.observe("Hello").pipe(ops.fallback_to(llm.observe("Hello"))), Observable[StreamChunk | Retracted])
    assert_type(llm.observe("Hello").pipe(ops.fallback_to(apology)), Observable[StreamChunk | str | Retracted])
    assert_type(llm.observe("Hello").pipe(ops.race(llm.observe("Hello"))), Observable[StreamChunk])
    assert_type(rx.of(1).pipe(ops.race(rx.of("a"), rx.of("b"))), Observable[int | str])
    assert_type(
        llm.observe("Hello").pipe(ops.first_chunk_timeout(2), ops.race(llm.observe("Hello")), ops.words()),
        Observable[StreamChunk],
    )


def test_selections_after_them_select() -> None:
    llm = LLM("rxflow/demo")
    assert_type(llm.observe("Hello").pipe(ops.retry_stream(2), ops.text()), Observable[StreamChunk])


def test_errors_say_what_they_know() -> None:
    error: Any = ops.TokenLimitExceeded("too much", 1, 2, "text")
    assert isinstance(error, ops.LimitExceeded)
    assert_type(error.text, str)
    assert_type(ops.FirstChunkTimeout(1.0, "nothing").seconds, float)
