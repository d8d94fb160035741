"""What users' code returned, if that still has to be read: a stream of a run, or a generator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

from rxflow.streaming.emitter import Emitter
from rxflow.streaming.readable import Readable


async def read_out(returned: Any) -> Any:
    """Return ``returned``; read a crew's or a flow's stream to its end, and return its result.

    Reading it is what runs it, here: its chunks are in the stream of the code that returned it.
    """
    if not isinstance(returned, Readable):
        return returned
    output = cast(Readable[Any, Any], returned)
    async for _ in output:
        pass
    return output.result


async def list_items(emitter: Emitter, returned: Any) -> Any:
    """Return ``returned``; list the items of a generator, in a worker thread, and of an async one, on the loop."""
    if isinstance(returned, Generator):
        return await emitter.invoke(list[Any], cast(Generator[Any, None, Any], returned))
    if isinstance(returned, AsyncGenerator):
        return [item async for item in cast(AsyncGenerator[Any], returned)]
    return returned
