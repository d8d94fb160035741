"""The handle of a started run, which stops it."""

from __future__ import annotations

import os
import threading
import weakref
from asyncio import AbstractEventLoop

from rxflow._loops import running_loop
from rxflow._streaming import hooks
from rxflow._streaming.hooks import Pause, thread_count
from rxflow._streaming.scope import Run
from rxflow._streaming.subscriptions import Holder


class RunHandle(Holder):
    """Holds a started run. ``dispose`` stops it: from any thread, at once, any number of times.

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
        """Whether this process is a fork of the one in which the run lives."""
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
        """Why nothing more will come, if the run has lost its loop; else None."""
        if self.is_inherited:
            return f"its run lives in the process {self._process}, of which this one is a fork"
        if self.home is not None and self.home.is_closed():
            return "its event loop was closed"
        return None

    def join(self, timeout: float) -> None:
        """Wait until nothing of the run is left, at most ``timeout`` s. Returns at once without a thread of its own."""

    def pause(self) -> Pause | None:
        """A wait of this thread for the run, if the run's loop counts waits; else None."""
        if self.home is None or self.home is running_loop():
            return None
        count = thread_count(self.home)
        return count.pause() if count is not None else None


at_home: weakref.WeakSet[RunHandle] = weakref.WeakSet()
"""The runs that live on loops of the program."""
