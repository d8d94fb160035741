"""What one subscription was told in a play, and when."""

from __future__ import annotations

from typing import Any

from reactivex.abc import DisposableBase, ObservableBase
from reactivex.disposable import SerialDisposable

from rxflow.loops import LoopScheduler
from rxflow.testing.marble_sources import now_of
from rxflow.testing.timeline import Completed, Failed, Moment, Next, Signal, Span, Timeline
from rxflow.testing.virtual_loop import VirtualLoop


class Recording:
    """Subscribes for a span of virtual time, and notes each signal with its instant."""

    def __init__(self, source: ObservableBase[Any], span: Span) -> None:
        self._source = source
        self._span = span
        self._moments: list[Moment] = []
        self._subscription = SerialDisposable()
        self.crash: Exception | None = None
        self.is_cut = False
        self.left = ""

    @property
    def timeline(self) -> Timeline:
        """What came so far."""
        return Timeline(tuple(self._moments))

    @property
    def _is_over(self) -> bool:
        return self._span.end is not None or self.timeline.has_terminal

    def begin(self, loop: VirtualLoop) -> None:
        """Subscribe when its time has come, and unsubscribe."""
        if self._span.end is not None:
            # Made first, so that an item of that very instant comes too late, as in RxJS.
            loop.call_at(self._span.end / 1000, self._subscription.dispose)
        loop.call_at(self._span.start / 1000, self._subscribe, loop)

    def end(self, *, is_cut: bool, left: str) -> None:
        """The play is over. What is left matters to those who still listen."""
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
        except Exception as error:  # noqa: BLE001 - raised where the recording is looked at
            self.crash = error
        else:
            self._subscription.disposable = subscription
