"""Streams that ``fallback_to`` and ``race`` join to a run: one stream, with one terminal."""

from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, operators as rxops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow import Flow, operators as ops
from rxflow.flow import start
from rxflow.operators._core.in_run import through
from rxflow.testing import ScriptedLLM
from rxflow.types.chunks import StreamChunk
from tests.signals import signals_of

FAULT = ValueError("a mistake in an operator")


def failing() -> Observable[Any]:
    return ScriptedLLM("#").observe("Hello")


def silent() -> Observable[Any]:
    return ScriptedLLM("-").observe("Hello")


def other() -> Observable[Any]:
    return ScriptedLLM(["a", "b", "c"]).observe("Hello")


def piped() -> Observable[Any]:
    """A run, but around it an operator of RxPY, so that it does not look like one."""
    return other().pipe(rxops.do_action(lambda _: None))


def raises_at_b(source: Observable[Any]) -> Observable[Any]:
    """An operator with a mistake: RxPY's own would make an error signal of what is raised in them."""

    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        def on_next(item: object) -> None:
            if isinstance(item, StreamChunk) and item.content == "b":
                raise FAULT
            observer.on_next(item)

        return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)


JOINED = pytest.mark.parametrize("joined", [other, piped], ids=["run", "piped run"])


@JOINED
class TestAnOperatorBehindThatRaisesEndsTheStream:
    def test_behind_a_fallback(self, joined: Callable[[], Observable[Any]]) -> None:
        said = signals_of(failing().pipe(ops.fallback_to(joined()), through(raises_at_b)))
        assert ([str(each) for each in said.items], said.errors) == (["a"], [FAULT])

    def test_behind_a_race(self, joined: Callable[[], Observable[Any]]) -> None:
        said = signals_of(silent().pipe(ops.race(joined()), through(raises_at_b)))
        assert ([str(each) for each in said.items], said.errors) == (["a"], [FAULT])

    def test_in_a_method(self, joined: Callable[[], Observable[Any]]) -> None:
        class Falling(Flow):
            @start()
            def work(self) -> Observable[Any]:
                return failing().pipe(ops.fallback_to(joined()), through(raises_at_b))

        said = signals_of(Falling().observe())
        assert ([str(each) for each in said.items], said.errors) == (["a"], [FAULT])


def test_sentences_join_as_chunks_and_an_operator_behind_that_raises_ends_the_stream() -> None:
    said = signals_of(failing().pipe(ops.fallback_to(rx.of("a", "b", "c")), through(raises_at_b)))
    assert ([str(each) for each in said.items], said.errors) == (["a"], [FAULT])
