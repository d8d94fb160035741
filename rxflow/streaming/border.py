"""Observers at the border of a run: between what is ours and what users do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from reactivex.abc import DisposableBase, ObserverBase

from rxflow.streaming.emitter import Emitter, ambient

T = TypeVar("T")


class InPlace(ObserverBase[T], Generic[T]):
    """Users' callbacks belong to the place of their subscription, not to the leaf that happens to emit.

    Else a run that a callback starts (``flat_map(lambda chunk: other.observe())``) would become a part of that leaf.
    """

    def __init__(self, observer: ObserverBase[T], place: Emitter | None) -> None:
        self._observer = observer
        self._place = place

    def on_next(self, value: T) -> None:
        token = ambient.set(self._place)
        try:
            self._observer.on_next(value)
        finally:
            ambient.reset(token)

    def on_error(self, error: Exception) -> None:
        token = ambient.set(self._place)
        try:
            self._observer.on_error(error)
        finally:
            ambient.reset(token)

    def on_completed(self) -> None:
        token = ambient.set(self._place)
        try:
            self._observer.on_completed()
        finally:
            ambient.reset(token)


class Guard(ObserverBase[T], Generic[T]):
    """Our edge to users' observers: one that raises ends its own run, and the loop reports the error.

    Past this point RxPY would let it escape into the producer, with the run going on.
    """

    def __init__(
        self,
        observer: ObserverBase[T],
        run: DisposableBase,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._observer = observer
        self._run = run
        self._on_end = on_end

    def on_next(self, value: T) -> None:
        try:
            self._observer.on_next(value)
        except Exception as error:  # noqa: BLE001 - reported, never swallowed
            self._report(error)
            self._run.dispose()

    def on_error(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        finally:  # a CancelledError or SystemExit passes
            self._on_end()

    def on_completed(self) -> None:
        try:
            self._observer.on_completed()
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        finally:  # a CancelledError or SystemExit passes
            self._on_end()

    def _report(self, error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "an observer of an rxflow run raised; the run is disposed", "exception": error}
        )
