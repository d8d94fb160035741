"""``verbose=True``: readable progress, one line at a time, with the logger ``rxflow`` at level INFO.

The lines reach standard error even if the program has not configured logging. Failing tools and retried calls are
logged at level WARNING by their own modules, with or without ``verbose``.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._json_text import describe, in_words
from rxflow._loops import running_loop
from rxflow.types import (
    CrewFailed,
    CrewFinished,
    CrewStarted,
    Event,
    Failed,
    Finished,
    FlowFailed,
    FlowFinished,
    FlowPaused,
    FlowStarted,
    Happened,
    LLMFailed,
    LLMFinished,
    LLMStarted,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Started,
    StreamChunk,
    TaskFailed,
    TaskFinished,
    TaskRejected,
    TaskStarted,
    ToolFinished,
    ToolStarted,
    UsageMetrics,
)

logger = logging.getLogger("rxflow")

_MAX_CHARACTERS = 200  # the longest text of a value in a line


def log_events(events: Observable[Event]) -> Observable[Event]:
    """Pass the events on, and log a line for each beginning and end.

    The lines name tools and models. Those for an end have the seconds and tokens. ::

        events    S--T-a--b--L--F|
        result    S--T-a--b--L--F|
        log       s  t       l  f
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        _make_visible()
        progress = _Progress()

        def on_next(event: Event) -> None:
            if not isinstance(event, StreamChunk):
                line = progress.line(event)
                if line:
                    logger.info("%s", line)
            observer.on_next(event)

        return events.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)


class _Progress:
    """Turns the events of one run into lines."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, str], float] = {}
        self._models: dict[str, str] = {}

    def line(self, event: Happened) -> str:
        """Return the line for ``event``; an empty text if there is none."""
        seconds = self._measure(event)
        origin = event.origin
        crew, task = f"crew {origin.crew_name!r}", f"task {_shorten(origin.task_name)!r}"
        flow, method = f"flow {origin.flow_name!r}", f"method {origin.flow_method!r}"
        agent = origin.agent_role or (method if origin.flow_method else "a program")
        match event:
            case FlowStarted():
                return f"{flow} begins"
            case MethodStarted():
                return f"{flow} begins {method}"
            case MethodFinished(label=label):
                chosen = "" if label is None else f", which chooses {_shorten(label)!r}"
                return f"{flow} finished {method} in {seconds}{chosen}"
            case MethodFailed(error=error):
                return f"{method} failed after {seconds}: {describe(error)}"
            case FlowFinished(usage=usage):
                return f"{flow} finished in {seconds}{f', {_count(usage)}' if usage.successful_requests else ''}"
            case FlowFailed(error=error):
                return f"{flow} failed after {seconds}: {describe(error)}"
            case FlowPaused(pending=pending):
                return f"{flow} pauses, since nobody answers: {'; '.join(_shorten(each.message) for each in pending)}"
            case CrewStarted():
                return f"{crew} begins"
            case TaskStarted():
                return f"{agent} begins {task}"
            case ToolStarted(tool_name=tool, arguments=arguments):
                return f"{agent} calls {tool}({_show(arguments)})"
            case ToolFinished(tool_name=tool, result=result):
                return f"{agent} got from {tool} in {seconds}: {_show(result)}"
            case LLMStarted(model=model):
                self._models[origin.span_id] = model
                return ""
            case LLMFinished(usage=usage, tool_calls=calls):
                asked = f", which calls {', '.join(call.name for call in calls)}" if calls else ""
                return f"{agent} asked {self._model(event)} in {seconds}, {_count(usage)}{asked}"
            case LLMFailed(error=error):
                return f"{agent} asked {self._model(event)}, which failed after {seconds}: {describe(error)}"
            case TaskRejected(reason=reason):
                return f"{task} was sent back to {agent}: {_shorten(reason)}"
            case TaskFinished():
                return f"{agent} finished {task} in {seconds}"
            case TaskFailed(error=error):
                return f"{task} failed after {seconds}: {describe(error)}"
            case CrewFinished(result=result):
                return f"{crew} finished in {seconds}, {_count(result.token_usage)}"
            case CrewFailed(error=error):
                return f"{crew} failed after {seconds}: {describe(error)}"
            case _:
                return ""

    def _measure(self, event: Happened) -> str:
        """Return how long something took, if ``event`` ends it; otherwise an empty text."""
        if not isinstance(event, Started | Finished | Failed):
            return ""
        loop = running_loop()
        now = time.monotonic() if loop is None else loop.time()  # virtual time, if the loop's time is virtual
        kind = type(event).__name__.removesuffix("Started").removesuffix("Finished").removesuffix("Failed")
        key = event.origin.span_id, f"{kind} {getattr(event, 'tool_id', '')}"
        if isinstance(event, Started):
            self._begun[key] = now
        return f"{now - self._begun.pop(key, now):.1f} s" if not isinstance(event, Started) else ""

    def _model(self, event: LLMFinished | LLMFailed) -> str:
        return self._models.pop(event.origin.span_id, "its model")


def _count(usage: UsageMetrics) -> str:
    if not usage.is_reported:
        return "tokens not reported"
    return f"{usage.prompt_tokens or 0} + {usage.completion_tokens or 0} tokens"


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        try:
            return _shorten(json.dumps(dict(cast(Mapping[Any, Any], value)), ensure_ascii=False, default=in_words))
        except (TypeError, ValueError):
            pass
    return _shorten(in_words(cast(object, value)))


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}…"


def _make_visible() -> None:
    """Let messages of level INFO pass, and show them on standard error if the program has not configured logging."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(_StandardError())


class _StandardError(logging.Handler):
    """Writes to standard error until the program configures logging."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers or len(logger.handlers) > 1:
            return  # configured since then, so the record is shown elsewhere
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)
