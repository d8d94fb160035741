"""Tools for checking conformance rules: cases, observers that record signals, and sources that the rules control."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Self, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxflow._loops import LoopScheduler, call_soon, running_loop
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.testing._virtual_time import VirtualLoop
from rxflow.testing.leaks import collecting


class ConformanceError(AssertionError):
    """An operator or a source breaks a rule. ``rule`` names the rule. ``seen`` describes what happened."""

    def __init__(self, subject: str, rule: str, seen: str) -> None:
        super().__init__(f"{subject} breaks the rule “{rule}”: {seen}")
        self.rule = rule
        self.seen = seen


_LINGERING = 0.02  # seconds that a lingering witness stays in its first signal, unless another signal overlaps it


def _nothing(*_: object) -> None:
    """Do nothing, whatever the arguments are."""


class Witness(ObserverBase[Any]):
    """An observer that records all signals. ``on_item`` is called with each item, and may raise.

    Two lists have the signals that break a rule: ``after_the_end`` has the signals after a terminal, and ``overlaps``
    has the signals that came during another signal. If ``lingers`` is True, the first signal takes a while. This gives
    other threads the time to send an overlapping signal.
    """

    def __init__(self, on_item: Callable[[Any], object] = _nothing, *, lingers: bool = False) -> None:
        self.items: list[Any] = []
        self.errors: list[BaseException] = []
        self.completions = 0
        self.signals = 0
        self.after_the_end: list[str] = []
        self.overlaps: list[str] = []
        self.threads: list[int] = []
        self.on_end: Callable[[], object] = _nothing
        self.on_signal: Callable[[], object] = _nothing
        self._on_item = on_item
        self._inside: int | None = None
        self._intruded = threading.Event()
        self._lingers = lingers

    @property
    def terminals(self) -> int:
        """The number of terminal signals. More than one breaks the rules."""
        return len(self.errors) + self.completions

    @property
    def error(self) -> BaseException | None:
        """The first error; None if there is none."""
        return self.errors[0] if self.errors else None

    @property
    def signals_text(self) -> str:
        """The recorded signals as text, for messages."""
        end = [f"error {error!r}" for error in self.errors] + ["completed"] * self.completions
        return f"{shortly(self.items)}, then {' and '.join(end) or 'no end'}"

    def on_next(self, value: Any) -> None:
        with self._noting(f"on_next({value!r})"):
            self.items.append(value)
            self._on_item(value)

    def on_error(self, error: Exception) -> None:
        with self._noting(f"on_error({error!r})"):
            self.errors.append(error)
        self.on_end()

    def on_completed(self) -> None:
        with self._noting("on_completed()"):
            self.completions += 1
        self.on_end()

    def release(self) -> weakref.ref[Self]:
        """Return a weak reference to this witness.

        First drop the tracebacks of the recorded errors, because they would keep the witness alive.
        """
        for error in self.errors:
            each: BaseException | None = error
            while each is not None:
                each.__traceback__ = None
                each = each.__context__
        return weakref.ref(self)

    @contextmanager
    def _noting(self, signal: str) -> Generator[None]:
        thread = threading.get_ident()
        if self.terminals:
            self.after_the_end.append(signal)
        if self._inside is not None:
            where = "the same thread" if self._inside == thread else "another thread"
            self.overlaps.append(f"{signal} came from {where} inside another signal")
            self._intruded.set()
        self.signals += 1
        self.threads.append(thread)
        before, self._inside = self._inside, thread
        try:
            if self._lingers and self.signals == 1:
                self._intruded.wait(_LINGERING)
            yield
        finally:
            self._inside = before
            self.on_signal()


def subscribe_unprotected(source: Observable[Any], witness: Witness, scheduler: SchedulerBase | None) -> DisposableBase:
    """Subscribe without RxPY's protection, which would hide signals after an end or a disposal.

    RxPY's protection does two more things, which this function does too. A terminal signal disposes the subscription.
    If the source's subscribe function raises, the witness gets the error.
    """
    subscription = SingleAssignmentDisposable()
    witness.on_end = subscription.dispose

    def subscribe(observer: ObserverBase[Any], given: SchedulerBase | None = None) -> DisposableBase:
        return source._subscribe_core(witness, given)  # pyright: ignore[reportPrivateUsage]

    subscription.disposable = Observable(subscribe).subscribe(on_error=witness.on_error, scheduler=scheduler)
    return subscription


def shortly(items: list[Any]) -> str:
    """Return items as text for a message. Of many items, only the first twelve are shown."""
    return repr(items) if len(items) <= 12 else f"{items[:12]!r}… ({len(items)} items)"


SIGNAL_TIMEOUT_S = 2.0  # real seconds to wait for an expected signal; seconds of loop time to wait for the end of tasks
_THREAD_END_S = 0.2  # real seconds to wait for the end of each thread
_VIRTUAL_TIMEOUT_S = 600.0  # virtual seconds after which an expected signal counts as missing
DISPOSAL_LIMIT_S = 1.0  # real seconds that a disposal may take; long enough for a busy machine


class Case:
    """One check of one rule.

    ``subject`` names the operator or source in messages. ``reports`` lists the errors that nobody handled.
    """

    def __init__(self, subject: str, *, settling: float, real_time: bool = False) -> None:
        self.subject = subject
        self.rule = ""
        self.reports: list[str] = []
        self._settling = settling
        self._real_time = real_time
        self._threads = set(threading.enumerate())

    def broken(self, seen: str) -> ConformanceError:
        """Return the error for the broken rule. ``seen`` describes what happened."""
        return ConformanceError(self.subject, self.rule, seen)

    def scheduler(self) -> SchedulerBase:
        """Return a scheduler for the running loop."""
        return LoopScheduler(asyncio.get_running_loop())

    async def settle(self) -> None:
        """Wait for the settling time, so that the subject's timers can fire."""
        await asyncio.sleep(self._settling)

    async def wait_for_end(self, witness: Witness) -> None:
        """Wait until a witness has a terminal signal. Raises ConformanceError if none comes."""
        if not await self.wait_until(witness, lambda: witness.terminals > 0):
            raise self.broken(f"no end came; it emitted {witness.signals_text}")

    async def wait_until(self, witness: Witness, enough: Callable[[], bool]) -> bool:
        """Wait until ``enough()`` returns True, and return True. After a time limit, return False.

        ``enough`` is called at once, after each signal on the signal's thread, and at the end of the wait.
        """
        came = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if enough():
                call_soon(loop, came.set)

        witness.on_signal = on_signal
        if enough():
            return True
        try:
            async with asyncio.timeout(SIGNAL_TIMEOUT_S if self._real_time else _VIRTUAL_TIMEOUT_S):
                await came.wait()
        except TimeoutError:
            if not self._real_time and not self._threads.issuperset(threading.enumerate()):
                await _in_real_time(came)  # other threads may still send a signal, and need real time for it
        return enough()

    def dispose_elsewhere(self, subscription: DisposableBase) -> None:
        """Dispose from another thread. The calling thread waits meanwhile, so its loop is blocked."""
        errors: list[BaseException] = []

        def dispose() -> None:
            try:
                subscription.dispose()
            except BaseException as error:  # noqa: BLE001 - reported below
                errors.append(error)

        thread = threading.Thread(target=dispose, name="disposing", daemon=True)
        thread.start()
        thread.join(DISPOSAL_LIMIT_S)
        if thread.is_alive():
            raise self.broken(
                f"dispose() from another thread, with the loop busy, took longer than {DISPOSAL_LIMIT_S} s"
            )
        if errors:
            raise self.broken(f"dispose() from another thread raised {errors[0]!r}")

    def dispose(self, subscription: DisposableBase) -> None:
        """Dispose in this thread."""
        try:
            subscription.dispose()
        except Exception as error:
            raise self.broken(f"dispose() raised {error!r}") from error

    def require_silence(self, witness: Witness, count_before: int) -> None:
        """Require that no signal came after the disposal. ``count_before`` is the number of earlier signals.

        If signals came from another thread, one late signal is allowed, because the thread may have begun to send this
        signal before the disposal.
        """
        may_come = 0 if set(witness.threads) <= {threading.get_ident()} else 1
        late = witness.signals - count_before
        if late > may_come:
            raise self.broken(f"{late} signal(s) came after the disposal; it emitted {witness.signals_text}")

    def require_forgotten(self, observer: weakref.ref[Any], when: str) -> None:
        """Require that nothing references the observer any more."""
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(_THREAD_END_S)  # the stack of the thread may hold a reference
        if observer() is not None:
            gc.collect()
        if observer() is not None:
            raise self.broken(f"{when} it still holds a reference to its observer")


C = TypeVar("C", bound=Case)

Attempt: TypeAlias = Callable[[C], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Rule(Generic[C]):
    """One rule. ``attempt`` checks the rule. If ``may_report`` is True, unhandled errors do not break the rule."""

    name: str
    attempt: Attempt[C]
    may_report: bool = False


def rule(name: str, into: list[Rule[C]], *, may_report: bool = False) -> Callable[[Attempt[C]], Attempt[C]]:
    """Return a decorator that adds a rule to the list ``into``. The decorated function checks the rule."""

    def enter(attempt: Attempt[C]) -> Attempt[C]:
        into.append(Rule(name, attempt, may_report))
        return attempt

    return enter


def try_all(rules: Sequence[Rule[C]], make: Callable[[], C], *, real_time: bool = False) -> None:
    """Check each rule with a separate case.

    Raises:
        ConformanceError: a rule is broken. The remaining rules are not checked.
        RuntimeError: an event loop is running in this thread.
    """
    if running_loop() is not None:
        raise RuntimeError("a conformance suite uses its own event loop; call it from a test that is not async")
    for each in rules:
        case = make()
        case.rule = each.name
        with collecting(), _noting_errors_of_threads(case.reports), _runner(real_time=real_time) as runner:
            runner.get_loop().set_exception_handler(partial(_report, case.reports))
            runner.run(each.attempt(case))
        if case.reports and not each.may_report:
            raise case.broken(f"nobody handled an error: {case.reports[0]}")


@contextmanager
def _runner(*, real_time: bool) -> Generator[asyncio.Runner]:
    if real_time:
        with asyncio.Runner() as runner:
            yield runner
    else:
        # The loop must be patient (see VirtualLoop), because threads of RxPY's schedulers may wake it. VirtualClock
        # gives virtual time to runs on other loops too.
        with VirtualClock(), asyncio.Runner(loop_factory=partial(VirtualLoop, is_patient=True)) as runner:
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


async def _in_real_time(came: asyncio.Event) -> None:
    """Wait for ``came`` in real time, but at most ``SIGNAL_TIMEOUT_S`` seconds."""
    limit = threading.Timer(SIGNAL_TIMEOUT_S, call_soon, (asyncio.get_running_loop(), came.set))
    limit.daemon = True
    limit.start()
    try:
        await came.wait()
    finally:
        limit.cancel()


class Strand:
    """One subscription to a :class:`Puppet`."""

    def __init__(self, observer: ObserverBase[Any], scheduler: SchedulerBase | None, *, stubborn: bool) -> None:
        self.scheduler = scheduler
        self.is_disposed = False
        self.is_ended = False
        self._stubborn = stubborn
        self._observer: ObserverBase[Any] | None = observer

    @property
    def is_over(self) -> bool:
        """Whether the subscription has ended or was disposed."""
        return self.is_ended or self.is_disposed

    def say(self, items: Iterable[Any]) -> None:
        """Emit ``items`` one after the other, until the subscription ends or is disposed.

        A stubborn strand also emits after a disposal, but not after a terminal.
        """
        for item in items:
            observer = self._observer
            if observer is None:
                return
            observer.on_next(item)

    def complete(self) -> None:
        """Complete the subscription."""
        observer = self._end()
        if observer is not None:
            observer.on_completed()

    def fail(self, error: Exception) -> None:
        """End the subscription with an error."""
        observer = self._end()
        if observer is not None:
            observer.on_error(error)

    def dispose(self) -> None:
        """Record that the subscriber has disposed the subscription. A stubborn strand can still emit after that."""
        self.is_disposed = True
        if not self._stubborn:
            self._observer = None

    def _end(self) -> ObserverBase[Any] | None:
        self.is_ended = True
        observer, self._observer = self._observer, None
        return observer


class Puppet:
    """A cold source that a rule controls. For each subscription, the rule gets a new :class:`Strand` to emit signals.

    ``on_subscribe`` is called with each new strand, and may emit signals at once. The strands of a ``stubborn`` puppet
    can still emit after their disposal.
    """

    def __init__(self, on_subscribe: Callable[[Strand], object] = lambda _: None, *, stubborn: bool = False) -> None:
        self.strands: list[Strand] = []
        self._on_subscribe = on_subscribe
        self._stubborn = stubborn
        self.observable: Observable[Any] = Observable(self._subscribe)

    def _subscribe(self, observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        strand = Strand(observer, scheduler, stubborn=self._stubborn)
        self.strands.append(strand)
        self._on_subscribe(strand)
        return Disposable(strand.dispose)
