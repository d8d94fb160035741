"""How the parts of a run subscribe to each other.

RxPY puts an observer and four disposables with a lock each into every subscription, because it cannot trust observers
that it does not know. A waiting run has five subscriptions: these objects took 8 of its 49 kB, and were a third of the
objects that the garbage collector visits. The parts of a run keep Rx's contract by themselves, so they need none of
this. Users' subscriptions still use RxPY's ``subscribe``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

T = TypeVar("T")

Start: TypeAlias = Callable[[ObserverBase[T], SchedulerBase | None], DisposableBase]


class RunPart(Observable[T], Generic[T]):
    """An Observable that keeps Rx's contract by itself: one terminal event, and nothing after it or after disposal."""

    def __init__(self, start: Start[T]) -> None:
        super().__init__(start)
        self.start = start


def connect(source: Observable[T], observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
    """Subscribe one of rxflow's own observers, which raises no errors into ``source``."""
    if not isinstance(source, RunPart):
        return source.subscribe(observer, scheduler=scheduler)
    try:
        return source.start(observer, scheduler)
    except Exception as error:  # noqa: BLE001 - as in RxPY, the error ends the stream
        observer.on_error(error)
        return Holder()


class Holder(DisposableBase):
    """Holds one subscription, which may be set after its start. ``dispose`` may be called from any thread.

    No lock is needed: the setter stores the subscription before it reads the flag, and ``dispose`` does the reverse, so
    one of the two sees the other. If both do, the subscription is disposed twice; the second time has no effect.
    """

    __slots__ = ("_held", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._held: DisposableBase | None = None

    def hold(self, subscription: DisposableBase) -> None:
        """Dispose ``subscription`` together with this object, or now if this object was disposed before."""
        self._held = subscription
        if self.is_disposed:
            self._release()

    def dispose(self) -> None:
        self.is_disposed = True
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.dispose()


class Owned(DisposableBase):
    """Objects that are disposed together with their owner: from any thread, without a lock, as in :class:`Holder`."""

    __slots__ = ("_items", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._items: list[DisposableBase] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to dispose."""
        return not self._items

    def add(self, item: DisposableBase) -> None:
        """Dispose ``item`` together with the others, or now if they were disposed already."""
        self._items.append(item)
        if self.is_disposed:
            self.dispose()

    def remove(self, item: DisposableBase) -> None:
        """Dispose ``item`` now, and forget it."""
        self.forget(item)
        item.dispose()

    def forget(self, item: DisposableBase) -> None:
        """Do not dispose ``item`` with the others, because it is over."""
        with suppress(ValueError):  # it was disposed with the others
            self._items.remove(item)

    def dispose(self) -> None:
        self.is_disposed = True
        while self._items:
            try:
                item = self._items.pop(0)
            except IndexError:  # another thread was faster
                return
            item.dispose()


class Cleanup(DisposableBase):
    """Calls ``action`` once, when it is first disposed, in whichever thread."""

    __slots__ = ("_actions",)

    def __init__(self, action: Callable[[], object]) -> None:
        self._actions = [action]

    def dispose(self) -> None:
        try:
            action = self._actions.pop()
        except IndexError:
            return
        action()
