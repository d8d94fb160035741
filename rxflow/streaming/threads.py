"""Blocking code of users, in threads beside the run's loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

from rxflow.loops import call_soon, context_for_another_thread
from rxflow.streaming.thread_count import thread_count

logger = logging.getLogger("rxflow")

_T = TypeVar("_T")


async def in_thread(function: Callable[[], _T], *, name: str) -> _T:
    """Run blocking code in a thread of its own, with the caller's context.

    No pool: a method that waits for its crew holds its thread, so any bound could starve the tool that the crew
    waits for. Daemon threads: code that was abandoned by a cancellation must not hold up the interpreter's exit.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()
    context = context_for_another_thread()
    count = thread_count(loop)
    counted = count.work() if count is not None else None
    call = function if counted is None else partial(counted.run, function)

    def settle(result: _T | None, error: BaseException | None) -> None:
        if error is None and not done.done():
            done.set_result(cast(_T, result))
        elif error is not None and not done.done():
            done.set_exception(error)
        elif error is not None:
            report_late(error)

    def report_late(error: BaseException) -> None:
        # Nobody waits for it any more, and an error must not vanish.
        if not isinstance(error, asyncio.CancelledError):
            logger.warning("%s raised after its run was cancelled", name, exc_info=error)

    def work() -> None:
        try:
            result = context.run(call)
        except StopIteration as error:
            # A future refuses StopIteration; raised through a coroutine it would end some generator silently.
            wrapped = RuntimeError(f"{name} raised StopIteration")
            wrapped.__cause__ = error
            call_soon(loop, partial(settle, None, wrapped))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            if not call_soon(loop, partial(settle, None, error)):
                report_late(error)
        else:
            call_soon(loop, partial(settle, result, None))

    try:
        threading.Thread(target=work, name=f"rxflow {name}", daemon=True).start()
        return await done
    finally:
        if counted is not None:
            counted.over()
