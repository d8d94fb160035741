"""Rules, and how they are tried: each on an event loop of its own."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from reactivex.abc import DisposableBase, SchedulerBase

from rxflow.loops import LoopScheduler, call_soon, running_loop
from rxflow.testing.conformance.error import ConformanceError
from rxflow.testing.conformance.witness import Witness
from rxflow.testing.due import collecting
from rxflow.testing.virtual_clock import VirtualClock
from rxflow.testing.virtual_loop import VirtualLoop

PATIENCE = 2.0  # seconds of real time: what does not come until then does not come
_ENDING = 0.2  # the same for threads that come to their end
_LONG = 600.0  # the same in virtual time, where it costs nothing
QUICK = 1.0  # seconds of real time that a disposal may take, with room for a busy machine


class Case:
    """What is tried, and the loop it is tried on."""

    def __init__(self, subject: str, *, settling: float, real_time: bool = False) -> None:
        self.subject = subject
        self.rule = ""
        self.reports: list[str] = []
        self._settling = settling
        self._real_time = real_time
        self._threads = set(threading.enumerate())

    def broken(self, seen: str) -> ConformanceError:
        """The rule that is being tried is broken."""
        return ConformanceError(self.subject, self.rule, seen)

    def scheduler(self) -> SchedulerBase:
        """One for the loop that runs."""
        return LoopScheduler(asyncio.get_running_loop())

    async def settle(self) -> None:
        """Let the timers fire that are set."""
        await asyncio.sleep(self._settling)

    async def ended(self, witness: Witness) -> None:
        """Wait until a witness has been told an end."""
        if not await self.told(witness, lambda: witness.terminals > 0):
            raise self.broken(f"no end came; it was told {witness.told}")

    async def told(self, witness: Witness, enough: Callable[[], bool]) -> bool:
        """Wait until a witness has been told enough; False where that does not come."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if enough():
                call_soon(loop, told.set)

        witness.on_signal = on_signal
        if enough():
            return True
        try:
            async with asyncio.timeout(PATIENCE if self._real_time else _LONG):
                await told.wait()
        except TimeoutError:
            if not self._real_time and not self._threads.issuperset(threading.enumerate()):
                await _in_real_time(told)  # of which virtual time knows nothing
        return enough()

    def dispose_elsewhere(self, subscription: DisposableBase) -> None:
        """Dispose from another thread, while this one, and with it the loop, stands still."""
        errors: list[BaseException] = []

        def dispose() -> None:
            try:
                subscription.dispose()
            except BaseException as error:  # noqa: BLE001 - said below
                errors.append(error)

        thread = threading.Thread(target=dispose, name="disposing", daemon=True)
        thread.start()
        thread.join(QUICK)
        if thread.is_alive():
            raise self.broken(f"dispose() from another thread, with the loop busy, took longer than {QUICK} s")
        if errors:
            raise self.broken(f"dispose() from another thread raised {errors[0]!r}")

    def dispose(self, subscription: DisposableBase) -> None:
        """Dispose here."""
        try:
            subscription.dispose()
        except Exception as error:
            raise self.broken(f"dispose() raised {error!r}") from error

    def require_silence(self, witness: Witness, told: int) -> None:
        """No more signals than the ``told`` ones; but from another thread one may have been on its way."""
        may_come = 0 if set(witness.threads) <= {threading.get_ident()} else 1
        late = witness.signals - told
        if late > may_come:
            raise self.broken(f"{late} signal(s) came after the disposal; it was told {witness.told}")

    def require_forgotten(self, observer: weakref.ref[Any], when: str) -> None:
        """Nothing that still stands may hold on to an observer."""
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(_ENDING)  # its stack may be what holds on
        if observer() is not None:
            gc.collect()
        if observer() is not None:
            raise self.broken(f"{when} it still holds a reference to its observer")


C = TypeVar("C", bound=Case)

Attempt: TypeAlias = Callable[[C], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Rule(Generic[C]):
    """One rule by its name, and how to try it. ``may_report``: the loop's exception handler may be told something."""

    name: str
    attempt: Attempt[C]
    may_report: bool = False


def rule(name: str, into: list[Rule[C]], *, may_report: bool = False) -> Callable[[Attempt[C]], Attempt[C]]:
    """Enter a function into a list of rules."""

    def enter(attempt: Attempt[C]) -> Attempt[C]:
        into.append(Rule(name, attempt, may_report))
        return attempt

    return enter


def try_all(rules: Sequence[Rule[C]], make: Callable[[], C], *, real_time: bool = False) -> None:
    """Try each rule on a case of its own. Raises ConformanceError for the first that is broken."""
    if running_loop() is not None:
        raise RuntimeError("a conformance suite brings its own event loop: call it from a test that is not async")
    for each in rules:
        case = make()
        case.rule = each.name
        with collecting(), _noting_errors_of_threads(case.reports), _runner(real_time=real_time) as runner:
            runner.get_loop().set_exception_handler(partial(_report, case.reports))
            runner.run(each.attempt(case))
        if case.reports and not each.may_report:
            raise case.broken(f"an error came up that nobody handles: {case.reports[0]}")


@contextmanager
def _runner(*, real_time: bool) -> Generator[asyncio.Runner]:
    if real_time:
        with asyncio.Runner() as runner:
            yield runner
    else:
        # Patient, as threads of RxPY's schedulers may wake it. The clock is for what runs on a loop of its own.
        with VirtualClock(), asyncio.Runner(loop_factory=partial(VirtualLoop, patient=True)) as runner:
            yield runner


@contextmanager
def _noting_errors_of_threads(reports: list[str]) -> Generator[None]:
    before = threading.excepthook
    threading.excepthook = lambda args: reports.append(f"{args.exc_value!r} in the thread {args.thread}")
    try:
        yield
    finally:
        threading.excepthook = before


def _report(reports: list[str], loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    reports.append(f"{context.get('message')}: {context.get('exception')!r}")


async def _in_real_time(told: asyncio.Event) -> None:
    """Give other threads some time."""
    limit = threading.Timer(PATIENCE, call_soon, (asyncio.get_running_loop(), told.set))
    limit.daemon = True
    limit.start()
    try:
        await told.wait()
    finally:
        limit.cancel()
