"""``first_chunk_timeout``: a limit for the time to the first chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SingleAssignmentDisposable
from reactivex.typing import RelativeTime

from rxflow.operators._core.checks import to_seconds
from rxflow.operators._core.in_run import through
from rxflow.operators._core.items import describe, is_content
from rxflow.operators._core.timing import StreamTimeout, create_timed

T = TypeVar("T")


class FirstChunkTimeout(StreamTimeout):
    """The first chunk did not arrive in time."""

    _message = "no chunk within {seconds:g} s of subscribing (first_chunk_timeout); the last item: {seen}"


def first_chunk_timeout(
    seconds: RelativeTime, *, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Fail if no chunk arrives within ``seconds`` of the subscription (like ``timeout``), and close the connection.

    ``seconds`` is a number or a timedelta. A chunk ends the wait; so does reasoning, and so does an item that is not
    rxflow's. Events about the run, such as ``LLMStarted``, do not. For later silences there is ``idle_timeout``. A
    source that completes without a chunk has not exceeded the limit. ::

        source                    S--------------a--b--|
        first_chunk_timeout(5)    S----#                   (units: s; the source is disposed at 5)

    Example::

        llm.observe("Hello").pipe(ops.first_chunk_timeout(2), ops.fallback_to(other.observe("Hello")))

    Raises:
        FirstChunkTimeout: as the stream's error; it names the last item.
        RuntimeError: as the stream's error: no event loop runs here, and no scheduler was given.
        ValueError: ``seconds`` is not above 0.
    """
    limit = to_seconds(seconds, "first_chunk_timeout(seconds)")

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
                    if is_content(item):
                        is_waiting = False
                        last = None
                        timer.dispose()
                    else:
                        last = item
                emit(item)

            def on_time(scheduler: SchedulerBase, state: object = None) -> None:
                running.dispose()
                observer.on_error(FirstChunkTimeout(limit, "nothing" if last is None else describe(last)))

            timer.disposable = clock.schedule_relative(limit, on_time)
            running.disposable = source.subscribe(
                on_next, observer.on_error, observer.on_completed, scheduler=subscribed
            )
            return CompositeDisposable(running, timer)

        return create_timed("first_chunk_timeout", scheduler, subscribe)

    return through(operator)
