"""A crowd of flows of random shape at once: nothing of one is seen in another, and one that fails hurts none.

60 of them in every test run, 500 with ``make storm``. ``RXFLOW_CROWD`` says how many, ``RXFLOW_CROWD_SEED`` which.
"""

import asyncio
import os
import random
import threading
from contextvars import copy_context

import pytest

from rxflow import LLM
from tests.loopback import Loopback
from tests.reliability.shapes import Answers, Member, crowd, mark, read, read_async

COUNT = int(os.environ.get("RXFLOW_CROWD", "60"))
SEED = int(os.environ.get("RXFLOW_CROWD_SEED") or random.randrange(1 << 32))


async def read_all(members: list[Member], provider: Loopback, limit: float) -> None:
    """Those on threads and those on this loop, all held by the provider until all are open."""
    threads = [
        threading.Thread(target=copy_context().run, args=(read, member), name=member.tag, daemon=True)
        for member in members
        if member.is_threaded
    ]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
        for member in members:
            if not member.is_threaded:
                group.create_task(read_async(member))
        await provider.until(lambda p: p.holding >= len(members), timeout=limit)
        provider.release()
    for thread in threads:
        await asyncio.to_thread(thread.join, limit)
        assert not thread.is_alive()


@pytest.mark.timeout(60 + COUNT // 4)
def test_no_chunk_state_or_context_crosses_and_a_failure_hurts_none(provider: Loopback, llm: LLM) -> None:
    said = f"RXFLOW_CROWD={COUNT} RXFLOW_CROWD_SEED={SEED}"
    members = crowd(COUNT, SEED, llm)
    provider.answer(Answers())
    asyncio.run(read_all(members, provider, 30 + COUNT / 20))
    assert [complaint for member in members for complaint in member.complaints()] == [], said
    assert mark.get() == "unmarked"
    provider.wait_until(lambda p: len(p.requests) == p.completed + len(p.disconnects))
