"""What type checkers infer behind the operators that share, order, measure and record."""

from pathlib import Path
from typing import Any, assert_type

from reactivex import Observable
from reactivex.scheduler import EventLoopScheduler

from rxflow import LLM, operators as ops
from rxflow.operators import from_cassette, record
from rxflow.testing import cassette
from rxflow.testing._drawing import Tape
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event
from rxflow.types.results import UsageMetrics


def chunks() -> Observable[StreamChunk]:
    return LLM("rxflow/demo").observe("hello")


def events() -> Observable[Event]:
    return LLM("rxflow/demo").events("hello")


def test_those_that_keep_the_items_keep_their_type(tmp_path: Path) -> None:
    assert_type(chunks().pipe(ops.share_log("cancel")), Observable[StreamChunk])
    assert_type(events().pipe(ops.share_log(on_zero=5)), Observable[Event])
    assert_type(chunks().pipe(ops.overflow(10)), Observable[StreamChunk])
    assert_type(chunks().pipe(ops.overflow(10, "wait", scheduler=EventLoopScheduler())), Observable[StreamChunk])
    assert_type(chunks().pipe(ops.in_graph_order(), ops.interleave_fairly()), Observable[StreamChunk])
    assert_type(events().pipe(ops.in_graph_order(), ops.text()), Observable[StreamChunk])
    assert_type(chunks().pipe(record(tmp_path / "run.cassette")), Observable[StreamChunk])


def test_figures_have_types_of_their_own() -> None:
    assert_type(chunks().pipe(ops.stats()), Observable[ops.Stats])
    assert_type(events().pipe(ops.usage()), Observable[UsageMetrics])


def test_what_is_replayed_can_be_anything() -> None:
    assert_type(from_cassette("run.cassette", 2), Observable[Any])
    assert_type(from_cassette("run.cassette", None).pipe(ops.text()), Observable[StreamChunk])


def test_a_cassette_is_a_tape(tmp_path: Path) -> None:
    path = tmp_path / "run.cassette"
    chunks().pipe(record(path)).run()
    assert assert_type(cassette(path), Tape).error is None
