"""``tool_call_deltas``: tool calls while the model writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable

from rxflow.operators._core.in_run import only, select
from rxflow.types.chunks import StreamChunk, StreamChunkType


def tool_call_deltas() -> Callable[[Observable[Any]], Observable[StreamChunk]]:
    """Select the TOOL_CALL chunks (like ``filter``), with all their labels.

    ``chunk.tool_call`` is the next delta of a call's arguments. ``tool_calls()`` puts the deltas together. ::

        source                 --he--{a: "("}--llo--{a: ")"}--|
        tool_call_deltas()     ------{a: "("}-------{a: ")"}--|

    Example::

        flow.observe().pipe(ops.tool_call_deltas()).subscribe(lambda chunk: print(chunk.content, end=""))
    """
    return select(only(_is_delta))


def _is_delta(item: object) -> bool:
    return isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TOOL_CALL
