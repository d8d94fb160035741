"""Leaving ``async with`` (or ``with``) stops the run: the LLM call ends, and the method is cancelled.

python examples/cancel_by_leaving.py
"""

import asyncio

from _model import chosen_model

from rxflow import Flow
from rxflow.flow import start

MODEL = chosen_model()


class Story(Flow):
    """Never ends by itself."""

    stream = True

    @start()
    async def tell(self) -> None:
        try:
            while True:
                await MODEL.acall("Tell another chapter about a ferry that never arrives")
        finally:
            print("\n(tell: stopped)")


async def main() -> None:
    async with await Story().kickoff_async() as streaming:
        words = 0
        async for chunk in streaming:
            print(chunk, end="", flush=True)
            words += 1
            if words == 5:
                break

    print(f"async with: completed: {streaming.is_completed}, cancelled: {streaming.is_cancelled}\n")


def main_without_asyncio() -> None:
    with Story().kickoff() as streaming:
        for number, chunk in enumerate(streaming, 1):
            print(chunk, end="", flush=True)
            if number == 5:
                break

    print(f"with: completed: {streaming.is_completed}, cancelled: {streaming.is_cancelled}")


asyncio.run(main())
main_without_asyncio()
