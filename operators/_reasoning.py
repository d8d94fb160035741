"""``reasoning``: selects the reasoning of the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable

from rxflow.operators._core import only, select
from rxflow.types import ReasoningChunk


def reasoning() -> Callable[[Observable[Any]], Observable[ReasoningChunk]]:
    """Select the ``ReasoningChunk`` events (like ``filter``).

    Not every model shows its reasoning. Reasoning is not a part of the answer, so ``observe()`` does not select it. But
    this operator works on all events of the run, so it can follow ``observe()``. If an operator of RxPY is in between,
    only the StreamChunks arrive here, without the reasoning. ::

        events          --{started}--hm--he--llo--|
        reasoning()     -------------hm-----------|

    Example::

        flow.observe().pipe(ops.reasoning()).subscribe(lambda chunk: show_dimmed(chunk.content))
    """
    return select(only(_is_reasoning))


def _is_reasoning(item: object) -> bool:
    return isinstance(item, ReasoningChunk)
