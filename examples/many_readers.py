"""One run, many readers: readers leave in the middle and come back later, and each gets the whole text in the end.

python examples/many_readers.py
"""

import asyncio
import random
from typing import Any

from _model import chosen_model

from rxflow import Flow
from rxflow.flow import start
from rxflow.runs import Run, Runs

MODEL = chosen_model()
READERS = 100


class Story(Flow):
    @start()
    async def tell(self) -> Any:
        return await MODEL.acall("Tell a story about the sea")


async def read(run: Run) -> tuple[str, int]:
    """Read the run, leaving at random points; return its text, and how often the reader came back."""
    text, after, visits = "", -1, 0
    while True:
        visits += 1
        patience = random.randrange(3, 30)
        async with run.output(after=after) as output:
            async for chunk in output:
                text, after, patience = text + chunk.content, chunk.seq, patience - 1
                if not patience:
                    break
            else:
                return text, visits


async def main() -> None:
    with Runs() as runs:
        run = await runs.start_async(Story())
        seen = await asyncio.gather(*(read(run) for _ in range(READERS)))
        story = await run.result_async()
        print(f"{story[:60]}…")
        print(f"{READERS} readers came {sum(visits for _, visits in seen)} times")
        print(f"with the whole story: {sum(text == story for text, _ in seen)}")


asyncio.run(main())
