"""Shows a run in the terminal: a live dashboard, and a summary at the end. Without a terminal, prints plain lines.

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

from reactivex import Observable, operators as rxops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow import _lazy
from rxflow._streaming import Cleanup, Owned, PipelineOutput
from rxflow.operators._core import through
from rxflow.screens._drawing import Drawing, Transcript
from rxflow.screens._lanes import fit_encoding
from rxflow.screens._run_tree import RunTree
from rxflow.screens._sources import HasEvents, read_events, read_methods
from rxflow.types import Event, InputReceived, InputRequested

with _lazy.extra("terminal"):
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["Dashboard", "draw", "show"]

T = TypeVar("T")

FRAMES_PER_SECOND = 12


def show(source: HasEvents | Observable[Event], inputs: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """Run ``source``, draw it while it runs, and return its result.

    Ctrl-C stops the run, including its connections to providers, and KeyboardInterrupt is raised. Unless ``summary``
    is False, the screen shows what the run has cost.

    Args:
        source: a flow, a crew, or an Observable of events. A pipeline and ``from_cassette(…)`` are such Observables.
        inputs: the inputs of the flow or crew.
        options: the options of :class:`Dashboard`.

    Raises:
        TypeError: ``source`` is not an Observable and has no ``events()``. Also raised if ``source`` is an Observable
            and ``inputs`` are given.
        Exception: the run's own error, after the error was drawn.
    """
    events = read_events(source, inputs)
    options.setdefault("methods", read_methods(source))
    with Dashboard(**options) as dashboard, PipelineOutput(dashboard.make_room(events)) as output:
        for event in output:
            dashboard.add(event)
    return dashboard.result


def draw(**options: Any) -> Callable[[Observable[T]], Observable[T]]:
    """Return an operator that draws events and passes them on unchanged, like RxPY's ``do``. ::

        source    S--a--b--F|
        draw()    S--a--b--F|

    In a terminal, a separate thread draws, so a slow terminal does not delay the run. Plain lines are printed in the
    run's thread.

    Args:
        options: the options of :class:`Dashboard`.

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

            # Printing fails if the disk is full or the pipe is closed. The stream must still end.
            def on_error(error: Exception) -> None:
                try:
                    dashboard.close(error)
                finally:
                    observer.on_error(error)

            def on_completed() -> None:
                try:
                    dashboard.close()
                except Exception as failure:  # noqa: BLE001 - passed on, like an error of ``do``
                    observer.on_error(failure)
                else:
                    observer.on_completed()

            running = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
            return Owned(running, Cleanup(dashboard.stop))

        return Observable(subscribe)

    return operator


class Dashboard:
    """The screen of one run. Use it in a ``with`` block, and call :meth:`add` with each event.

    In a terminal it draws several times a second. Elsewhere (a pipe, a file, ``TERM=dumb``) it prints lines without
    control codes. It honours ``NO_COLOR``, and replaces characters that the output's encoding lacks.

    Args:
        console: a console of rich; by default one on standard output.
        plain: print lines even in a terminal.
        methods: the names of the flow's methods. These methods are shown even before they start.
        summary: at the end, print the tree, one line with the time, the tokens and the cost, and the result or error.
            If the run is stopped from outside, only the line is printed. This option does not change plain lines: they
            always end with such a line.
        tree: the state that the screen draws; by default a new one with ``methods``.
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
        self._lock = threading.Lock()  # rich draws the tree in a thread of its own
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
        """The result of the run; None until the run has finished."""
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
        """Return a stream of the same events. While a question is open, the dashboard is not drawn.

        Without the dashboard, a person can type the answer in the terminal. The stream removes the dashboard on the
        run's loop, before the question is printed. :meth:`add` would be too late, because its caller may get the event
        only after the question is printed.
        """
        return through(rxops.do_action(self.note_question))(events)

    def note_question(self, event: object) -> None:
        """Remove the dashboard when ``event`` is a question. Draw it again when no question is open any more."""
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
        """Show that the run was stopped from outside."""
        if not self._is_closed:
            with self._lock:
                self._tree.stop()
            self._end(self._drawing.draw_outcome)

    def close(self, error: BaseException | None = None) -> None:
        """Show that the run has completed, or has failed with ``error``."""
        if not self._is_closed:
            with self._lock:
                if error is None:
                    self._tree.complete()
                else:
                    self._tree.fail(error)
            self._end(self._drawing.draw_summary)

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

    def _end(self, draw_end: Callable[[], RenderableType]) -> None:
        self._is_closed = True
        if self._live is not None:
            self._live.stop()
            if self._summary:
                self._console.print(draw_end())
        elif self._transcript is not None:
            for line in self._transcript.finish():
                self._print(line)

    def _print(self, line: str) -> None:
        self._console.out(fit_encoding(line, self._console.encoding), highlight=False)
