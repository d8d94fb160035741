"""``from_log``: the events of a run, from the log that its process writes."""

from __future__ import annotations

from rxflow._streaming import Emitter, EventStream, from_coroutine
from rxflow.operators._core.run_log import Log, read_log
from rxflow.types import Event


def from_log(log: Log, run_id: str, after: int = -1) -> EventStream[Event]:
    """Create a cold Observable of a logged run (like ``from_iterable``, but live). ::

        the log                         --a--b--c--d|
        from_log(log, "r")                  (ab)c--d|       it subscribes here
        from_log(log, "r", after=1)             c--d|

    Each subscription reads what there is after event ``after``, and then what comes, in any process. Disposing it only
    leaves. ``ops.text()`` and others work on it as on the run itself. A chunk's ``seq`` is that of its event, so
    ``after=chunk.seq`` goes on behind a chunk that was seen: nothing is lost, nothing comes twice.

    Args:
        log: what :func:`log_to` writes to.
        run_id: names the run there.
        after: the ``seq`` of the last event that is not wanted; -1 for all.

    Raises:
        LookupError: as the stream's error: no such run; or its first events are not kept (EventsDroppedError).
        ValueError: as the stream's error: ``after`` is beyond the last event.
        RunLost: as the stream's error, after what had arrived: the run's process has died.
        RunCancelled: as the stream's error, after what had arrived.
        StoreError: as the stream's error: the log cannot be read.

    Example::

        ops.from_log(log, "trip-7", after=17).pipe(ops.text()).subscribe(show)
    """

    async def work(emitter: Emitter) -> None:
        await read_log(log, run_id, after, emitter.on_next)

    return EventStream(lambda scope: from_coroutine(scope, work)).as_part()
