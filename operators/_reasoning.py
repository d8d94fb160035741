"""``reasoning``: selects the reasoning of the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable

from rxflow.operators._core import only, select
from rxflow.types import ReasoningChunk


def reasoning() -> Callable[[Observable[Any]], Observable[ReasoningChunk]]:
    """Select the reasoning chunks (like ``filter``), from models that show their reasoning.

    Reasoning chunks are events, not a part of the answer. ``observe()`` does not select them, but this operator finds
    them behind ``observe()``, if no operator of RxPY is in between. A stream of bare chunks, such as an output, has
    none. ::

        events          --{started}--hm--he--llo--|
        reasoning()     -------------hm-----------|

    Example::

        flow.observe().pipe(ops.reasoning()).subscribe(lambda chunk: show_dimmed(chunk.content))
    """
    return select(only(_is_reasoning))


def _is_reasoning(item: object) -> bool:
    return isinstance(item, ReasoningChunk)
