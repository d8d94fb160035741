"""Announcing that a bracket of events has failed, before the failure goes on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from rxflow.streaming.emitter import Emitter
from rxflow.types.events import AgentFailed, MethodFailed, TaskFailed


@contextmanager
def announcing(emitter: Emitter, failed: type[MethodFailed] | type[TaskFailed] | type[AgentFailed]) -> Generator[None]:
    """Emit ``failed`` for an error of the body, and let it pass.

    A CancelledError that is not this run's own cancellation (the body awaited something that others cancelled) becomes
    a RuntimeError: as it is, it would end the reader's task without a word.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if emitter.is_closed or task is None or task.cancelling():
            raise
        said = RuntimeError("something that this code waited for was cancelled, though its run was not")
        emitter.on_next(failed(origin=emitter.origin, error=said))
        raise said from error
    except (Exception, SystemExit) as error:
        emitter.on_next(failed(origin=emitter.origin, error=error))
        raise
