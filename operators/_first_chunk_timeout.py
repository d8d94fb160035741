"""``first_chunk_timeout``: how long the first word may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SingleAssignmentDisposable

from rxflow.operators._core.arguments import positive
from rxflow.operators._core.clock import timed
from rxflow.operators._core.lift import through
from rxflow.operators._core.places import described
from rxflow.operators._core.texts import is_said
from rxflow.operators._core.timeouts import StreamTimeout

T = TypeVar("T")


class FirstChunkTimeout(StreamTimeout):
    """Nothing was said in time."""

    _message = (
        "nothing was said within {seconds:g} s of subscribing (first_chunk_timeout); the last that was seen: {seen}"
    )


def first_chunk_timeout(
    seconds: float, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Fail where nothing has been said within ``seconds`` of the subscription, and close the provider's connection.

    A chunk ends the wait, so does a piece of reasoning, and so does an item that is not rxflow's; events about the run,
    such as ``LLMStarted``, do not. From then on it costs nothing: for silences later on there is ``idle_timeout``. A
    source that ends without a word has not run out of time. ::

        source                    S--------------a--b--|
        first_chunk_timeout(5)    S----#                   (units: s; the source is disposed at 5)

    Example::

        llm.observe("Hello").pipe(ops.first_chunk_timeout(2), ops.fallback_to(other.observe("Hello")))

    Raises:
        FirstChunkTimeout: as the stream's error; it says what had been seen.
        RuntimeError: as the stream's error: there is no clock, as no event loop runs here and no scheduler was given.
        ValueError: ``seconds`` is not above 0.
    """
    positive(seconds, "first_chunk_timeout(seconds)", "seconds")

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            running = SingleAssignmentDisposable()
            timer = SingleAssignmentDisposable()
            emit = observer.on_next
            is_waiting = True
            last: object = None

            def on_next(item: object) -> None:
                nonlocal is_waiting, last
                if is_waiting:
                    if is_said(item):
                        is_waiting = False
                        last = None
                        timer.dispose()
                    else:
                        last = item
                emit(item)

            def on_time(scheduler: SchedulerBase, state: object = None) -> None:
                running.dispose()
                observer.on_error(FirstChunkTimeout(seconds, "nothing" if last is None else described(last)))

            timer.disposable = clock.schedule_relative(seconds, on_time)
            running.disposable = source.subscribe(
                on_next, observer.on_error, observer.on_completed, scheduler=subscribed
            )
            return CompositeDisposable(running, timer)

        return timed("first_chunk_timeout", scheduler, subscribe)

    return through(operator)
