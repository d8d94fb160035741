"""How long an answer is waited for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rxflow.llm.litellm_errors import is_a_break

_SECOND_LOOK = 0.25  # seconds

logger = logging.getLogger("rxflow")


class Patience:
    """Ends a silence with TimeoutError. Once the answer is complete, it forgives the connection what happens to it.

    The HTTP client has a limit of its own, but not in all states: with aiohttp 3.14 a chunk of HTTP that breaks the
    rules leaves its reader waiting for ever.

    ``is_deaf`` says that nobody tells it what is heard, so that it cannot know a silence.
    """

    def __init__(self, silence: float, finish_reason: Callable[[], object]) -> None:
        self.is_deaf = False
        self._silence = silence
        self._finish_reason = finish_reason
        self._limit = asyncio.timeout(None)
        self._rest = float("inf")
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._loop.time()
        self._suspected: float | None = None

    def heard(self) -> None:
        """Something has come. No timer is moved for it: there are thousands."""
        self._heard_at = self._loop.time()

    def at_most(self, seconds: float) -> None:
        """What is left may take so long from now on; a limit that is set already holds, unless this one is shorter."""
        if seconds < self._rest:
            self._rest = seconds
            self._limit.reschedule(self._loop.time() + seconds)

    def _look(self) -> None:
        due = self._heard_at + self._silence
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        elif self._suspected != self._heard_at:
            # A loop that was held up finds this timer due before its readers get what has come: look again.
            self._suspected = self._heard_at
            self._timer = self._loop.call_later(_SECOND_LOOK, self._look)
        elif not self._limit.expired():
            self._limit.reschedule(self._loop.time())

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        if not self.is_deaf:
            self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            if self._finish_reason() is None:
                raise TimeoutError(f"no byte came for {self._silence} s") from late
            error = late
        if error is None or self._finish_reason() is None or not is_a_break(error):
            return False
        logger.debug("an answer was complete, and then its connection failed: %r", error)
        return True
