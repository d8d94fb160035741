"""Sources that break one rule each; each says "a", "b", "c", a millisecond apart."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from tests.testing.broken_operators import Unguarded

Sink = ObserverBase[str]
Scheduler = SchedulerBase | None
ITEMS = ("a", "b", "c")


class Speaking(DisposableBase):
    """Says its items and ends, unless it is disposed."""

    def __init__(self, observer: Sink) -> None:
        self.observer: Sink | None = observer
        self.is_ended = False
        self.task = asyncio.get_running_loop().create_task(self.speak())

    async def speak(self) -> None:
        for item in ITEMS:
            await asyncio.sleep(0.001)
            self.say(item)
        await asyncio.sleep(0.001)
        self.end()

    def say(self, item: str) -> None:
        if self.observer is not None:
            self.observer.on_next(item)

    def end(self) -> None:
        observer, self.observer = self.observer, None
        self.is_ended = True
        if observer is not None:
            observer.on_completed()

    def dispose(self) -> None:
        self.observer = None
        self.task.get_loop().call_soon_threadsafe(self.task.cancel)


def source(speaking: Callable[[Sink], DisposableBase] = Speaking) -> Observable[str]:
    def subscribe(observer: Sink, scheduler: Scheduler = None) -> DisposableBase:
        return speaking(observer)

    return Observable(subscribe)


class EndingTwice(Speaking):
    def end(self) -> None:
        observer = self.observer
        super().end()
        if observer is not None:
            observer.on_completed()


def raising_in_subscribe() -> Observable[str]:
    def subscribe(observer: Sink, scheduler: Scheduler) -> DisposableBase:
        raise RuntimeError("not today")

    return Unguarded(subscribe)


class InThreads(Speaking):
    def say(self, item: str) -> None:
        observer = self.observer
        if observer is not None:
            threading.Thread(target=observer.on_next, args=(item,)).start()


def with_one_store() -> Observable[str]:
    """What one subscription has taken is missing in the next."""
    store = list(ITEMS)

    class FromTheStore(Speaking):
        async def speak(self) -> None:
            while store:
                await asyncio.sleep(0.001)
                self.say(store.pop(0) if store else "nothing")
            self.end()

    return source(FromTheStore)


def filled_anew() -> Observable[str]:
    """Each subscription fills the store, for all."""
    store: list[str] = []

    class FromTheStore(Speaking):
        async def speak(self) -> None:
            store[:] = ITEMS
            while store:
                await asyncio.sleep(0.001)
                if store:
                    self.say(store.pop(0))
            self.end()

    return source(FromTheStore)


def disposed_together() -> Observable[str]:
    everybody: list[Speaking] = []

    class Together(Speaking):
        def __init__(self, observer: Sink) -> None:
            super().__init__(observer)
            everybody.append(self)

        def end(self) -> None:
            everybody.remove(self)
            super().end()

        def dispose(self) -> None:
            for each in everybody:
                each.task.cancel()
                if each is not self and each.observer is not None:
                    each.observer.on_error(RuntimeError("the other one has gone"))

    return source(Together)


class TooLateAtOnce(Speaking):
    """It has to have begun before it can be disposed."""

    def __init__(self, observer: Sink) -> None:
        super().__init__(observer)
        asyncio.get_running_loop().call_soon(observer.on_next, "a")


class GoingOn(Speaking):
    def dispose(self) -> None:
        pass


def doubling_without_a_net() -> Observable[str]:
    class Doubling(Speaking):
        def say(self, item: str) -> None:
            observer = self.observer
            if observer is not None:
                observer.on_next(item)
                observer.on_next(item)

    def subscribe(observer: Sink, scheduler: Scheduler) -> DisposableBase:
        return Doubling(observer)

    return Unguarded(subscribe)


class WaitingForTheLoop(Speaking):
    def dispose(self) -> None:
        loop = self.task.get_loop()
        super().dispose()
        if not loop.is_running() or self.is_here():
            return
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(10)

    def is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.task.get_loop()
        except RuntimeError:
            return False


class OnItsThreadOnly(Speaking):
    def dispose(self) -> None:
        asyncio.get_running_loop()  # raises in another thread
        super().dispose()


class ComplainingAfterTheEnd(Speaking):
    def __init__(self, observer: Sink) -> None:
        super().__init__(observer)
        self._told = observer

    def dispose(self) -> None:
        if self.is_ended:
            self._told.on_error(RuntimeError("it has ended already"))
        super().dispose()


class LeavingATask(Speaking):
    def dispose(self) -> None:
        self.observer = None
        self.task.cancel()
        self.task = asyncio.get_running_loop().create_task(self.wait())

    async def wait(self) -> None:
        await asyncio.Event().wait()


def keeping_observers() -> Observable[str]:
    kept: list[Sink] = []

    class Keeping(Speaking):
        def __init__(self, observer: Sink) -> None:
            super().__init__(observer)
            kept.append(observer)

    return source(Keeping)


class Swallowing(Speaking):
    def say(self, item: str) -> None:
        try:
            super().say(item)
        except Exception:  # noqa: BLE001 - what is wrong with it
            pass


def silent() -> Observable[Any]:
    def subscribe(observer: ObserverBase[Any], scheduler: Scheduler = None) -> DisposableBase:
        return Disposable()

    return Observable(subscribe)
