"""``hold_back``: nothing is shown before a verdict on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Any, TypeAlias, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

from rxflow.loops import call_soon, running_loop
from rxflow.operators._core.lift import through
from rxflow.operators._core.rows import Rows
from rxflow.operators._core.texts import text_of, with_text
from rxflow.operators._core.voices import shaped

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Release:
    """A verdict: show it."""


@dataclass(frozen=True, slots=True)
class Replace:
    """A verdict: show ``text`` in its place; an empty one shows nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A verdict: end the whole stream, and the calls behind it, with :class:`GuardStopped`."""

    reason: str


Verdict: TypeAlias = Release | Replace | Stop


class GuardStopped(Exception):
    """A guard ended the stream, for ``reason``."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"a guard stopped the stream: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type[GuardStopped], tuple[str]]:
        return type(self), (self.reason,)


def hold_back(
    guard: Callable[[str], Verdict | Awaitable[Verdict]],
    *,
    until: Callable[[Observable[Any]], Observable[Any]] | None = None,
) -> Callable[[Observable[T]], Observable[T]]:
    """Show nothing before ``guard`` has judged it: text is released, replaced, or stops the stream.

    The guard is a function or a coroutine function of the text. It is asked about all that a call says, its reasoning
    by itself; or about each piece that ``until`` makes of it, as ``ops.sentences()`` or ``ops.lines()``. Verdicts on a
    call come one after another, so nothing changes its order. Everything behind an open verdict in the same call
    waits; other calls go on, up to the next event that comes after both (a task has finished, say). Tool calls are not
    judged, and wait only in their place; what a call says before and after one is judged apart. Nor are events that
    repeat the text, as ``LLMFinished`` does: show the chunks, not those.

    The end of the stream waits for open verdicts. So does an error of the source: what came before is judged first. A
    guard that raises, or gives no verdict, ends the stream with that error. Stopping, failing and disposing close the
    provider's connection and cancel open verdicts. What waits is kept in memory, however slow the guard is, as a
    provider cannot be slowed. A guard that is a plain function runs on the run's loop: it must not block. ::

        source                               --a-b.--c-d.-------|
        hold_back(guard, until=sentences)    ---------[ab.]----([cd.])|

    Example::

        async def is_fine(text: str) -> ops.Verdict:
            return ops.Stop("not our topic") if await classify(text) == "politics" else ops.Release()

        flow.observe().pipe(ops.hold_back(is_fine, until=ops.sentences()))

    Raises:
        GuardStopped: as the stream's error: a verdict was :class:`Stop`.
        RuntimeError: as the stream's error: the guard is a coroutine function, and no event loop runs here.
        TypeError: ``guard`` cannot be called; as the stream's error: what it gave is no verdict.
    """
    if not callable(guard):
        raise TypeError(f"hold_back(guard) takes a function of the text; got {guard!r}")

    def judged(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            court = _Court(guard, observer)
            court.source.disposable = source.subscribe(
                court.on_next, court.on_error, court.on_completed, scheduler=scheduler
            )
            return CompositeDisposable(Disposable(court.close), court.source)

        return Observable(subscribe)

    def apply(source: Observable[T]) -> Observable[T]:
        pieces = shaped(_All) if until is None else until
        return through(judged)(pieces(source))

    return apply


class _All:
    """All that a call says, in one piece."""

    def __init__(self) -> None:
        self._held: list[str] = []

    def feed(self, text: str) -> Sequence[str]:
        self._held.append(text)
        return ()

    def flush(self) -> Sequence[str]:
        held, self._held = self._held, []
        return ("".join(held),) if held else ()


class _Court:
    """What is judged in one subscription."""

    def __init__(self, guard: Callable[[str], Verdict | Awaitable[Verdict]], observer: ObserverBase[Any]) -> None:
        self.source = SingleAssignmentDisposable()
        self._guard = guard
        self._observer = observer
        self._is_on_a_loop = running_loop() is not None
        self._rows = Rows()
        self._open: dict[str, asyncio.Future[Verdict]] = {}
        self._end: Callable[[], None] | None = None
        self._is_over = False
        self._is_judging = False

    def on_next(self, item: object) -> None:
        if self._is_over:
            return
        if self._rows or text_of(item):
            self._rows.add(item)
            self._judge()
        else:
            self._observer.on_next(item)

    def on_error(self, error: Exception) -> None:
        self._end = partial(self._observer.on_error, error)
        self._judge()

    def on_completed(self) -> None:
        self._end = self._observer.on_completed
        self._judge()

    def close(self) -> None:
        """It is over: cancel open verdicts, from any thread."""
        self._is_over = True
        for verdict in list(self._open.values()):
            loop = verdict.get_loop()
            if running_loop() is loop:
                verdict.cancel()
            else:
                call_soon(loop, verdict.cancel)

    def _judge(self) -> None:
        """Let out what may come out."""
        if self._is_judging:
            return
        self._is_judging = True
        try:
            while self._rows and not self._is_over:
                section = self._rows.first
                for place, row in list(section.rows.items()):
                    if place not in self._open:
                        self._judge_row(place, row)
                if section.rows:
                    break
                for event in self._rows.end_section():
                    self._observer.on_next(event)
        finally:
            self._is_judging = False
        if not self._rows and not self._is_over and self._end is not None:
            self._is_over = True
            self._end()

    def _judge_row(self, place: str, row: deque[object]) -> None:
        """Judge one call up to a verdict that is open."""
        while row and not self._is_over:
            text = text_of(row[0])
            if not text:
                self._observer.on_next(row.popleft())
                continue
            try:
                verdict = self._guard(text)
                if isawaitable(verdict):
                    self._wait_for(verdict, place)
                    return
            except Exception as error:  # noqa: BLE001 - users' code: what it raises is the stream's error
                self._fail(error)
                return
            self._carry_out(verdict, row)
        if not self._is_over:
            self._rows.end_row(place)

    def _wait_for(self, verdict: Awaitable[Verdict], place: str) -> None:
        # Subscribed without a loop, the one that runs here is the source's own, which ends with it.
        if running_loop() is None or not self._is_on_a_loop:
            if isinstance(verdict, Coroutine):
                verdict.close()
            raise RuntimeError(
                "hold_back has a guard that is a coroutine function, and no event loop runs here: put it directly "
                "after observe() or events(), or subscribe inside a coroutine"
            )
        task = self._open[place] = asyncio.ensure_future(verdict)
        task.add_done_callback(partial(self._decided, place))

    def _decided(self, place: str, verdict: asyncio.Future[Verdict]) -> None:
        self._open.pop(place, None)
        if self._is_over:
            return
        try:
            decided = verdict.result()
        except BaseException as error:  # noqa: BLE001 - also a guard's own CancelledError, as nobody else waits for it
            self._fail(cast(Exception, error))
            return
        self._carry_out(decided, self._rows.first.rows[place])
        self._judge()

    def _carry_out(self, verdict: Verdict, row: deque[object]) -> None:
        """Do what a guard said of the first item of a row."""
        item = row.popleft()
        match cast(object, verdict):
            case Release():
                self._observer.on_next(item)
            case Replace(text=""):
                pass
            case Replace(text=text):
                self._observer.on_next(with_text(item, text))
            case Stop(reason=reason):
                self._fail(GuardStopped(reason))
            case other:
                self._fail(
                    TypeError(f"a guard gives Release(), Replace(text) or Stop(reason); this one gave {other!r}")
                )

    def _fail(self, error: Exception) -> None:
        self.close()
        self.source.dispose()
        self._rows.clear()
        self._observer.on_error(error)
