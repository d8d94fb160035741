"""``from_log``: reads the events of a run from a log."""

from __future__ import annotations

from rxflow._streaming import Emitter, EventStream, from_coroutine
from rxflow.operators._core.log_reader import read_log
from rxflow.operators._core.run_log import Log, check_position, check_run_id
from rxflow.types import Event


def from_log(log: Log, run_id: str, after: int = -1) -> EventStream[Event]:
    """Create a cold Observable of a logged run (like ``from_iterable``, but live). ::

        the log                         --a--b----c--d|
        from_log(log, "r")                    (ab)c--d|       (subscribed after b)
        from_log(log, "r", after=1)               c--d|       (subscribed after b)

    Each subscription reads the stored events after number ``after``, and then the new events. The reader may be in
    another process than the run. The result completes when the run completes or pauses. Disposing a subscription does
    not stop the run. Operators such as ``ops.text()`` work as on the run itself. A chunk is an event, so
    ``after=chunk.seq`` continues after this chunk. No event is lost, and none comes twice.

    Args:
        log: the log that :func:`log_to` writes.
        run_id: the name of the run in the log.
        after: the ``seq`` of the event after which to begin; -1 for all events.

    Raises:
        TypeError: ``run_id`` is not a string, or ``after`` is not an integer.
        LookupError: as the stream's error: the log has no such run. If the next events after ``after`` were dropped,
            the error is an EventsDroppedError.
        ValueError: as the stream's error: ``after`` is beyond the last event.
        RunLost: as the stream's error, after the stored events: the run's process has died.
        RunCancelled: as the stream's error, after the stored events: the run was cancelled.
        Exception: as the stream's error, after the stored events: the error with which the run failed.
        StoreError: as the stream's error: the log cannot be read.

    Example::

        ops.from_log(log, "trip-7", after=17).pipe(ops.text()).subscribe(show)
    """
    check_run_id(run_id)
    check_position(after)

    async def work(emitter: Emitter) -> None:
        await read_log(log, run_id, after, emitter.on_next)

    return EventStream(lambda scope: from_coroutine(scope, work)).as_part()
