"""What holds a started run, and what stands between it and whoever subscribed to it."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from reactivex import Observer
from reactivex.abc import ObserverBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.loops import running_loop
from rxflow.streaming import hooks
from rxflow.streaming.hooks import Pause, thread_count
from rxflow.streaming.scope import Run

logger = logging.getLogger("rxflow")

T = TypeVar("T")


class RunHandle(SingleAssignmentDisposable):
    """Holds a started run. ``dispose`` stops it: from any thread, at once, as often as one likes.

    ``home`` is the loop on which it lives beside other code; None if it has a thread of its own.
    """

    def __init__(self, run: Run | None = None, home: AbstractEventLoop | None = None) -> None:
        super().__init__()
        self.run = run
        self.home = home
        self.has_ended = False
        self._process = os.getpid()
        if home is not None:
            at_home.add(self)
        if hooks.on_start is not None:
            hooks.on_start(self)

    @property
    def is_inherited(self) -> bool:
        """This process is a fork of the one in which it runs."""
        return self._process != os.getpid()

    @property
    def thread(self) -> threading.Thread | None:
        """The thread of its loop, if that is not the program's own."""
        return None

    def dispose(self) -> None:
        super().dispose()
        if self.run is not None and not self.has_ended:
            self.run.leftovers.dispose()

    def why_it_stands_still(self) -> str | None:
        """What has taken the loop from under the run, if anything has: nothing more will come then."""
        if self.is_inherited:
            return f"its run lives in the process {self._process}, of which this one is a fork"
        if self.home is not None and self.home.is_closed():
            return "its event loop was closed"
        return None

    def join(self, timeout: float) -> None:
        """Wait until nothing of the run is left, at most ``timeout`` seconds. Only a run on its own thread has to."""

    def pause(self) -> Pause | None:
        """A wait of the calling thread for what the run makes, if the run's loop counts such."""
        if self.home is None or self.home is running_loop():
            return None
        count = thread_count(self.home)
        return count.pause() if count is not None else None


class Guard(ObserverBase[T], Generic[T]):
    """Our edge to users' observers and operators.

    One that raises ends its own run, with that error. Past this point RxPY would let it escape into the producer,
    with the run going on, and whoever waits for the end would wait forever. ``on_ending`` is called just before the
    terminal, ``on_end`` after it.
    """

    def __init__(
        self,
        observer: ObserverBase[T],
        run: RunHandle,
        *,
        on_ending: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._observer = observer
        self._run = run
        self._on_ending = on_ending
        self._on_end = on_end

    @property
    def is_over(self) -> bool:
        """The observer has been told the end, or wants to hear no more."""
        return self._run.has_ended or self._run.is_disposed

    def on_next(self, value: T) -> None:
        try:
            self._observer.on_next(value)
        except Exception as error:  # noqa: BLE001 - the observer's own
            self._run.dispose()
            self.on_error(error)

    def on_error(self, error: Exception) -> None:
        self._begin_to_end()
        try:
            self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        finally:  # a CancelledError or SystemExit passes
            self.release()
            self._on_end()

    def on_completed(self) -> None:
        self._begin_to_end()
        try:
            self._observer.on_completed()
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        finally:  # a CancelledError or SystemExit passes
            self.release()
            self._on_end()

    def release(self) -> None:
        """Forget the observer, which must not live as long as whoever holds the run."""
        self._observer = _NOBODY

    def fail(self, error: BaseException) -> None:
        """Stop the run and tell its observer why."""
        self._run.dispose()
        self.on_error(error)  # type: ignore[arg-type]  # RxPY's type leaves out SystemExit and CancelledError

    def _begin_to_end(self) -> None:
        self._run.has_ended = True
        self._on_ending()

    def _report(self, error: Exception) -> None:
        """To the event loop: no caller can catch it."""
        loop = running_loop()
        if loop is None:  # it has died
            logger.error("an observer of an rxflow run raised", exc_info=error)
            return
        loop.call_exception_handler({"message": "an observer of an rxflow run raised", "exception": error})


_NOBODY: ObserverBase[Any] = Observer(on_error=lambda error: None)

at_home: weakref.WeakSet[RunHandle] = weakref.WeakSet()
"""The runs that live on loops of the program."""
