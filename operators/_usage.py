"""``usage``: sums the tokens of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core import select
from rxflow.types import LLMCancelled, LLMFailed, LLMFinished, UsageMetrics


def usage() -> Callable[[Observable[Any]], Observable[UsageMetrics]]:
    """Sum the tokens of all LLM calls so far (like ``scan``), as providers report them. The last value is the total. ::

        events     S--a--b--{30 tokens}--c--{12 tokens}--F|
        usage()    ---------30--------------42-----------|

    This operator needs the events of a run (``flow.observe()``, ``flow.events()``), because bare chunks have no usage.
    A call that was cancelled, or that failed in mid-answer, counts with an estimate. Each finished call emits a value,
    even if its provider reports no tokens. A number in the value is None until a call reports that number. Errors are
    passed on.

    Example::

        flow.observe().pipe(ops.usage()).subscribe(lambda so_far: show(so_far.total_tokens))
    """
    return select(_sum_usage)


def _sum_usage(source: Observable[Any]) -> Observable[UsageMetrics]:
    def subscribe(observer: ObserverBase[UsageMetrics], scheduler: SchedulerBase | None = None) -> DisposableBase:
        total = UsageMetrics()

        def on_next(item: Any) -> None:
            nonlocal total
            if isinstance(item, LLMFinished) or (isinstance(item, LLMFailed | LLMCancelled) and item.usage.is_reported):
                total += item.usage
                observer.on_next(total)

        return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)
