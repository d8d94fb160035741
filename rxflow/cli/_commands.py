"""The commands ``rxflow run``, ``serve``, ``replay``, ``plot`` and ``new``."""

from __future__ import annotations

import os
import shlex
import sys
import webbrowser
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any

from reactivex import Observable

from rxflow import _lazy
from rxflow._streaming import has_console
from rxflow.cli._new_project import FILES, TAKEN
from rxflow.cli._runs import HANDOVER_S, create_runs, find_asker, runs_app, say_paused
from rxflow.cli._showing import AsJson, AsPlain, AsText, ShowTraceback, choose_style, end_on_signals, show_run
from rxflow.cli._targets import (
    check_inputs,
    load_flow_class,
    load_target,
    read_inputs,
    read_when_unread,
    refuse,
    refuse_on_error,
)

with _lazy.extra("cli"):
    import typer


app = typer.Typer(
    name="rxflow",
    help="Run flows and crews, and watch them while they run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(runs_app, name="runs")

Target = Annotated[str, typer.Argument(metavar="MODULE:NAME", help="A flow or a crew, for example trips:Trip.")]


@app.callback(invoke_without_command=True)
def describe(
    version: Annotated[bool, typer.Option("--version", help="Print the version of rxflow.")] = False,
) -> None:
    """Run flows and crews, and watch them while they run."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # Otherwise a run would fail if a model wrote a character that the encoding of stdout does not have.
        reconfigure(errors="replace")
    if version:
        from rxflow import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    target: Target,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=TEXT", help="An input; NAME:=JSON for other values than text."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model of agents without one.")] = None,
    record: Annotated[Path | None, typer.Option(help="Record the run in this file, for rxflow replay.")] = None,
    store: Annotated[str | None, typer.Option(help="Keep the run's log in this store, for rxflow runs.")] = None,
    as_json: AsJson = False,
    as_text: AsText = False,
    as_plain: AsPlain = False,
    traceback: ShowTraceback = False,
) -> None:
    """Run a flow or a crew. Ctrl-C stops the run, including its connections to providers."""
    style = choose_style(as_json=as_json, as_text=as_text, as_plain=as_plain)
    given = read_inputs(inputs or [])
    if model is not None:
        os.environ["MODEL"] = model
    path, source = load_target(target)
    check_inputs(source, given)
    from rxflow import operators as ops
    from rxflow.screens._sources import read_methods

    kept = on_question = None
    is_in_terminal = has_console()
    paused = "the run is paused, because nobody can answer its question; run it in a terminal"
    if is_in_terminal:
        paused = "the run is paused, because its question was not answered; run it again to answer"
    with refuse_on_error():
        if store is not None:
            kept = create_runs(store)
            started = kept.start(path, given or None, answer_within=HANDOVER_S if is_in_terminal else None)
            events: Observable[Any] = started.events()
            paused = say_paused(started.id, store)
            on_question = find_asker(started)
        else:
            events = source.events(given or None)
    if record is not None:
        events = events.pipe(ops.record(record))
    try:
        methods = read_methods(source)
        show_run(events, style, paused=paused, methods=methods, traceback=traceback, on_question=on_question)
    finally:
        if kept is not None:
            kept.close()


@app.command()
def serve(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="A flow class, for example trips:Trip.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 admits other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 chooses a free one.")] = 8000,
    store: Annotated[
        str | None,
        typer.Option("--store", "--runs", help="Keep the runs in this store: sqlite:///runs.db, redis://host:6379/0."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="RXFLOW_TOKEN", help="The secret for access; generated if other machines have access."),
    ] = None,
    when_unread: Annotated[
        str,
        typer.Option(help="What happens to a run without readers: detach, cancel, or cancel after so many seconds."),
    ] = "detach",
    cluster: Annotated[
        str | None,
        typer.Option(help="Carry out the runs on this Ray cluster, for example auto; needs --runs redis://…"),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve a flow as a web page. Ctrl-C stops the server and its live runs."""
    flow = load_flow_class(target)
    unread = read_when_unread(when_unread)
    with refuse_on_error(ModuleNotFoundError):
        from rxflow.screens import web  # needs an optional dependency

    on = None
    if cluster is not None:
        if store is None:
            refuse("--cluster needs a store that all its machines can reach, such as --store redis://host:6379/0")
        with refuse_on_error(ModuleNotFoundError):
            from rxflow.cluster import Ray  # needs an optional dependency

            on = Ray(cluster)

    def announce(address: str) -> None:
        typer.echo(f"{flow.__name__} is served at {address}; press Ctrl-C to stop")
        if show:
            webbrowser.open(address)

    with end_on_signals(), refuse_on_error(), create_runs(store, on=on) as runs:
        try:
            web.serve(flow, host=host, port=port, runs=runs, token=token, when_unread=unread, on_ready=announce)
        except KeyboardInterrupt:
            return  # the usual way to stop a server


@app.command()
def replay(
    cassette: Annotated[Path, typer.Argument(help="A file from ops.record or rxflow run --record.")],
    speed: Annotated[float, typer.Option(help="2 plays twice as fast; inf plays all at once.")] = 1.0,
    as_json: AsJson = False,
    as_text: AsText = False,
    as_plain: AsPlain = False,
) -> None:
    """Play a recorded run again."""
    style = choose_style(as_json=as_json, as_text=as_text, as_plain=as_plain)
    if not cassette.is_file():
        refuse(f"there is no file {str(cassette)!r}")
    from rxflow import operators as ops
    from rxflow.operators._core import read_cassette

    with refuse_on_error():
        events = ops.from_cassette(cassette, speed)
        read_cassette(cassette)  # otherwise a file that is not a cassette would look like a run that failed
    show_run(events, style, paused="the recorded run was paused, because its question was not answered")


@app.command()
def plot(
    target: Target,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The HTML file; by default NAME.html.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the graph as Mermaid text.")] = False,
    show: Annotated[bool, typer.Option(help="Open the page in a browser.")] = False,
) -> None:
    """Draw the graph of a flow into one HTML page that needs no network."""
    from rxflow.flow import Flow

    path, flow = load_target(target)
    if not isinstance(flow, Flow):
        refuse(f"{path} is a {type(flow).__name__}; only a flow has a graph to draw")
    if mermaid:
        typer.echo(flow.to_mermaid())
        return
    if output is not None and output.name in ("", ".."):
        refuse(f"{str(output)!r} is a folder; name the file to write")
    with refuse_on_error(OSError):
        typer.echo(flow.plot(str(output or path.partition(":")[2]), show=show))


@app.command()
def new(name: Annotated[str, typer.Argument(help="The folder to create; it must not exist yet.")]) -> None:
    """Create a small project that runs without an API key or a network."""
    folder = Path(name)
    words = "".join(part.capitalize() for part in folder.name.replace("-", "_").split("_"))
    if not words.isidentifier():
        refuse(f"{folder.name!r} cannot be the name of a project: use letters, digits, - and _, a letter first")
    if words in TAKEN or iskeyword(words):
        refuse(f"{folder.name!r} cannot be the name of a project: {words}, the class of its flow, has another meaning")
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        refuse(f"{name!r} exists; choose another name, or remove it")
    except OSError as error:
        refuse(f"{name!r} cannot be created: {error.strerror}")
    for path, text in FILES.items():
        (folder / path).write_text(text.replace("{Name}", words).replace("{name}", folder.name), encoding="utf-8")
    entered = shlex.quote(str(folder))
    typer.echo(f"{folder} was created. Next:\n\n    cd {entered}\n    rxflow run flow:{words} --input topic=tides")
