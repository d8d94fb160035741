"""``verbose=True``: what happens, line by line, in the log ``rxflow`` at INFO."""

from __future__ import annotations

import logging

from reactivex import Observable
from reactivex import operators as ops

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, Failed, ReasoningChunk

logger = logging.getLogger("rxflow")


def log_events(events: Observable[Event]) -> Observable[Event]:
    """The same events; every one but the chunks leaves a line in the log."""

    def note(event: Event) -> None:
        if isinstance(event, StreamChunk | ReasoningChunk):
            return
        place = " / ".join(event.origin.namespace)
        if isinstance(event, Failed):
            logger.info("%s: %s: %s", place, type(event).__name__, event.error)
        else:
            logger.info("%s: %s", place, type(event).__name__)

    return events.pipe(ops.do_action(note))
