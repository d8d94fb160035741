"""The lane: a part of a stream that belongs together, as all that one task says."""

from __future__ import annotations

from typing import Generic, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

T_co = TypeVar("T_co", covariant=True)


class Lane(Observable[T_co], Generic[T_co]):
    """An Observable that knows what its items share: ``key`` is the task's name, the agent's role …"""

    def __init__(self, key: str, items: Observable[T_co]) -> None:
        self.key = key
        self._items = items
        super().__init__(self._on_subscribe)

    def _on_subscribe(self, observer: ObserverBase[T_co], scheduler: SchedulerBase | None = None) -> DisposableBase:
        return self._items.subscribe(observer, scheduler=scheduler)

    def __repr__(self) -> str:
        return f"Lane({self.key!r})"
