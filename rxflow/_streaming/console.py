"""The console: shows the progress of runs (``verbose=True``), and asks questions. A typed line is the answer."""

from __future__ import annotations

import asyncio
import builtins
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from types import BuiltinFunctionType
from typing import Any, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._loops import call_soon, fail_future, running_loop
from rxflow._text import describe, in_words
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
    InputRequested,
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

_MAX_CHARACTERS = 200  # how many characters of a value, name or message a line shows


def log_events(events: Observable[Event]) -> Observable[Event]:
    """Pass the events on, and write a line to the logger ``rxflow`` when something begins, finishes or fails.

    The lines are about flows, methods, crews, tasks, tool calls and model calls. But a model call has no line when it
    begins, and a tool call has none when it fails. A flow also has a line when it pauses, and a task when an answer is
    rejected. When something finishes or fails, the line has the duration. When a crew or a model call finishes, the
    line also has the tokens. When a flow finishes, the line has the tokens if the flow made model calls. ::

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
        """Return the duration of a span if ``event`` is Finished or Failed; otherwise an empty text.

        If ``event`` is Started, note the time.
        """
        if not isinstance(event, Started | Finished | Failed):
            return ""
        loop = running_loop()
        now = (
            time.monotonic() if loop is None else loop.time()
        )  # durations are in virtual time if the loop's time is virtual
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
    """Make the lines visible in a program that has not configured logging.

    If the logger has no level, let messages of level INFO pass. If no handler is configured, write to standard error.
    """
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
            return  # the program configured logging after this handler was added, so another handler shows the record
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)


def has_console() -> bool:
    """Return whether a question may be asked here.

    - In a terminal: always.
    - In a notebook: never.
    - Elsewhere, for example with a pipe: only if the program has replaced ``input()`` with a function of its own, as
      tests do. That function then asks the question.
    """
    kernel: Any = sys.modules.get("ipykernel.kernelapp")
    # a program may import ipykernel without being a notebook
    if kernel is not None and kernel.IPKernelApp.initialized():
        return False
    if is_input_replaced():
        return True
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def is_input_replaced() -> bool:
    """Return whether the program has replaced ``input()`` with a function of its own."""
    return not isinstance(builtins.input, BuiltinFunctionType)


class ConsoleProvider:
    """Asks questions in the terminal.

    In a terminal, rxflow uses this for each question that nothing else answers. Elsewhere, the program must add it. ::

        flow.observe().pipe(ops.answer_with(ConsoleProvider()))

    The next line that is typed is the answer. For a review, an empty line accepts the result. If the answer selects a
    label, an empty line selects the default label; without a default label, it does not fit. For an approval, ``y``
    allows the tool call, ``n`` refuses it (a reason may follow), and a JSON object allows it with other arguments. If
    the line does not fit the question, the question is asked again, with the reason. At the end of the input, the
    question gets no answer. With ``verbose=False``, only the message of the question is shown.
    """

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = verbose

    async def answer(self, request: InputRequested) -> str | None:
        """Ask the question, and return the line that is typed; None at the end of the input."""
        text = show_request(request) if self.verbose else f"{request.message} "
        line = await _console.read_line(text)
        return None if line is None else line.strip()

    def request_input(self, message: str, flow: object, metadata: Mapping[str, Any] | None = None) -> str:
        """Ask for a text, as CrewAI's providers do. A program's own provider may call this."""
        return input(f"\n{message}\n\n>>> " if self.verbose else f"{message} ").strip()

    def request_feedback(self, context: Any, flow: object) -> str:
        """Ask for feedback, as CrewAI's providers do. ``context`` has a ``message`` and the ``method_output``."""
        print(f"\n{getattr(context, 'method_output', '')}\n\n{context.message}")  # noqa: T201
        return input("Your feedback (Enter to skip): ").strip()


def show_request(request: InputRequested) -> str:
    """Return the text that a terminal shows for a question. It ends with the prompt for the answer."""
    lines = [""]
    match request.kind:
        case "feedback":
            lines += [str(request.arguments.get("output", "")), ""]
            hint = "(Press Enter to skip, or type your feedback)"
            if "pattern" in request.response_schema:  # an empty answer selects no label
                hint = "(Type one of these, or your feedback)"
        case "approval":
            lines += [f"{name} = {value!r}" for name, value in request.arguments.items()]
            hint = "(y to allow, n and why to refuse, or other arguments as JSON)"
        case _:
            hint = ""
    options = f"[{' / '.join(request.options)}]" if request.options else ""
    lines.append(" ".join(part for part in (request.message, options, hint) if part))
    return "\n".join([*lines, ">>> "])


class _Console:
    """The questions that wait for a line. The screen shows the oldest one. One thread reads the lines.

    A thread that reads cannot be stopped. After a question is withdrawn, the thread continues to read, and the next
    line answers the question that is on the screen at that time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._is_reading = False

    async def read_line(self, text: str) -> str | None:
        """Show ``text``, and return the line that is typed; None at the end of the input."""
        waiting = _Waiting(text)
        try:
            with self._lock:
                self._waiting.append(waiting)
                if len(self._waiting) == 1:
                    self._show_first()
                if self._waiting and not self._is_reading:
                    threading.Thread(target=self._read, name="rxflow console", daemon=True).start()
                    self._is_reading = True
            return await waiting.line
        finally:
            with self._lock:
                if waiting in self._waiting:
                    self._take(waiting)

    def _read(self) -> None:
        while True:
            try:
                line, error = _read_line(), None
            except EOFError:
                line, error = None, None
            except BaseException as raised:  # noqa: BLE001 - raised where the line is awaited
                line, error = None, raised
            with self._lock:
                if self._waiting:
                    first = self._waiting[0]
                    first.settle(line, error)
                    self._take(first)
                if not self._waiting:
                    self._is_reading = False
                    return

    def _take(self, waiting: _Waiting) -> None:
        was_shown = self._waiting[0] is waiting
        self._waiting.remove(waiting)
        if was_shown:
            self._show_first()

    def _show_first(self) -> None:
        """Show the oldest question. A question that cannot be shown fails, and the next one is shown instead."""
        while self._waiting:
            first = self._waiting[0]
            try:
                first.show()
            except BaseException as error:  # noqa: BLE001 - raised where the line is awaited
                self._waiting.remove(first)
                first.settle(None, error)
            else:
                return


def _read_line() -> str:
    """Return the next line of the input. Raises EOFError at the end of the input."""
    if is_input_replaced() or not has_console():
        return input()
    # Do not call input() here: Python 3.13 cannot exit while a thread is inside input(), for example after Ctrl-C.
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(sys.stdin.fileno(), 4096)
        if not piece:
            raise EOFError
        line += piece
    return line.decode(sys.stdin.encoding or "utf-8", "replace").rstrip("\n")


class _Waiting:
    def __init__(self, text: str) -> None:
        self._text = text
        self.line: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def show(self) -> None:
        # Do not call print() here: another thread may replace sys.stdout between the writes of print(), as a dashboard
        # does when it ends.
        output = sys.stdout
        output.write(self._text)
        output.flush()

    def settle(self, line: str | None, error: BaseException | None) -> None:
        call_soon(self.line.get_loop(), partial(self._settle, line, error))

    def _settle(self, line: str | None, error: BaseException | None) -> None:
        if self.line.done():
            return
        if error is not None:
            fail_future(self.line, error, "input()")
        else:
            self.line.set_result(line)


_console = _Console()
