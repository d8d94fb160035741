"""A word to who handles errors that nobody can catch."""

from __future__ import annotations

import threading

from rxflow.loops import running_loop


def report(error: BaseException, what: str) -> None:
    """Say that users' code raised where nobody can catch it: to the running loop's handler, else to the thread's."""
    loop = running_loop()
    if loop is not None:
        loop.call_exception_handler({"message": what, "exception": error})
    else:
        hook = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        threading.excepthook(hook)
