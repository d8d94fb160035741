"""Running to the end for the result alone: what ``kickoff()``, ``call()`` and their async twins do."""

from __future__ import annotations

import asyncio
from typing import Generic, Never, TypeVar

from rxflow.loops import running_loop
from rxflow.streaming.launch import RunObservable, open_place
from rxflow.streaming.log import THE_END, Log
from rxflow.streaming.run_feed import RunFeed
from rxflow.types.events import Event

E = TypeVar("E", bound=Event)


def run_blocking(source: RunObservable, finished: type[E]) -> E:
    """Run ``source`` and return its ``finished`` event: in the ambient run if there is one, else in its own.

    Raises:
        CancelledError: the run that this code belongs to was cancelled.
    """
    place = open_place()
    if place is not None and running_loop() is not place.run.loop:
        last = Last(finished)
        place.forward_blocking(source.within(place), last.tap)
        return last.event
    log: Log[Never] = Log()
    feed = RunFeed(log, source, finished, _nothing)
    feed.pull_to_the_end()
    return _outcome(log, feed)


async def run_async(source: RunObservable, finished: type[E]) -> E:
    """The same for async code. Cancelling the awaiting task cancels the run."""
    place = open_place()
    if place is not None and running_loop() is place.run.loop:
        last = Last(finished)
        await place.forward(source.within(place), last.tap)
        return last.event
    log: Log[Never] = Log()
    feed = RunFeed(log, source, finished, _nothing)
    try:
        await feed.pull_async(THE_END)
    except BaseException:
        await feed.aclose()  # the caller may go on with what the run's coroutines still clean up
        raise
    return _outcome(log, feed)


class Last(Generic[E]):
    """Keeps the last event of one type that passes."""

    def __init__(self, wanted: type[E]) -> None:
        self._wanted = wanted
        self._event: E | None = None

    def tap(self, event: Event) -> None:
        """Look at one event."""
        if isinstance(event, self._wanted):
            self._event = event

    @property
    def event(self) -> E:
        """The last one; RuntimeError where none has passed."""
        if self._event is None:
            raise RuntimeError(f"the run completed without a {self._wanted.__name__}")
        return self._event


def _nothing(event: Event) -> None:
    """Keep none of the events: nobody is going to read them."""


def _outcome(log: Log[Never], feed: RunFeed[Never, E]) -> E:
    if log.is_cancelled:
        raise asyncio.CancelledError("the rxflow run that this code belongs to was cancelled")
    log.raise_error()
    if feed.finished is None:
        raise RuntimeError("the run completed without saying how it ended")
    return feed.finished
