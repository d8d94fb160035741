"""A program that dies: forks a worker for each event of a run, kills it there, and resumes the run in another process.

Prints a line of JSON for each: what the resumed run came to, and what the model and the tool were asked in all.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow import operators as ops
from rxflow._streaming.observable import EventStream
from rxflow.flow import Flow
from rxflow.runs import Run, RunLost, Runs, SQLiteLog
from rxflow.types.events import Event
from tests.flow.trip import World, text_of

LEASE_S = 0.3  # of a worker that dies; one that goes on must not be taken for dead
PATIENCE_S = 100


class Deadly:
    """A flow that kills its process when so many of its events are in the log."""

    def __init__(self, flow: Flow[Any], log: SQLiteLog, survives: int) -> None:
        self._flow = flow
        self._log = log
        self._survives = survives

    def events(self, inputs: Mapping[str, Any] | None = None) -> EventStream[Event]:
        return self._flow.events(inputs).through(self._die)

    def _die(self, source: Observable[Event]) -> Observable[Event]:
        def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
            seen = 0

            def on_next(event: Event) -> None:
                nonlocal seen
                if dead.is_set():
                    return
                observer.on_next(event)
                seen += 1
                if seen == self._survives:
                    dead.set()
                    threading.Thread(target=self._kill, daemon=True).start()

            # What the process still does until the log has the event, and it dies, is as if it had not been done.
            return source.subscribe(
                on_next,
                lambda error: None if dead.is_set() else observer.on_error(error),
                lambda: None if dead.is_set() else observer.on_completed(),
                scheduler=scheduler,
            )

        return Observable(subscribe)

    def _kill(self) -> None:
        run_id, last = name_of(self._survives), self._survives - 1
        while self._log.look_up(run_id).result().last < last:
            self._log.wait(run_id, last - 1).result()
        os.kill(os.getpid(), signal.SIGKILL)


dead = threading.Event()


def name_of(survives: int) -> str:
    return f"run {survives}"


class Noted(World):
    """Keeps what was asked in a file, which outlives the process."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        asked, looked = self.model.asked, self.looked

        class Notes(list[str]):
            def append(self, what: str) -> None:
                if not dead.is_set():
                    with notes.open("a", encoding="utf-8") as file:
                        file.write(f"{what}\n")

        self.model.asked = Notes(asked)
        self.looked = Notes(looked)


def in_a_process(work: Any, *arguments: Any) -> int:
    """Run ``work`` in a fork, and return how that ended."""
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE_S)
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - shown where the parent reads
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flow_of(world: World) -> Any:
    flow = world.flow()
    flow.input_provider = world.answer
    return flow


def live_and_die(folder: Path, survives: int) -> None:
    log = SQLiteLog(str(folder / "runs.db"), lease_s=LEASE_S)
    runs = Runs(log)
    runs.start(Deadly(flow_of(Noted(folder / "notes")), log, survives), run_id=name_of(survives)).result()


def go_on(folder: Path, survives: int) -> None:
    with Runs(f"sqlite:///{folder / 'runs.db'}", lease=PATIENCE_S) as runs:
        run = runs[name_of(survives)]
        until_lost(run)
        world = Noted(folder / "notes")
        run.resume(target=flow_of(world))
        result = run.result(PATIENCE_S)
        events: list[Event] = list(run.events().pipe(ops.to_output()))
        notes = (folder / "notes").read_text(encoding="utf-8").splitlines()
        (folder / "notes").unlink()
        print(json.dumps({"cut": survives, "result": result, "text": text_of(events), "asked": notes}), flush=True)


def until_lost(run: Run) -> None:
    """Wait until the lease of the dead worker has lapsed."""
    with suppress(RunLost):
        list(run.events().pipe(ops.to_output()))


if __name__ == "__main__":
    where, count = Path(sys.argv[1]), int(sys.argv[2])
    for cut in range(1, count):
        ended = in_a_process(live_and_die, where, cut)
        if ended != -signal.SIGKILL:
            sys.exit(f"after {cut} events the worker was to be killed; it ended with {ended}")
        if in_a_process(go_on, where, cut) != 0:
            sys.exit(f"the run that was cut off after {cut} events could not go on")
