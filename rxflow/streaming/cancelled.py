"""Telling a cancellation from a CancelledError that only looks like one."""

from __future__ import annotations

import asyncio


def unasked(error: BaseException) -> BaseException:
    """``error``, but for a CancelledError in a task that nobody cancels: that becomes a RuntimeError.

    The code awaited something that others have cancelled. As it is, such an error ends whatever task it reaches, the
    reader's too, without a word.
    """
    if not isinstance(error, asyncio.CancelledError):
        return error
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return error
    said = RuntimeError("something that this code waited for was cancelled, though its run was not")
    said.__cause__ = error
    return said
