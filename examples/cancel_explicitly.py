"""``close()`` in another thread and ``aclose()`` in a coroutine stop a run. Calling them again does nothing.

python examples/cancel_explicitly.py
"""

import asyncio
import threading

from _model import chosen_model

from rxflow import Flow
from rxflow.flow import start
from rxflow.types.streaming import FlowStreamingOutput

MODEL = chosen_model()
ENDLESS = "Count the waves, one after the other"


class Waves(Flow):
    """Runs until somebody stops it."""

    stream = True

    @start()
    async def count(self) -> None:
        while True:
            await MODEL.acall(ENDLESS)


async def with_aclose() -> None:
    streaming = await Waves().kickoff_async()
    words = 0
    try:
        async for chunk in streaming:
            print(chunk, end="", flush=True)
            words += 1
            if words == 7:
                break
    finally:
        await streaming.aclose()
        await streaming.aclose()  # a second call does nothing
    report("aclose", streaming)


def with_close() -> None:
    streaming: FlowStreamingOutput = Waves().kickoff()
    for number, chunk in enumerate(streaming):  # ends soon after the other thread has closed it
        if number <= 6:
            print(chunk, end="", flush=True)
        if number == 6:
            threading.Thread(target=streaming.close).start()
    report("close", streaming)


def report(how: str, streaming: FlowStreamingOutput) -> None:
    print(f"\n{how}: completed: {streaming.is_completed}, cancelled: {streaming.is_cancelled}")
    try:
        print(streaming.result)
    except RuntimeError as error:
        print(f"no result: {error}\n")


asyncio.run(with_aclose())
with_close()
