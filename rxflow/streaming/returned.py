"""What users' code returned, where that is a run of its own."""

from __future__ import annotations

from typing import Any, cast

from rxflow.streaming.readable import Readable


async def read_out(returned: Any) -> Any:
    """``returned`` as it is; of a crew's or a flow's stream the result, read to its end.

    Reading it is what runs it, here: its chunks are in the stream of the code that returned it.
    """
    if not isinstance(returned, Readable):
        return returned
    output = cast(Readable[Any, Any], returned)
    async for _ in output:
        pass
    return output.result
