"""Looking up names: a thread for each.

A lookup cannot be cancelled, and may take half a minute where no name server answers. In the few threads of a pool,
those of calls that are long over would hold up the calls to all other providers, and the interpreter's exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def looked_up(call: Callable[[], T]) -> Future[T]:
    """What ``call`` gives, from a daemon thread: nobody waits for that at exit."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            future.set_exception(error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=work, name="litellm lookup", daemon=True).start()
    return future
