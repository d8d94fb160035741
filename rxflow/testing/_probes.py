"""``probe()``: observes one point of a pipe."""

from __future__ import annotations

from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow.testing.leaks import collect

T = TypeVar("T")


def probe(name: str = "probe") -> Probe:
    """Create an operator that records what happens at this point of a pipe. The signals are not changed. ::

        seen = probe()
        rx.never().pipe(rxops.start_with("a"), seen, rxops.take(1)).subscribe()
        seen.assert_cancelled()

    A probe receives what a subscriber at this point would receive. Directly after ``observe()``, these are the chunks.
    Operators after the probe then also receive only the chunks, and cannot select other events of the run.

    With the pytest plugin, a test fails if a subscription through a probe is still open after the test. ``name``
    identifies the probe in error messages.
    """
    return Probe(name)


class Probe:
    """An operator that records its subscriptions: their items, and how each subscription ends.

    ``subscribed``, ``cancelled`` and ``completed`` are counts. ``errors`` holds the errors with which subscriptions
    ended. ``items`` holds the items of all subscriptions, in the order in which they arrived.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: list[Any] = []
        self.subscribed = 0
        self.cancelled = 0
        self.completed = 0
        self.errors: list[BaseException] = []
        collect(self, after="fixtures")

    def __call__(self, source: Observable[T]) -> Observable[T]:
        def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
            self.subscribed += 1
            watched = _Watched(self, observer)
            subscription = source.subscribe(
                watched.on_next, watched.on_error, watched.on_completed, scheduler=scheduler
            )

            def dispose() -> None:
                watched.is_over(cancelled=True)
                subscription.dispose()

            return Disposable(dispose)

        return Observable(subscribe)

    @property
    def failed(self) -> int:
        """The number of subscriptions that ended with an error."""
        return len(self.errors)

    @property
    def leaked(self) -> int:
        """The number of subscriptions that are still open: they have neither ended nor been disposed."""
        return self.subscribed - self.cancelled - self.completed - self.failed

    def assert_subscribed(self, times: int | None = None) -> None:
        """Assert that the probe was subscribed: at least once, or exactly ``times`` times."""
        self._assert_count("subscribed", self.subscribed, times)

    def assert_not_subscribed(self) -> None:
        """Assert that the probe was never subscribed."""
        self._assert_count("subscribed", self.subscribed, 0)

    def assert_cancelled(self, times: int | None = None) -> None:
        """Assert that subscriptions were disposed before their end: at least one, or exactly ``times``."""
        self._assert_count("cancelled", self.cancelled, times)

    def assert_not_cancelled(self) -> None:
        """Assert that no subscription was disposed before its end."""
        self._assert_count("cancelled", self.cancelled, 0)

    def assert_completed(self, times: int | None = None) -> None:
        """Assert that subscriptions completed: at least one, or exactly ``times``."""
        self._assert_count("completed", self.completed, times)

    def assert_failed(self, times: int | None = None) -> None:
        """Assert that subscriptions ended with an error: at least one, or exactly ``times``."""
        self._assert_count("failed", self.failed, times)

    def assert_not_leaked(self) -> None:
        """Assert that no subscription is still open: each has ended or was disposed."""
        complaint = self.complaint()
        if complaint is not None:
            raise AssertionError(complaint)

    def complaint(self) -> str | None:
        """Return a message if subscriptions are still open; otherwise None."""
        if not self.leaked:
            return None
        return f"{self.leaked} of the subscriptions through {self} neither ended nor were disposed"

    def __repr__(self) -> str:
        return (
            f"{self.name} (subscribed {self.subscribed}, completed {self.completed}, failed {self.failed}, "
            f"cancelled {self.cancelled}, {len(self.items)} items)"
        )

    def _assert_count(self, what: str, seen: int, times: int | None) -> None:
        if seen == times or (times is None and seen):
            return
        wanted = "at least once" if times is None else "never" if times == 0 else f"exactly {times}×"
        errors = f"; errors: {self.errors}" if self.errors else ""
        raise AssertionError(f"should be {what} {wanted}, and was {seen}×: {self}{errors}")


class _Watched(ObserverBase[Any]):
    """The observer of one subscription.

    This observer passes all signals on, but does not record signals that come after the end or the disposal.
    """

    def __init__(self, probe: Probe, observer: ObserverBase[Any]) -> None:
        self._probe = probe
        self._observer = observer
        self._is_over = False

    def is_over(self, *, cancelled: bool = False) -> bool:
        """Mark the subscription as over. If the subscription was already over, only return True.

        Otherwise, count the subscription as cancelled if ``cancelled`` is True, and return False.
        """
        before, self._is_over = self._is_over, True
        if cancelled and not before:
            self._probe.cancelled += 1
        return before

    def on_next(self, value: Any) -> None:
        if not self._is_over:
            self._probe.items.append(value)
        self._observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        if not self.is_over():
            self._probe.errors.append(error)
        self._observer.on_error(error)

    def on_completed(self) -> None:
        if not self.is_over():
            self._probe.completed += 1
        self._observer.on_completed()
