"""The commands ``rxflow runs …``, for runs in a store."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args
from urllib.parse import urlsplit

from rxflow import _lazy
from rxflow._streaming import has_console
from rxflow._text import in_words, shorten, show_line
from rxflow.cli._showing import AsJson, AsPlain, AsText, ShowTraceback, choose_style, show_run
from rxflow.cli._targets import INTERRUPTED, load_target, refuse, refuse_on_error
from rxflow.screens._lanes import count, show_error, show_seconds
from rxflow.types import Approval, InputRequested

if TYPE_CHECKING:
    from rxflow.runs import Head, Run, Runs, Status


with _lazy.extra("cli"):
    import typer


runs_app = typer.Typer(help="List, show, follow, resume and cancel the runs of a store.", no_args_is_help=True)

STORE_VARIABLE = "RXFLOW_STORE"
StoreName = Annotated[
    str, typer.Option("--store", envvar=STORE_VARIABLE, help="sqlite:///runs.db, or redis://host:6379/0.")
]
RunId = Annotated[str, typer.Argument(metavar="ID", help="The id that rxflow runs list shows, or its beginning.")]
DEFAULT_STORE = "sqlite:///runs.db"
HANDOVER_S = 60.0
"""How many seconds a question waits for the console.

If the console is not ready by then, the run is paused, and nobody is asked.
"""

_SQLITE = "sqlite:///"
_SCHEMES = ("redis://", "rediss://", "unix://")


@runs_app.command("list")
def list_runs(
    store: StoreName = DEFAULT_STORE,
    status: Annotated[str | None, typer.Option(help="Only runs of this status: running, failed, lost …")] = None,
) -> None:
    """List the runs, oldest first."""
    from rxflow.runs import Status

    known = cast("tuple[Status, ...]", get_args(Status))
    wanted: Status | None = next((each for each in known if each == status), None)
    if status is not None and wanted is None:
        refuse(f"there is no status {status!r}; choose one of {', '.join(known)}")
    with _open_store(store) as runs:
        for head in runs.store.list(wanted).result():
            typer.echo(f"{head.run_id}  {head.status:<9}  {_when(head.begun_at)}  {shorten(head.spec.target) or '-'}")


@runs_app.command()
def show(run_id: RunId, store: StoreName = DEFAULT_STORE) -> None:
    """Show the status of a run, and its open questions."""
    with _open_store(store) as runs:
        run = _find_run(runs, run_id, store)
        for name, value in _describe(run.look_up()).items():
            typer.echo(f"{name:<10} {value}")
        for request in run.pending():
            typer.echo(f"{'asks':<10} {shorten(request.message, 200)} ({request.request_id})")


@runs_app.command()
def follow(
    run_id: RunId,
    store: StoreName = DEFAULT_STORE,
    after: Annotated[int, typer.Option(help="Begin after the event with this number.")] = -1,
    as_json: AsJson = False,
    as_text: AsText = False,
    as_plain: AsPlain = False,
) -> None:
    """Show a run from its beginning or after an event, then live. Ctrl-C stops following; the run continues."""
    style = choose_style(as_json=as_json, as_text=as_text, as_plain=as_plain)
    with _open_store(store) as runs:
        run = _find_run(runs, run_id, store)
        try:
            show_run(run.events(after), style, paused=say_paused(run.id, store))
        except typer.Exit as ended:
            if ended.exit_code == INTERRUPTED:
                typer.echo(f"rxflow: the run continues; {write_command('cancel', store, run.id)} stops it", err=True)
            raise


@runs_app.command()
def resume(
    run_id: RunId,
    answers: Annotated[
        list[str] | None,
        typer.Option("--answer", "-a", metavar="TEXT", help="Answer the open question; again for the next one."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="The flow or crew, if the run was not started by such a name."),
    ] = None,
    store: StoreName = DEFAULT_STORE,
    as_json: AsJson = False,
    as_text: AsText = False,
    as_plain: AsPlain = False,
    traceback: ShowTraceback = False,
) -> None:
    """Continue a paused, failed, cancelled or lost run here. In a terminal, its open questions are asked."""
    from rxflow.runs import LIVE
    from rxflow.screens._sources import read_methods

    style = choose_style(as_json=as_json, as_text=as_text, as_plain=as_plain)
    with _open_store(store) as runs:
        run = _find_run(runs, run_id, store)
        head = run.look_up()
        if head.status in (*LIVE, "completed"):
            refuse(f"run {run.id} is {head.status}: {write_command('follow', store, run.id)} shows it")
        if not (target or head.spec.target):
            resumed = write_command("resume", store, run.id)
            refuse(f"run {run.id} was not started by a name: name its flow or crew, {resumed} --target MODULE:NAME")
        _, source = load_target(target or head.spec.target)
        with refuse_on_error():
            given = _read_answers(run.pending(), answers or [])
            run.resume(given, source, answer_within=HANDOVER_S if has_console() else None)
        show_run(
            run.events(head.last),
            style,
            paused=say_paused(run.id, store),
            methods=read_methods(source),
            traceback=traceback,
            on_question=find_asker(run),
        )


@runs_app.command()
def cancel(
    run_id: RunId,
    store: StoreName = DEFAULT_STORE,
    reason: Annotated[str, typer.Option(help="The reason for its readers.")] = "cancelled from the command line",
) -> None:
    """Cancel a live or paused run, and close the run's connections to providers. The run may be in another process."""
    from rxflow.runs import LIVE

    with _open_store(store) as runs:
        run = _find_run(runs, run_id, store)
        before = run.status
        if before not in (*LIVE, "paused"):
            refuse(f"run {run.id} is already {before}")
        run.cancel(reason)
        typer.echo(f"{run.id} was asked to stop")


def create_runs(store: str | None, **options: Any) -> Runs:
    """Open a store; None means the memory of this process. Exit if ``store`` does not describe a store."""
    if store is not None:
        _check_store(store)
    from rxflow.runs import Runs  # imported here, because ``rxflow run`` without --store does not need it

    return Runs(store, **options)


def _check_store(name: str) -> None:
    """Exit if ``name`` does not describe a store. ``Runs`` would describe its Python argument, which may be None."""
    if (name.startswith(_SQLITE) and name != _SQLITE) or name.startswith(_SCHEMES):
        return
    scheme, colon, path = name.rpartition(":")
    path = path.lstrip("/") if colon else path
    if path and scheme in ("", "sqlite"):
        refuse(f"--store {name!r} is not the URL of a store; write {_SQLITE}{path}")
    refuse(f"--store {name!r} is not the URL of a store, such as {DEFAULT_STORE} or redis://host:6379/0")


@contextmanager
def _open_store(name: str) -> Generator[Runs]:
    from rxflow.runs import StoreError

    _check_store(name)
    if name.startswith(_SQLITE) and not Path(name.removeprefix(_SQLITE)).is_file():
        refuse(f"there is no store {name!r}: rxflow run MODULE:NAME --store {shlex.quote(name)} creates one")
    with refuse_on_error():
        runs = create_runs(name)
    try:
        with runs:
            yield runs
    except StoreError as error:
        refuse(f"the store {name!r} cannot be read: {shorten(in_words(error), 200)}")


def _read_answers(pending: Sequence[InputRequested], given: Sequence[str]) -> dict[str, Any]:
    """Return the answers by the ids of their questions. The first answer is for the oldest question."""
    if len(given) > len(pending):
        refuse(f"{len(given)} × --answer is too many: the run has {count(len(pending), 'open question')}")
    return {
        # The schema of an approval asks for an object; a person types "y" or "no, too dear".
        request.request_id: Approval.model_validate(text).model_dump() if request.kind == "approval" else text
        for request, text in zip(pending, given, strict=False)
    }


def find_asker(run: Run) -> Callable[[str], object] | None:
    """Return the function that asks a question of ``run`` at the console; None if there is no console."""
    return run.worker.decline if run.worker is not None and has_console() else None


def write_command(verb: str, store: str, run_id: str = "") -> str:
    """Return a command ``rxflow runs …`` for a person to copy.

    The command names the store, unless the store is the one that ``rxflow runs`` uses anyway. A URL with a password is
    not repeated, because the line may be in a log.
    """
    command = f"rxflow runs {verb} {shlex.quote(run_id)}" if run_id else f"rxflow runs {verb}"
    if store == (os.environ.get(STORE_VARIABLE) or DEFAULT_STORE):
        return command
    return f"{command} --store {'…' if urlsplit(store).password else shlex.quote(store)}"


def say_paused(run_id: str, store: str) -> str:
    """Return the line to print when a run in a store is paused."""
    return (
        f"run {run_id} is paused until its question is answered: {write_command('show', store, run_id)} shows it, "
        f"and {write_command('resume', store, run_id)} takes the answer "
        "(without a terminal: with --answer TEXT)"
    )


def _find_run(runs: Runs, run_id: str, store: str) -> Run:
    matching = [run for run in runs.list() if run.id.startswith(run_id)]
    exact = [run for run in matching if run.id == run_id]
    if len(exact or matching) != 1:
        found = ", ".join(run.id for run in matching)
        missing = f"there is no run {run_id!r}: {write_command('list', store)} lists the runs"
        refuse(f"{run_id!r} begins several run ids: {found}" if matching else missing)
    return (exact or matching)[0]


def _describe(head: Head) -> dict[str, str]:
    said = {"id": head.run_id, "status": head.status, "target": head.spec.target or "-", "begun": _when(head.begun_at)}
    if head.spec.inputs:
        said["inputs"] = show_line(json.dumps(dict(head.spec.inputs), ensure_ascii=False, default=in_words))
    if head.ended_at is not None:
        said["ended"] = f"{_when(head.ended_at)}, after {show_seconds(head.ended_at - head.begun_at)}"
    said["events"] = str(head.last + 1)
    if head.error is not None:
        said["error"] = show_error(head.error)
    if head.reason:
        said["reason"] = shorten(head.reason, 200)
    return said


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
