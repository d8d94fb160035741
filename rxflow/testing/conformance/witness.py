"""An observer that writes down what it is told, in rule or not."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Self

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

_LINGERING = 0.02  # seconds in which a signal from another thread would come into the first one


def _nothing(*_: object) -> None:
    """Nobody asked to be told."""


class Witness(ObserverBase[Any]):
    """Notes every signal, and what is wrong with it by itself: after the end, or inside another one.

    ``on_item`` sees each item, and may raise. One that ``lingers`` gives other threads time to come into its first
    signal.
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
        """How many there were: one, if all is well."""
        return len(self.errors) + self.completions

    @property
    def error(self) -> BaseException | None:
        """The first one."""
        return self.errors[0] if self.errors else None

    @property
    def told(self) -> str:
        """All of it in words, for messages."""
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

    def forgotten(self) -> weakref.ref[Self]:
        """To see whether anybody else still holds on. The tracebacks of its errors do, and are not the stream's."""
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


def watched(source: Observable[Any], witness: Witness, scheduler: SchedulerBase | None) -> DisposableBase:
    """Subscribe below RxPY's safety net, which hides signals after an end or a disposal from other observers.

    What the net does for the source is done here too: a terminal disposes the subscription, and a subscribe function
    that raises is an error of the stream.
    """
    subscription = SingleAssignmentDisposable()
    witness.on_end = subscription.dispose

    def subscribe(observer: ObserverBase[Any], given: SchedulerBase | None = None) -> DisposableBase:
        return source._subscribe_core(witness, given)  # pyright: ignore[reportPrivateUsage]

    subscription.disposable = Observable(subscribe).subscribe(on_error=witness.on_error, scheduler=scheduler)
    return subscription


def shortly(items: list[Any]) -> str:
    """Items for a message; of many, the beginning."""
    return repr(items) if len(items) <= 12 else f"{items[:12]!r}… ({len(items)} items)"
