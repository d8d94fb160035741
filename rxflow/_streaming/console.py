"""Questions at the terminal: shown one at a time, and answered with a line."""

from __future__ import annotations

import asyncio
import builtins
import os
import sys
import threading
from collections.abc import Mapping
from functools import partial
from types import BuiltinFunctionType
from typing import Any

from rxflow._loops import call_soon, fail_future
from rxflow.types import InputRequested


def has_console() -> bool:
    """Return whether a question may be shown here: in a terminal, not in a notebook, a server's log or a pipe.

    If a program has replaced ``input()`` with a function of its own, as tests do, that function asks the question.
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
    """Asks at the terminal.

    A program in a terminal uses this if nothing else answers; other programs have to name it. ::

        flow.observe().pipe(ops.answer_with(ConsoleProvider()))

    With ``verbose=False``, only the message is shown. Each line is an answer: Enter accepts a result for review; ``y``,
    ``n and why`` or arguments as JSON say whether a tool may be called. If a line does not fit, the question is asked
    again, with the reason. When the input has ended, the question gets no answer.
    """

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = verbose

    async def answer(self, request: InputRequested) -> str | None:
        """Return the line that is typed; None at the end of the input."""
        text = show_request(request) if self.verbose else f"{request.message} "
        line = await _console.read_line(text)
        return None if line is None else line.strip()

    def request_input(self, message: str, flow: object, metadata: Mapping[str, Any] | None = None) -> str:
        """Ask for a text, as CrewAI's providers do, so that a provider of your own can fall back to this one."""
        return input(f"\n{message}\n\n>>> " if self.verbose else f"{message} ").strip()

    def request_feedback(self, context: Any, flow: object) -> str:
        """Ask for feedback, as CrewAI's providers do. ``context`` has a ``message`` and the ``method_output``."""
        print(f"\n{getattr(context, 'method_output', '')}\n\n{context.message}")  # noqa: T201
        return input("Your feedback (Enter to skip): ").strip()


def show_request(request: InputRequested) -> str:
    """Return a question as a terminal shows it, up to the place where the answer is typed."""
    lines = [""]
    match request.kind:
        case "feedback":
            lines += [str(request.arguments.get("output", "")), ""]
            hint = "(Press Enter to skip, or type your feedback)"
        case "approval":
            lines += [f"{name} = {value!r}" for name, value in request.arguments.items()]
            hint = "(y to allow, n and why to refuse, or other arguments as JSON)"
        case _:
            hint = ""
    options = f"[{' / '.join(request.options)}]" if request.options else ""
    lines.append(" ".join(part for part in (request.message, options, hint) if part))
    return "\n".join([*lines, ">>> "])


class _Console:
    """The questions that wait for a line. The oldest is on the screen; one thread reads.

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
        with self._lock:
            self._waiting.append(waiting)
            if len(self._waiting) == 1:
                waiting.show()
            must_read, self._is_reading = not self._is_reading, True
        if must_read:
            threading.Thread(target=self._read, name="rxflow console", daemon=True).start()
        try:
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
        if was_shown and self._waiting:
            self._waiting[0].show()


def _read_line() -> str:
    """Return the next line of the input. Raises EOFError at its end."""
    if is_input_replaced() or not has_console():
        return input()
    # Not with input(): Python 3.13 does not exit while another thread is inside of it, for example after Ctrl-C.
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
        # Not with print(): sys.stdout may change between its writes, because a dashboard restores it in another thread.
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
