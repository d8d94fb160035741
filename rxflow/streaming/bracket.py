"""Announcing that a bracket of events has failed, before the failure goes on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from rxflow.streaming.cancelled import unasked
from rxflow.streaming.emitter import Emitter
from rxflow.types.events import AgentFailed, MethodFailed, TaskFailed


@contextmanager
def announcing(emitter: Emitter, failed: type[MethodFailed] | type[TaskFailed] | type[AgentFailed]) -> Generator[None]:
    """Emit ``failed`` for an error of the body, and let it pass. What only looks like a cancellation is told apart."""
    try:
        yield
    except asyncio.CancelledError as error:
        said = unasked(error)
        if emitter.is_closed or said is error:
            raise
        emitter.on_next(failed(origin=emitter.origin, error=said))
        raise said from error
    except (Exception, SystemExit) as error:
        emitter.on_next(failed(origin=emitter.origin, error=error))
        raise
