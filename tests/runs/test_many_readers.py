"""Readers that drop at random points and go on behind what they saw: each has the whole run in the end.

100 of them on 10 runs in every test run, 1,000 on 50 with ``make storm``. ``RXFLOW_READERS`` says how many.
"""

import asyncio
import os
import random

import pytest
from reactivex import operators as rxops

from rxflow.runs import Run, Runs
from tests.runs.flows import Count

READERS = int(os.environ.get("RXFLOW_READERS", "100"))
RUNS = max(10, READERS // 20)
CHUNKS = 40


async def read(run: Run, random_: random.Random) -> list[str]:
    texts: list[str] = []
    after = -1
    while len(texts) < CHUNKS:
        seen = await run.observe(after).pipe(rxops.take(random_.randrange(1, 25)), rxops.to_list())
        texts += map(str, seen)
        after = seen[-1].seq
        await asyncio.sleep(random_.random() * 0.02)
    return texts


@pytest.mark.slow
@pytest.mark.timeout(120 + READERS // 2)
def test_nothing_is_lost_and_nothing_comes_twice(runs: Runs) -> None:
    seed = random.randrange(1 << 32)
    random_ = random.Random(seed)

    async def main() -> None:
        started = [await runs.start_async(Count(), {"count": CHUNKS, "gap_ms": 10}) for _ in range(RUNS)]
        seen = await asyncio.gather(*(read(started[number % RUNS], random_) for number in range(READERS)))
        assert [texts for texts in seen if texts != [f"n{number}" for number in range(CHUNKS)]] == [], seed
        for run in started:
            assert await run.result_async() == "".join(f"n{number}" for number in range(CHUNKS))

    asyncio.run(main())
