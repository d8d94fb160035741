"""Shows a run on the command line, from its first event to the exit code."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any, NoReturn

from reactivex import Observable

from rxflow import _lazy
from rxflow._streaming import PipelineOutput, is_repeated
from rxflow._text import encodable, show_lines
from rxflow.cli._targets import FAILED, INTERRUPTED, PAUSED, refuse
from rxflow.screens._lanes import show_error
from rxflow.screens._run_tree import RunTree
from rxflow.screens._spans import State
from rxflow.types import CrewFinished, FlowFinished, InputRequested, StreamChunk, StreamChunkType

with _lazy.extra("cli"):
    import typer


class Style(Enum):
    """How the command line shows a run."""

    DASHBOARD = "dashboard"
    PLAIN = "plain"
    TEXT = "text"
    JSON = "json"


AsPlain = Annotated[bool, typer.Option("--plain", help="Print lines without control codes, even in a terminal.")]
AsText = Annotated[bool, typer.Option("--text", help="Print only the text that the models write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")]
ShowTraceback = Annotated[bool, typer.Option("--traceback", help="Show the traceback of an error.")]


def choose_style(*, as_json: bool, as_text: bool, as_plain: bool) -> Style:
    """Return the style that the options choose; by default ``DASHBOARD``. Exit if they choose more than one style."""
    named = {Style.JSON: as_json, Style.TEXT: as_text, Style.PLAIN: as_plain}
    chosen = [style for style, is_chosen in named.items() if is_chosen]
    if len(chosen) > 1:
        refuse(f"--{chosen[0].value} and --{chosen[1].value} cannot be used together")
    return chosen[0] if chosen else Style.DASHBOARD


def show_run(
    events: Observable[Any],
    style: Style,
    *,
    paused: str,
    methods: tuple[str, ...] = (),
    traceback: bool = False,
    on_question: Callable[[str], object] | None = None,
) -> None:
    """Run ``events`` to the end, and show them. Raise ``typer.Exit`` if the run does not complete.

    Args:
        events: the events of the run.
        style: how the events are shown.
        paused: the line to print if the run is paused.
        methods: the flow's methods, to show those that have not started yet.
        traceback: raise the run's error instead of printing it, so that Python shows the traceback.
        on_question: called with the ``request_id`` of each question. Before this call, a dashboard removes its drawing
            from the screen, so that a person can type the answer.
    """
    tree = RunTree(methods)
    is_drawn = style in (Style.DASHBOARD, Style.PLAIN)
    failures: list[Exception] = []
    try:
        with (
            end_on_signals(),
            _open_screen(style, tree, events) as (shown, add),
            PipelineOutput(shown) as output,
        ):
            for event in _note_failure(output, failures):
                add(event)
                if on_question is not None and isinstance(event, InputRequested):
                    on_question(event.request_id)
    except KeyboardInterrupt:
        if not is_drawn:
            tree.stop()
            typer.echo(tree.describe_outcome(), err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        is_broken_pipe = isinstance(error, BrokenPipeError)
        if is_broken_pipe and not failures:
            raise  # the program at the other end of the pipe has stopped reading; typer then exits quietly
        if traceback and not is_broken_pipe:  # typer would show no traceback of a BrokenPipeError
            raise
        if not is_drawn:
            typer.echo(f"rxflow: {show_error(error)}", err=True)
        raise typer.Exit(FAILED) from None
    if tree.state is State.PAUSED:
        typer.echo(f"rxflow: {paused}", err=True)
        raise typer.Exit(PAUSED)


def _note_failure(output: PipelineOutput[Any], failures: list[Exception]) -> Generator[Any]:
    """Yield the events of ``output``. If the run fails, add its error to ``failures``."""
    try:
        yield from output
    except Exception as error:
        failures.append(error)
        raise


@contextmanager
def _open_screen(
    style: Style, tree: RunTree, events: Observable[Any]
) -> Generator[tuple[Observable[Any], Callable[[Any], object]]]:
    """Yield the Observable to read instead of ``events``, and the function that shows each event."""
    if style in (Style.DASHBOARD, Style.PLAIN):
        from rxflow.screens import terminal

        # Without any handler, Python would print rxflow's warnings into the screen.
        logging.getLogger("rxflow").addHandler(logging.NullHandler())
        with terminal.Dashboard(tree=tree, plain=style is Style.PLAIN) as dashboard:
            yield dashboard.make_room(events), dashboard.add
        return
    write = _write_json if style is Style.JSON else _TextWriter()

    def add(event: Any) -> None:
        tree.add(event)
        write(event)

    yield events, add


def _write_json(event: Any) -> None:
    from rxflow.types.codec import encode

    sys.stdout.buffer.write(encode(event))
    sys.stdout.buffer.flush()


class _TextWriter:
    """Writes the text of the chunks, with a blank line between the texts of different spans.

    Text that a resumed run repeats is not written again.
    """

    def __init__(self) -> None:
        self._speaker: object = None
        # A model's text must not control the terminal. In a pipe, the text is data, so control codes stay in it.
        self._clean = show_lines if sys.stdout.isatty() else encodable

    def __call__(self, event: Any) -> None:
        if is_repeated(event):
            return
        if isinstance(event, StreamChunk) and event.chunk_type is StreamChunkType.TEXT:
            speaker = event.span_id
            if self._speaker not in (None, speaker):
                typer.echo("\n")
            self._speaker = speaker
            typer.echo(self._clean(event.content), nl=False)
        elif isinstance(event, FlowFinished | CrewFinished) and not event.origin.parent_span_id and self._speaker:
            typer.echo()


@contextmanager
def end_on_signals() -> Generator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit, so that the screen is restored and connections are closed.

    A signal that the program already ignores, for example under ``nohup``, stays ignored.
    """

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
