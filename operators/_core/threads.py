"""For operators between threads: the loop of this one, a call on the loop of another, a word to who handles errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> bool:
    """Run ``callback`` on the loop's thread soon, from any thread. False where the loop has ended."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


def report(error: BaseException, what: str) -> None:
    """Say that users' code raised where nobody can catch it: to the running loop's handler, else to the thread's."""
    loop = running_loop()
    if loop is not None:
        loop.call_exception_handler({"message": what, "exception": error})
    else:
        hook = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        threading.excepthook(hook)
