"""``usage``: what a run has used so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core.lift import select
from rxflow.types.events import LLMFinished
from rxflow.types.usage import UsageMetrics


def usage() -> Callable[[Observable[Any]], Observable[UsageMetrics]]:
    """The tokens of all LLM calls so far, as the provider counted them, after each call; the last is the total. ::

        events     S--a--b--{30 tokens}--c--{12 tokens}--F|
        usage()    ---------30--------------42-----------|

    It needs a run's events (``flow.observe()``, ``flow.events()``): bare chunks know nothing of tokens. Where no call
    succeeds it is empty. Errors pass.

    Example::

        flow.observe().pipe(ops.usage()).subscribe(lambda so_far: show(so_far.total_tokens))
    """
    return select(_totals)


def _totals(source: Observable[Any]) -> Observable[UsageMetrics]:
    def subscribe(observer: ObserverBase[UsageMetrics], scheduler: SchedulerBase | None = None) -> DisposableBase:
        total = UsageMetrics()

        def on_next(item: Any) -> None:
            nonlocal total
            if isinstance(item, LLMFinished):
                total += item.usage
                observer.on_next(total)

        return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)
