"""Sources that end in ways that RxPY's own do not."""

from typing import Any

from reactivex import Observable, operators as rxops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable


def ending_with(error: BaseException) -> Observable[Any]:
    """Fails at once; ``rx.throw`` would make an Exception of a cancellation."""

    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        observer.on_error(error)  # type: ignore[arg-type]
        return Disposable()

    return Observable(subscribe)


def refuse() -> None:
    raise ZeroDivisionError


def stubborn(source: Observable[Any]) -> Observable[Any]:
    """The same source, but a dispose action of its user raises."""
    return source.pipe(rxops.finally_action(refuse))
