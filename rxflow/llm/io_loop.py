"""The I/O loop: one background loop for all provider connections, which never executes users' code.

litellm keeps its connections per loop, so here they outlive ``asyncio.run`` and are reused; its first call blocks its
loop for hundreds of milliseconds, and a method that blocks its own run must not stall anyone else's stream.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import selectors
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any

from rxflow.llm.preparation import Preparing
from rxflow.streaming import loop_thread


class _IOLoop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(Preparing())
        self._thread = threading.Thread(target=self._run, name="rxflow I/O", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def stop(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2.0)

    def cut_off(self) -> None:
        """In a forked child: nothing that happens to the inherited connections here may reach the parent's.

        litellm closes all clients at exit. In the child that would say goodbye on the parent's connections, and take
        them out of the epoll that both share, so that the parent waits for ever.
        """
        selector = getattr(self.loop, "_selector", None)
        if not isinstance(selector, selectors.BaseSelector):
            return  # a loop of another make
        nothing = os.open(os.devnull, os.O_RDWR)
        for key in list(selector.get_map().values()):
            os.dup2(nothing, key.fd, inheritable=False)
        os.close(nothing)
        if sys.platform == "linux" and isinstance(selector, selectors.EpollSelector):
            with select.epoll() as empty:
                os.dup2(empty.fileno(), selector.fileno(), inheritable=False)


_current: _IOLoop | None = None
_starting = threading.Lock()  # two first calls on two threads must not make two loops


def submit(work: Coroutine[Any, Any, None]) -> Future[None]:
    """Run ``work`` on the I/O loop, starting that on first use. Cancelling the future cancels the work there."""
    global _current
    with _starting:
        if _current is None:
            # In no context: its handles would keep that of whoever came first, for as long as it lives.
            _current = Context().run(_IOLoop)
    return asyncio.run_coroutine_threadsafe(work, _current.loop)


def stop() -> None:
    """Stop and join: a loop's thread that outlives the interpreter's shutdown can hang it. A later call starts anew."""
    global _current
    with _starting:
        io, _current = _current, None
    if io is not None:
        io.stop()


@atexit.register
def _at_exit() -> None:
    # Runs first, whichever module was imported first: to them the end of this loop would be an error, to be reported.
    loop_thread.stop_all()
    stop()


def _forget() -> None:
    # Threads do not survive a fork; the child starts its own loop when it needs one.
    global _current, _starting
    io, _current = _current, None
    _starting = threading.Lock()
    if io is not None:
        io.cut_off()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
