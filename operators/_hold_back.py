"""``hold_back``: holds text back until a guard has judged it."""

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

from rxflow._loops import call_soon, running_loop
from rxflow._streaming import Cleanup, Holder, Owned, stopping
from rxflow.operators._core import CallQueues, add_context, get_text, replace_text, shape_text, through

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Release:
    """A verdict: emit the text."""


@dataclass(frozen=True, slots=True)
class Replace:
    """A verdict: emit ``text`` instead of the judged text. If ``text`` is empty, emit nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A verdict: stop the calls of the stream, and end the whole stream with :class:`GuardStopped`."""

    reason: str


Verdict: TypeAlias = Release | Replace | Stop


class GuardStopped(Exception):
    """A guard ended the stream. ``reason`` is the reason of its verdict :class:`Stop`."""

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
    r"""Hold text back until ``guard`` has judged it (like ``concat_map``).

    The guard releases the text, replaces it, or stops the stream.

    The guard is a function or a coroutine function that gets a text, and returns a verdict. By default, the guard
    judges the whole answer of a call as one text, and the whole reasoning as another text. If a tool call interrupts a
    text, the parts before and after the tool call are judged separately. ``until`` is an operator that splits texts
    into pieces, such as ``ops.sentences()`` or ``ops.lines()``. With ``until``, the guard judges each piece.

    The texts of one call are judged one after the other. While a verdict is open, everything that follows in the same
    call waits, so the order stays. Other calls continue. But an event outside of the calls, such as the end of a task,
    waits for all items before it, and all later items wait for this event. Tool calls are not judged. They wait only to
    keep the order. Events that repeat the text, such as ``LLMFinished``, are not judged either. So show users the
    chunks, and not these events.

    The completion of the source waits for open verdicts. An error of the source waits until the text before it has been
    judged. If the guard raises an error, the stream ends with that error. When the stream is stopped, fails or is
    disposed, the provider's connection is closed, and open verdicts are cancelled. Waiting items are kept in memory
    without a limit, because a provider cannot be slowed down. A guard that is a plain function runs on the run's loop,
    so it must not block. ::

        source                         --a-b\n--c-d\n---------|
        hold_back(guard, until=...)    ---------(ab\n)-(cd\n)-|      (until=ops.lines(); each verdict takes 5)

    Example::

        async def check_topic(text: str) -> ops.Verdict:
            return ops.Stop("not our topic") if await classify(text) == "politics" else ops.Release()

        flow.observe().pipe(ops.hold_back(check_topic, until=ops.sentences()))

    Raises:
        GuardStopped: as the stream's error: a verdict was :class:`Stop`.
        RuntimeError: as the stream's error: the guard is a coroutine function, and no event loop was running at the
            subscription.
        TypeError: ``guard`` or ``until`` cannot be called. Also as the stream's error, if the guard returned something
            that is not a verdict.
    """
    if not callable(guard):
        raise TypeError(f"hold_back takes a function of the text; got {guard!r}")
    if until is not None and not callable(until):
        raise TypeError(f"hold_back(until=…) takes an operator, such as ops.lines(); got {until!r}")

    def judge(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            verdicts = _Verdicts(guard, observer)
            verdicts.source.hold(
                source.subscribe(verdicts.on_next, verdicts.on_error, verdicts.on_completed, scheduler=scheduler)
            )
            return Owned(Cleanup(verdicts.close), verdicts.source)

        return Observable(subscribe)

    def apply(source: Observable[T]) -> Observable[T]:
        pieces = shape_text(_WholeText) if until is None else until
        return through(judge)(pieces(source))

    return apply


class _WholeText:
    """Gathers the text of a voice, and returns it as one piece when the voice ends."""

    def __init__(self) -> None:
        self._held: list[str] = []

    def feed(self, text: str) -> Sequence[str]:
        self._held.append(text)
        return ()

    def flush(self) -> Sequence[str]:
        held, self._held = self._held, []
        return ("".join(held),) if held else ()


class _Verdicts:
    """The open verdicts and waiting items of one subscription."""

    def __init__(self, guard: Callable[[str], Verdict | Awaitable[Verdict]], observer: ObserverBase[Any]) -> None:
        self.source = Holder()
        self._guard = guard
        self._observer = observer
        self._is_on_a_loop = running_loop() is not None
        self._queues = CallQueues()
        self._open: dict[str, asyncio.Future[Verdict]] = {}
        self._end: Callable[[], None] | None = None
        self._source_error: Exception | None = None
        self._is_over = False
        self._is_judging = False

    def on_next(self, item: object) -> None:
        if self._is_over:
            return
        if self._queues or get_text(item):
            self._queues.add(item)
            self._judge()
        else:
            self._observer.on_next(item)

    def on_error(self, error: Exception) -> None:
        self._source_error = error
        self._end = partial(self._observer.on_error, error)
        self._judge()

    def on_completed(self) -> None:
        self._end = self._observer.on_completed
        self._judge()

    def close(self) -> None:
        """Stop judging, and cancel the open verdicts. May be called in any thread."""
        self._is_over = True
        for verdict in list(self._open.values()):
            loop = verdict.get_loop()
            if running_loop() is loop:
                verdict.cancel()
            else:
                call_soon(loop, verdict.cancel)

    def _judge(self) -> None:
        """Judge and emit all items that need not wait for an open verdict."""
        if self._is_judging:
            return
        self._is_judging = True
        try:
            while self._queues and not self._is_over:
                section = self._queues.first
                ready = [span_id for span_id in section.queues if span_id not in self._open]
                for span_id in ready:
                    self._judge_queue(span_id, section.queues[span_id])
                if ready:  # while this loop emitted items, the observer may have added items of other calls
                    continue
                if section.queues:
                    break
                for event in self._queues.end_section():
                    self._observer.on_next(event)
        finally:
            self._is_judging = False
        if not self._queues and not self._is_over and self._end is not None:
            self._is_over = True
            self._end()

    def _judge_queue(self, span_id: str, queue: deque[object]) -> None:
        """Judge and emit the items of one call, until a verdict must be awaited."""
        while queue and not self._is_over:
            text = get_text(queue[0])
            if not text:
                self._observer.on_next(queue.popleft())
                continue
            try:
                verdict = self._guard(text)
                if isawaitable(verdict):
                    self._wait_for(verdict, span_id)
                    return
            except Exception as error:  # noqa: BLE001 - an error of the user's guard is the stream's terminal
                self._fail(error)
                return
            self._carry_out(verdict, queue)
        if not self._is_over:
            self._queues.end_queue(span_id)

    def _wait_for(self, verdict: Awaitable[Verdict], span_id: str) -> None:
        # A loop that did not run at the subscription belongs to the source, and would end before the guard returns.
        if running_loop() is None or not self._is_on_a_loop:
            if isinstance(verdict, Coroutine):
                verdict.close()
            raise RuntimeError(
                "the guard of hold_back is a coroutine function, and no event loop runs here: put hold_back directly "
                "after observe() or events(), or subscribe inside a coroutine"
            )
        task = self._open[span_id] = asyncio.ensure_future(verdict)
        task.add_done_callback(partial(self._on_verdict, span_id))
        if self._is_over:  # close() was called while the guard was called, so it did not see this verdict
            task.cancel()

    def _on_verdict(self, span_id: str, verdict: asyncio.Future[Verdict]) -> None:
        self._open.pop(span_id, None)
        if self._is_over:
            return
        try:
            decided = verdict.result()
        except BaseException as error:  # noqa: BLE001 - includes CancelledError, because nothing else awaits the guard
            self._fail(cast(Exception, error))
            return
        self._carry_out(decided, self._queues.first.queues[span_id])
        self._judge()

    def _carry_out(self, verdict: Verdict, queue: deque[object]) -> None:
        """Remove the first item of a queue, and apply the verdict to this item."""
        item = queue.popleft()
        match cast(object, verdict):
            case Release():
                self._observer.on_next(item)
            case Replace(text=""):
                pass
            case Replace(text=text):
                self._observer.on_next(replace_text(item, text))
            case Stop(reason=reason):
                self._fail(GuardStopped(reason))
            case other:
                self._fail(
                    TypeError(f"a guard returns Release(), Replace(text) or Stop(reason); this one returned {other!r}")
                )

    def _fail(self, error: Exception) -> None:
        self.close()
        with stopping(str(error)):
            self.source.dispose()
        self._queues.clear()
        add_context(error, self._source_error)
        self._observer.on_error(error)
