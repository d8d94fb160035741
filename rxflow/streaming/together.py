"""Coroutines at once, whose first error is raised as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run ``works`` at once and give their results in order; the first error stops the others and is raised.

    Also where it is a SystemExit or KeyboardInterrupt: as it is, it would leave its task for the loop, and end that.
    """
    first: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(_held(work)) for work in works]
    except ExceptionGroup as failed:
        (error, *_) = failed.exceptions
        first = error.error if isinstance(error, _Stopped) else error
    else:
        return [task.result() for task in running]
    raise first  # not from within the except clause: what users' code gave as its cause and context stays


class _Stopped(Exception):
    """Carries any error out of a task."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


async def _held(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - unwrapped by all_of
        raise _Stopped(error) from None
