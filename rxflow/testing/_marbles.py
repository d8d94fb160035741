"""``Marbles``: compares streams with marble diagrams. Cold and hot sources play diagrams in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import reactivex as rx
from reactivex import Observable
from reactivex.abc import DisposableBase, ObservableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SerialDisposable

from rxflow._loops import LoopScheduler, running_loop
from rxflow.testing._diagrams import (
    Completed,
    Failed,
    Lifetime,
    Moment,
    Ms,
    Next,
    Signal,
    Timeline,
    parse,
    parse_hot,
    parse_script,
    parse_subscription,
    tidy,
)
from rxflow.testing._drawing import difference, draw_lifetimes, duration, show_value
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.testing._virtual_time import VirtualLoop


class MarbleSource(Observable[Any]):
    """A source that records the start and the end of each subscription to it."""

    def __init__(self, diagram: str, timeline: Timeline) -> None:
        self.diagram = diagram
        self.timeline = timeline
        self.subscriptions: list[Lifetime] = []
        self._is_noting = True
        super().__init__(self._on_subscribe)

    def _on_subscribe(self, observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        loop = self._loop()
        subscriptions, number = self.subscriptions, len(self.subscriptions)
        subscriptions.append(Lifetime(now_of(loop)))
        stop = self._listen(observer, loop)

        def end() -> None:
            stop.dispose()
            if self._is_noting and subscriptions is self.subscriptions:  # else the play has ended, or a later one runs
                subscriptions[number] = Lifetime(subscriptions[number].start, now_of(loop))

        return Disposable(end)

    def note_anew(self) -> None:
        """Forget earlier subscriptions, and record new ones. Called when a play begins."""
        self.subscriptions = []
        self._is_noting = True

    def note_no_more(self) -> None:
        """Record no more disposals, because the play has ended. Subscriptions that are still open have no end."""
        self._is_noting = False

    def _listen(self, observer: ObserverBase[Any], loop: VirtualLoop) -> DisposableBase:
        raise NotImplementedError

    def _loop(self) -> VirtualLoop:
        loop = running_loop()
        if isinstance(loop, VirtualLoop):
            return loop
        raise RuntimeError(
            f"the marble source {self.diagram!r} works only in virtual time, on the thread of its loop: pass it, or an "
            "Observable made from it, to marbles.expect(…), or subscribe to it inside clock.run(…)"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {show_value(self.diagram)}>"


class ColdSource(MarbleSource):
    """A source that plays its timeline from the beginning for each subscriber."""

    def _listen(self, observer: ObserverBase[Any], loop: VirtualLoop) -> DisposableBase:
        return _play(self.timeline, loop, loop.time(), partial(tell, observer))


class HotSource(MarbleSource):
    """A source that plays its timeline once in each play, with or without subscribers."""

    def __init__(self, diagram: str, timeline: Timeline) -> None:
        super().__init__(diagram, timeline)
        self._observers: list[ObserverBase[Any]] = []
        self._end: Signal | None = None

    def begin(self, loop: VirtualLoop) -> DisposableBase:
        """Play the timeline, starting at time zero of the loop."""
        self._end = None
        return _play(self.timeline, loop, 0.0, self._tell)

    def _listen(self, observer: ObserverBase[Any], loop: VirtualLoop) -> DisposableBase:
        if self._end is not None:
            tell(observer, self._end)
            return Disposable()
        self._observers.append(observer)
        return Disposable(lambda: self._forget(observer))

    def _forget(self, observer: ObserverBase[Any]) -> None:
        if observer in self._observers:
            self._observers.remove(observer)

    def _tell(self, signal: Signal) -> None:
        if not isinstance(signal, Next):
            self._end = signal
        for observer in self._observers.copy():
            tell(observer, signal)


def tell(observer: ObserverBase[Any], signal: Signal) -> None:
    """Send a signal to an observer."""
    if isinstance(signal, Next):
        observer.on_next(signal.value)
    elif isinstance(signal, Failed):
        observer.on_error(signal.error)  # type: ignore[arg-type]  # RxPY's type leaves out CancelledError
    else:
        observer.on_completed()


def now_of(loop: asyncio.AbstractEventLoop) -> int | float:
    """Return the loop's time in milliseconds."""
    return tidy(loop.time() * 1000)


def _play(timeline: Timeline, loop: VirtualLoop, zero: float, say: Callable[[Signal], None]) -> DisposableBase:
    # Set all timers at once, as RxJS does. Timers of the same time fire in the order in which they were set. So if two
    # sources emit at the same time, the source that began to play first emits first.
    timers = [
        loop.call_at(zero + moment.time / 1000, say, moment.signal)
        for moment in timeline
        if zero + moment.time / 1000 >= loop.time()
    ]

    def stop() -> None:
        for timer in timers:
            timer.cancel()

    return Disposable(stop)


class Recording:
    """Subscribes for a period of virtual time, and records each signal with its time."""

    def __init__(self, source: ObservableBase[Any], lifetime: Lifetime) -> None:
        self._source = source
        self._lifetime = lifetime
        self._moments: list[Moment] = []
        self._subscription = SerialDisposable()
        self.crash: Exception | None = None
        self.is_cut = False
        self.left = ""

    @property
    def timeline(self) -> Timeline:
        """The signals so far."""
        return Timeline(tuple(self._moments))

    @property
    def _is_over(self) -> bool:
        return self._lifetime.end is not None or self.timeline.has_terminal

    def begin(self, loop: VirtualLoop) -> None:
        """Set timers that subscribe at the start of the period, and dispose at the end, if the period has an end."""
        if self._lifetime.end is not None:
            # Set this timer first, so that an item at exactly this time comes too late, as in RxJS.
            loop.call_at(self._lifetime.end / 1000, self._subscription.dispose)
        loop.call_at(self._lifetime.start / 1000, self._subscribe, loop)

    def end(self, *, is_cut: bool, left: str) -> None:
        """End the recording. If the stream is still open and the period has no end, keep the arguments for messages.

        ``is_cut`` is True if timers were still running. ``left`` describes the tasks and threads that still wait.
        """
        if not self._is_over:
            self.is_cut = is_cut
            self.left = left
        self._subscription.dispose()

    def _subscribe(self, loop: VirtualLoop) -> None:
        def note(signal: Signal) -> None:
            self._moments.append(Moment(now_of(loop), signal))

        try:
            subscription: DisposableBase = self._source.subscribe(
                lambda item: note(Next(item)),
                lambda error: note(Failed(error)),
                lambda: note(Completed()),
                scheduler=LoopScheduler(loop),
            )
        except Exception as error:  # noqa: BLE001 - raised when the recording is evaluated
            self.crash = error
        else:
            self._subscription.disposable = subscription


__tracebackhide__ = True  # pytest's tracebacks show the line of the test, and leave out this module


class Marbles:
    """Plays streams in virtual time, and compares them with diagrams; see :mod:`rxflow.testing._diagrams`. ::

        def test_pairs(marbles: Marbles) -> None:
            source = marbles.cold("a-b-c|")
            marbles.expect(source.pipe(ops.pairwise())).to_be("--x-y|", {"x": ("a", "b"), "y": ("b", "c")})
            marbles.expect_subscriptions(source).to_be("^----!")

    A comparison plays all expectations that were not played yet, together on one loop and with one clock. Flows,
    coroutines, sync methods, anyio deadlines and RxPY's time operators all use this clock.

    A play ends when nothing can happen any more. Timers may run forever, so ``patience`` limits a play. After the end
    of the longest diagram that is known when the play begins, virtual time jumps to a next timer at most ``patience``
    times. When a play ends, the subscriptions that are still open are disposed.
    """

    def __init__(self, *, patience: int = 3000) -> None:
        self.clock = VirtualClock()
        self._patience = patience
        self._longest: Ms = 0
        self._expectations: list[Expectation] = []
        self._waiting: list[Expectation] = []
        self._subscriptions: list[SubscriptionsExpectation] = []
        self._sources: list[MarbleSource] = []

    def cold(
        self, diagram: str, values: Mapping[str, Any] | None = None, error: BaseException | None = None
    ) -> ColdSource:
        """Create a source that plays ``diagram`` from the beginning for each subscriber."""
        source = ColdSource(diagram, self._measure(parse(diagram, values, error)))
        self._sources.append(source)
        return source

    def hot(
        self, diagram: str, values: Mapping[str, Any] | None = None, error: BaseException | None = None
    ) -> HotSource:
        """Create a source that plays ``diagram`` once in each play, with or without subscribers.

        The source begins at ``^``, or at the beginning of the diagram if there is no ``^``.
        """
        source = HotSource(diagram, self._measure(parse_hot(diagram, values, error)))
        self._sources.append(source)
        return source

    def expect(
        self, observable: ObservableBase[Any], subscription: str | None = None, *, until: float | None = None
    ) -> Expectation:
        """Return an expectation about ``observable``. Call ``to_be()`` or ``to_say()`` to compare its signals.

        ``subscription`` is a diagram of the start and end of the subscription, such as ``"^---!"``. If this
        diagram has no end, ``until`` can set the end, in virtual seconds.
        """
        if not isinstance(observable, ObservableBase):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"marbles.expect() needs an Observable, such as flow.observe(); got a {type(observable).__name__}"
            )
        lifetime = Lifetime(0) if subscription is None else parse_subscription(subscription)
        if until is not None:
            if lifetime.end is not None:
                raise TypeError(f"the end of the subscription is given twice, by {subscription!r} and until={until!r}")
            lifetime = Lifetime(lifetime.start, tidy(until * 1000))
        self._longest = max(self._longest, lifetime.start, lifetime.end or 0)
        expectation = Expectation(self, Recording(observable, lifetime))
        self._expectations.append(expectation)
        self._waiting.append(expectation)
        return expectation

    def answers(self, *diagrams: str, values: Mapping[str, Any] | None = None) -> Callable[[object], Observable[Any]]:
        """Create an argument for ``ops.answer_with``. The first script answers the first question, and so on. ::

            marbles.expect(flow.observe().pipe(ops.answer_with(marbles.answers("--yes|", "-no|"))))

        Each argument is a script, like a turn of a :class:`ScriptedLLM`: consecutive characters such as "yes" are one
        answer. Times count from the question. When no script is left, a question gets no answer.
        """
        sources = iter([ColdSource(each, self._measure(parse_script(each, values))) for each in diagrams])
        return lambda request: next(sources, rx.empty())

    def expect_subscriptions(self, source: MarbleSource) -> SubscriptionsExpectation:
        """Return an expectation about the subscriptions to ``source``. Call ``to_be()`` to compare with diagrams."""
        expectation = SubscriptionsExpectation(self, source)
        self._subscriptions.append(expectation)
        return expectation

    def complaint(self) -> str | None:
        """Return a message if there are expectations that were never compared; otherwise None."""
        compared = [each.is_compared for each in self._expectations]
        compared += [each.is_compared for each in self._subscriptions]
        forgotten = compared.count(False)
        if not forgotten:
            return None
        return (
            f"{forgotten} of the expectations of this test were never compared; "
            "marbles.expect(…) needs a .to_be(…) or .to_say(…) after it"
        )

    def close(self) -> None:
        """Check the expectations. Raises AssertionError if one of them was never compared."""
        complaint = self.complaint()
        if complaint is not None:
            raise AssertionError(complaint)

    def play(self) -> None:
        """Play all expectations that were not played yet.

        Each comparison first calls this method. A direct call is needed only to check side effects.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        for source in self._sources:
            source.note_anew()
        self.clock.restart()
        self.clock.run(partial(self._play, [each.recording for each in waiting]))

    async def _play(self, recordings: list[Recording]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for recording in recordings:
            recording.begin(loop)
        for source in self._sources:
            if isinstance(source, HotSource):
                source.begin(loop)
        ended = await loop.until_idle(jumps=self._patience, after=self._longest / 1000)
        for source in self._sources:
            source.note_no_more()
        left = loop.describe_waiters(but=asyncio.current_task())
        for recording in recordings:
            recording.end(is_cut=not ended, left=left)

    def play_for(self, end: Ms) -> None:
        """Do the same as :meth:`play`, but do not cut the play off before ``end``."""
        self._longest = max(self._longest, end)
        self.play()

    def _measure(self, timeline: Timeline) -> Timeline:
        self._longest = max(self._longest, timeline.end)
        return timeline


class Expectation:
    """An expectation about the signals of a stream. The methods compare the signals with a diagram."""

    def __init__(self, marbles: Marbles, recording: Recording) -> None:
        self.recording = recording
        self.is_compared = False
        self._marbles = marbles

    def to_be(self, diagram: str, values: Mapping[str, Any] | None = None, error: BaseException | None = None) -> None:
        """Raise AssertionError unless the stream emitted exactly the signals of ``diagram``, at the same times.

        An expected text also equals a chunk or reasoning with that content. Other values are compared with ``==``, and
        errors are compared by their types and messages.
        """
        self._compare(diagram, parse(diagram, values, error), values)

    def to_say(self, script: str, values: Mapping[str, Any] | None = None, error: BaseException | None = None) -> None:
        """Do the same as :meth:`to_be`, with a script of text instead of a diagram: ``to_say("he-ll-o|")``."""
        self._compare(script, parse_script(script, values, error), None)

    def _compare(self, diagram: str, expected: Timeline, values: Mapping[str, Any] | None) -> None:
        self.is_compared = True
        self._marbles.play_for(expected.end)
        recording = self.recording
        if recording.crash is not None:
            raise recording.crash
        found = difference(expected, recording.timeline, values)
        if found is None:
            return
        notes: list[str] = []
        if recording.is_cut:
            notes.append(
                f"the recording was cut at {duration(self._marbles.clock.now * 1000)}, because timers kept running; "
                "set the end with a subscription diagram or until=…, or give Marbles more patience"
            )
        if recording.left:
            notes.append(f"still waiting at the end:\n{recording.left}")
        raise AssertionError("\n".join([f"the stream is not {show_value(diagram)}", found, *notes]))


class SubscriptionsExpectation:
    """An expectation about the subscriptions to a source. :meth:`to_be` compares them with diagrams."""

    def __init__(self, marbles: Marbles, source: MarbleSource) -> None:
        self.is_compared = False
        self._marbles = marbles
        self._source = source

    def to_be(self, *diagrams: str) -> None:
        """Raise AssertionError unless the source had exactly these subscriptions, in this order.

        Each play forgets all earlier subscriptions. Without diagrams, the source must have had no subscription.
        """
        self.is_compared = True
        expected = [parse_subscription(diagram) for diagram in diagrams]
        self._marbles.play_for(max((each.end or each.start for each in expected), default=0))
        actual = self._source.subscriptions
        if expected == actual:
            return
        rows = draw_lifetimes([*expected, *actual])
        wanted = [f"  expected  {row}" for row in rows[: len(expected)]] or ["  expected  no subscription"]
        came = [f"  actual    {row}" for row in rows[len(expected) :]] or ["  actual    no subscription"]
        raise AssertionError("\n".join([f"the subscriptions to {self._source!r} differ", *wanted, *came]))
