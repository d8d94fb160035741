"""A run in the terminal: a live dashboard, plain lines without a terminal, and a summary at the end.

::

    from rxflow.screens import terminal

    result = terminal.show(flow, {"topic": "tides"})              # runs it, draws it, returns its result
    async for event in flow.events().pipe(terminal.draw(), ops.to_output()): ...
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from reactivex import Observable
from reactivex import operators as rxops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow import _lazy
from rxflow._streaming import PipelineOutput
from rxflow.operators._core import through
from rxflow.screens._run_tree import RunTree
from rxflow.screens._sources import HasEvents, read_events, read_methods
from rxflow.screens._transcript import Transcript
from rxflow.screens._wording import fit_encoding
from rxflow.types import Event, InputReceived, InputRequested

with _lazy.extra("terminal"):
    from rich.console import Console
    from rich.live import Live

    from rxflow.screens._drawing import Drawing

__all__ = ["Dashboard", "draw", "show"]

T = TypeVar("T")

FRAMES_PER_SECOND = 12


def show(source: HasEvents | Observable[Event], inputs: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """Run ``source``, draw it while it runs, and return its result.

    Ctrl-C stops the run, down to the provider's connection; the screen then says what it has cost, and
    KeyboardInterrupt goes on to the program.

    Args:
        source: a flow, a crew, or an Observable of events: a pipeline, a cassette.
        inputs: those of the flow or the crew.
        options: those of :class:`Dashboard`.

    Raises:
        TypeError: ``source`` has no events; or it is an Observable, and there are inputs.
        Exception: the run's own error, after it is drawn.
    """
    events = read_events(source, inputs)
    options.setdefault("methods", read_methods(source))
    with Dashboard(**options) as dashboard, PipelineOutput(dashboard.make_room(events)) as output:
        for event in output:
            dashboard.add(event)
    return dashboard.result


def draw(**options: Any) -> Callable[[Observable[T]], Observable[T]]:
    """Draw the events that pass (like ``do``); the stream is unchanged. ::

        source    S--a--b--F|
        draw()    S--a--b--F|

    Drawing happens in a thread of its own, so that a slow terminal does not hold up the run.

    Args:
        options: those of :class:`Dashboard`.

    Example::

        flow.events().pipe(terminal.draw(), ops.record("run.cassette")).run()
    """

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
            dashboard = Dashboard(**options)
            dashboard.__enter__()

            def on_next(item: Any) -> None:
                dashboard.add(item)
                dashboard.note_question(item)
                observer.on_next(item)

            def on_error(error: Exception) -> None:
                dashboard.close(error)
                observer.on_error(error)

            def on_completed() -> None:
                dashboard.close()
                observer.on_completed()

            running = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
            return CompositeDisposable(running, Disposable(dashboard.stop))

        return Observable(subscribe)

    return operator


class Dashboard:
    """The screen of one run: fed with events, inside a ``with`` block.

    In a terminal it draws a frame several times a second. Elsewhere (a pipe, a file, ``TERM=dumb``) it prints lines
    without control codes. ``NO_COLOR`` is honoured, and an encoding that lacks some characters gets others.

    Args:
        console: rich's; by default standard output.
        plain: print lines, also in a terminal.
        methods: the flow's methods, to show those that have not begun yet.
        summary: print the tree, the figures and the result at the end.
        tree: what the run is folded into; by default a new one with ``methods``.
    """

    def __init__(
        self,
        *,
        console: Console | None = None,
        plain: bool = False,
        methods: tuple[str, ...] = (),
        summary: bool = True,
        tree: RunTree | None = None,
    ) -> None:
        self._console = console or Console(highlight=False)
        self._tree = tree or RunTree(methods)
        self._lock = threading.Lock()  # the tree is drawn in rich's thread
        self._drawing = Drawing(self._tree, self._console)
        self._summary = summary
        self._is_closed = False
        self._live: Live | None = None
        self._open_questions: set[str] = set()
        self._transcript: Transcript | None = None
        if plain or not self._console.is_terminal or self._console.is_dumb_terminal:
            self._transcript = Transcript(self._tree, self._console.width)

    @property
    def result(self) -> Any:
        """What the run returned; None until it has ended well."""
        return self._tree.result

    def add(self, event: Event) -> None:
        """Show one more event."""
        if self._transcript is not None:
            for line in self._transcript.read(event):
                self._print(line)
            return
        with self._lock:
            self._tree.add(event)

    def make_room(self, events: Observable[T]) -> Observable[T]:
        """``events`` unchanged; while a question is open the frame is gone, so that the person types where it was.

        That happens on the run's loop, before the question is shown. Whoever calls :meth:`add` may hear of it later.
        """
        return through(rxops.do_action(self.note_question))(events)

    def note_question(self, event: object) -> None:
        """Take the frame away for a question, and draw it again after the last answer."""
        live = self._live
        if live is None or not isinstance(event, InputRequested | InputReceived):
            return
        if isinstance(event, InputRequested):
            self._open_questions.add(event.request_id)
            live.stop()
            return
        self._open_questions.discard(event.request_id)
        if not (self._open_questions or self._is_closed):
            live.start()

    def stop(self) -> None:
        """The run was stopped from outside."""
        if not self._is_closed:
            with self._lock:
                self._tree.stop()
            self._end()

    def close(self, error: BaseException | None = None) -> None:
        """The run has ended by itself, or with ``error``."""
        if not self._is_closed:
            with self._lock:
                if error is None:
                    self._tree.complete()
                else:
                    self._tree.fail(error)
            self._end()

    def __enter__(self) -> Self:
        if self._transcript is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=FRAMES_PER_SECOND,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.close(error)
        else:
            self.stop()

    def _draw(self) -> Any:
        with self._lock:
            return self._drawing.draw_frame()

    def _end(self) -> None:
        self._is_closed = True
        if self._live is not None:
            self._live.stop()
            if self._summary:
                self._console.print(self._drawing.draw_summary())
        elif self._transcript is not None:
            for line in self._transcript.finish():
                self._print(line)

    def _print(self, line: str) -> None:
        self._console.out(fit_encoding(line, self._console.encoding), highlight=False)
