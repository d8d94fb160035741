"""``reasoning``: what the models think before they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable

from rxflow.operators._core.lift import only, select
from rxflow.types.events import ReasoningChunk


def reasoning() -> Callable[[Observable[Any]], Observable[ReasoningChunk]]:
    """The pieces of the models' reasoning text, from those models that show it.

    They are events, which ``observe()`` does not show: directly after it this operator finds them nevertheless. A
    stream that holds chunks alone, such as an output's, has none. ::

        events          --{started}--hm--he--llo--|
        reasoning()     -------------hm-----------|

    Example::

        flow.observe().pipe(ops.reasoning()).subscribe(lambda piece: show_dimmed(piece.content))
    """
    return select(only(_is_reasoning))


def _is_reasoning(item: object) -> bool:
    return isinstance(item, ReasoningChunk)
