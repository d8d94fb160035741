"""Reads an answer from the network, and limits how long that may take.

After a complete answer, usually only the usage report and the end of the body follow. rxflow waits a short time for
both. It waits for the end of the body because the connection can be reused only after that. If the connection breaks or
falls silent while rxflow waits, the answer is still complete.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from rxflow.llm._io import Deliver
from rxflow.llm._wires.sse import MalformedEvent, Wire
from rxflow.llm.source import Delta, UsageMetrics

READ_TIMEOUT_S = 600.0
HEADER_GRACE_S = 5.0  # the headers may take this much longer than the connect timeout and the read timeout together
USAGE_TIMEOUT_S = 2.0  # how long the usage report may take after the finish reason
LAST_BYTE_TIMEOUT_S = 0.2  # how long the end of the body may take after the last event
MAX_ERROR_BYTES = 1 << 14  # how much of an error's body is read; _redaction cuts messages at 4,000 characters anyway
_SECOND_LOOK_S = 0.25

logger = logging.getLogger("rxflow")


class IncompleteAnswer(Exception):
    """The stream ended before the provider reported that the answer was complete."""


async def read_answer(
    blocks: AsyncIterator[bytes],
    wire: Wire,
    deliver: Deliver,
    *,
    silence_s: float,
    is_break: Callable[[BaseException], bool],
    content_type: str = "",
    last_byte_timeout_s: float = LAST_BYTE_TIMEOUT_S,
) -> None:
    """Parse ``blocks`` with ``wire``, and deliver the deltas. The deltas of one network read are delivered together.

    Args:
        silence_s: seconds without data after which TimeoutError is raised.
        is_break: returns whether an error of the HTTP client means that the connection broke.
        content_type: the content type of the response. If it is not the type of a stream, a body without events is
            refused.
        last_byte_timeout_s: how long the end of the body may take after the last event.

    Raises:
        TimeoutError: no data arrived for ``silence_s``, and the answer is incomplete.
        MalformedEvent, OversizedEvent, ErrorEvent: see these classes.
        IncompleteAnswer: the answer ended too early.
    """
    async with StallWatch(silence_s, lambda: wire.is_complete, is_break) as watch:
        async for block in blocks:
            watch.note_data()
            if not wire.is_done and _feed(wire.feed, block, deliver):
                watch.lift_limit()  # the answer goes on: some servers send a finish reason before the end
            if wire.is_complete and not wire.may_go_on:
                watch.limit(last_byte_timeout_s if wire.is_done or wire.usage else USAGE_TIMEOUT_S)
            # Let other tasks run. Otherwise, data that is always ready would block the event loop, and any disposal.
            await asyncio.sleep(0)
        if not wire.is_done:
            with suppress(MalformedEvent):  # an event that is cut off makes the answer incomplete, not malformed
                _feed(lambda _, batch: wire.flush(batch), b"", deliver)
    if wire.is_empty:
        refuse_other_types(content_type)
    if not wire.is_complete:
        raise IncompleteAnswer("the stream ended before the answer was complete")


def count_request(usage: UsageMetrics | None) -> UsageMetrics:
    """Return a copy of ``usage`` that counts one successful request. None stands for an empty usage."""
    return (usage or UsageMetrics()).model_copy(update={"successful_requests": 1})


def refuse_other_types(content_type: str) -> None:
    """Raise :class:`MalformedEvent` if ``content_type`` is not that of a stream. An empty type is accepted.

    Call this for a body without events.
    """
    if content_type and not content_type.lower().startswith(_STREAM_TYPES):
        raise MalformedEvent(
            f"the answer is not an event stream: its content type is {content_type!r}, and it has no event"
        )


_STREAM_TYPES = ("text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream")


def _feed(feed: Callable[[bytes, list[Delta]], None], block: bytes, deliver: Deliver) -> bool:
    """Deliver the deltas that ``block`` completes, even if a later event in ``block`` is malformed.

    Return whether any deltas were delivered.
    """
    batch: list[Delta] = []
    try:
        feed(block, batch)
    finally:
        if batch:
            deliver(batch)
    return bool(batch)


class StallWatch:
    """Raises TimeoutError from an ``async with`` block if no data arrives for ``silence_s``.

    Once the answer is complete, a broken or silent connection ends the block without an error.

    The HTTP client's own time-out does not always work: after a malformed HTTP chunk, aiohttp 3.14 waits forever.
    """

    def __init__(
        self, silence_s: float, is_complete: Callable[[], object], is_break: Callable[[BaseException], bool]
    ) -> None:
        self._silence_s = silence_s
        self._is_complete = is_complete
        self._is_break = is_break
        self._timeout = asyncio.timeout(None)
        self._remaining_s = float("inf")
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._last_data_at = self._loop.time()
        self._suspected_at: float | None = None

    def note_data(self) -> None:
        """Record that data has arrived. The timer is not reset, because this method is called very often."""
        self._last_data_at = self._loop.time()

    def limit(self, seconds: float) -> None:
        """Allow ``seconds`` from now for the rest of the answer, unless the present limit is as short or shorter."""
        if seconds < self._remaining_s:
            self._remaining_s = seconds
            self._timeout.reschedule(self._loop.time() + seconds)

    def lift_limit(self) -> None:
        """Remove the limit, because the answer goes on."""
        if self._remaining_s < float("inf"):
            self._remaining_s = float("inf")
            self._timeout.reschedule(None)

    def _look(self) -> None:
        due = self._last_data_at + self._silence_s
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        elif self._suspected_at != self._last_data_at:
            # If the loop was blocked, it runs this timer before it reads the data that has arrived meanwhile. So check
            # a second time.
            self._suspected_at = self._last_data_at
            self._timer = self._loop.call_later(_SECOND_LOOK_S, self._look)
        elif not self._timeout.expired():
            self._timeout.reschedule(self._loop.time())

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as timeout:
            if not self._is_complete():
                raise TimeoutError(f"no data received for {self._silence_s} s") from timeout
            error = timeout
        if error is None or not self._is_complete() or not (isinstance(error, TimeoutError) or self._is_break(error)):
            return False
        logger.debug("an answer was complete, and then its connection failed: %r", error)
        return True
