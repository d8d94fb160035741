"""A source that does as it is told, and notes what is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable


class Strand:
    """One subscription to a puppet."""

    def __init__(self, observer: ObserverBase[Any], scheduler: SchedulerBase | None, *, stubborn: bool) -> None:
        self.scheduler = scheduler
        self.is_disposed = False
        self.is_ended = False
        self._stubborn = stubborn
        self._observer: ObserverBase[Any] | None = observer

    @property
    def is_over(self) -> bool:
        """It has ended or was disposed."""
        return self.is_ended or self.is_disposed

    def say(self, items: Iterable[Any]) -> None:
        """Emit them all, one after the other."""
        for item in items:
            observer = self._observer
            if observer is None:
                return
            observer.on_next(item)

    def complete(self) -> None:
        """End."""
        observer = self._end()
        if observer is not None:
            observer.on_completed()

    def fail(self, error: Exception) -> None:
        """End with an error."""
        observer = self._end()
        if observer is not None:
            observer.on_error(error)

    def dispose(self) -> None:
        """What the subscriber does; a stubborn source goes on all the same."""
        self.is_disposed = True
        if not self._stubborn:
            self._observer = None

    def _end(self) -> ObserverBase[Any] | None:
        self.is_ended = True
        observer, self._observer = self._observer, None
        return observer


class Puppet:
    """A cold source: each subscription is a strand of its own, which ``on_subscribe`` may play at once."""

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
