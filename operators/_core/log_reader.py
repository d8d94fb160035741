"""Readers of logs. A reader has its own pace, may begin after any event, and may be in any process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from uuid import uuid4

from rxflow._loops import on_this_loop
from rxflow.operators._core.run_log import (
    LIVE,
    PAGE,
    Log,
    Note,
    Page,
    RunCancelled,
    RunLost,
    Store,
    StoreError,
    check_position,
)
from rxflow.types import Event
from rxflow.types.codec import CodecError


class PageReader(AsyncIterator[Sequence[Event]]):
    """Iterates over the events after number ``after``: first stored ones, then new ones, until the run ends or pauses.

    Each step returns the events that are ready, at most ``PAGE`` events. If the reader is slow, events wait in the log.
    :meth:`close` ends the iteration. A step that is already reading may still return its events.

    Raises:
        TypeError: ``after`` is not an integer.
        LookupError, ValueError: while iterating, as described for :meth:`Log.read`.
        StoreError: while iterating: the log cannot be read, or has lost events that this reader has already read, for
            example after a failover.
        RunLost: after the stored events: the run was lost.
        RunCancelled: after the stored events: the run was cancelled.
        Exception: after the stored events: the error with which the run failed.
    """

    def __init__(self, log: Log, run_id: str, after: int) -> None:
        check_position(after)
        self._log = log
        self._run_id = run_id
        self._begun = self._after = max(after, -1)
        self._is_closed = False
        self._waiting: Future[None] | None = None

    async def __anext__(self) -> Sequence[Event]:
        while not self._is_closed:
            page = await self._read()
            if page.events:
                self._after = page.events[-1].seq
                await asyncio.sleep(0)  # so that a long log does not block the loop
                return page.events
            if page.status not in LIVE:
                raise_end(self._run_id, page)
                raise StopAsyncIteration
            await self._wait()
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop reading. The iteration ends, even if the reader is waiting for the next event."""
        self._is_closed = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self) -> None:
        if self._is_closed:
            return
        self._waiting = self._log.wait(self._run_id, self._after)
        # This CancelledError is that of concurrent.futures, and means that close() has cancelled the future. If the
        # task is cancelled, asyncio raises a CancelledError of its own, which must not be suppressed.
        with suppress(CancelledError):
            await on_this_loop(self._waiting)

    async def _read(self) -> Page:
        try:
            return await on_this_loop(self._log.read(self._run_id, self._after, PAGE))
        except ValueError as error:
            if self._after == self._begun or isinstance(error, CodecError):  # the event is there, but unreadable
                raise
            lost = f"the store has lost events of run {self._run_id!r} that were read already, as after a failover"
            raise StoreError(lost) from error


async def read_log(log: Log, run_id: str, after: int, emit: Callable[[Event], None]) -> None:
    """Emit the events that a :class:`PageReader` reads. Raises the errors that the reader raises while iterating."""
    async for events in PageReader(log, run_id, after):
        for event in events:
            emit(event)


def raise_end(run_id: str, page: Page) -> None:
    """Raise the error that ended a run. If the run completed or is paused, do nothing."""
    if page.status == "failed":
        raise page.error or StoreError(f"run {run_id!r} failed, and its log does not say why")
    if page.status == "cancelled":
        raise RunCancelled(run_id, page.reason)
    if page.status == "lost":
        raise RunLost(run_id, page.last)


READER_S = 10.0
"""If a reader has sent no note for this many seconds, it counts as gone, because its process may have died."""


class RunReader(PageReader):
    """A reader of a run; see :meth:`Run.read`. Iterate over the reader once, on one event loop. Then close it."""

    def __init__(self, store: Store, run_id: str, after: int) -> None:
        super().__init__(store, run_id, after)
        self._store = store
        self._name = uuid4().hex
        self._has_begun = False
        self._timer: asyncio.TimerHandle | None = None

    async def __anext__(self) -> Sequence[Event]:
        if not self._has_begun:
            self._has_begun = True
            head = await on_this_loop(self._store.look_up(self._run_id))
            if head.spec.when_unread is not None and head.status in LIVE and not self._is_closed:
                self._show_presence()
        return await super().__anext__()

    def close(self) -> None:
        """Stop reading. The iteration ends, and the run no longer counts this reader.

        A run without readers may be cancelled; see ``when_unread`` of :meth:`Runs.start`.
        """
        super().close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._store.note(self._run_id, Note("reader", 0, self._name))

    def _show_presence(self) -> None:
        self._store.note(self._run_id, Note("reader", READER_S, self._name))
        self._timer = asyncio.get_running_loop().call_later(READER_S / 3, self._show_presence)
