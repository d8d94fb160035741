"""``text``: selects the answers of the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable

from rxflow.operators._core import only, select
from rxflow.types import StreamChunk, StreamChunkType


def text() -> Callable[[Observable[Any]], Observable[StreamChunk]]:
    """Select the TEXT chunks (like ``filter``), with all their labels. ``str(chunk)`` is the text itself. ::

        source    --he--{tool call}--llo--|
        text()    --he---------------llo--|

    Example::

        flow.observe().pipe(ops.text()).subscribe(lambda chunk: print(chunk, end=""))
    """
    return select(only(_is_text))


def _is_text(item: object) -> bool:
    return isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TEXT
