"""A mixed load for long: flows that complete, fail, are cancelled anywhere; with tools and both kinds of methods.

10 seconds in every test run, ten minutes with ``make soak``. ``RXFLOW_SOAK`` says how many seconds.
"""

import asyncio
import gc
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import FunctionType

import pytest

from rxflow import LLM, _hooks
from rxflow.llm import _io as io_loop
from rxflow.testing.leaks import assert_nothing_is_left
from tests.gate import PATIENCE_S
from tests.loopback import Loopback, Reply, Request
from tests.loopback.dialects import CHAT
from tests.reliability.cases import POINTS, Case, Point, case_of, drawn
from tests.reliability.shapes import SAID, Member, crowd, read, read_async, tag_in
from tests.reliability.storm import Storm

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("RXFLOW_SOAK", "10"))
SEED = int(os.environ.get("RXFLOW_SOAK_SEED") or random.randrange(1 << 32))
AT_ONCE = 20  # flows of each sort in a round
SHOWN = 10  # rounds that are told of: enough to see whether a growth goes on
WARM_UP = 3  # rounds in which pools fill, and modules come in
OF_A_CONNECTION = 65  # blocks for each descriptor; one round ends with twenty of them, another with fifty

# A host of its own for each connection that never stands would only measure how many clients litellm keeps.
HERE: dict[Point, int] = {point: weight for point, weight in POINTS.items() if point != "connect"}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds between two rounds, with all garbage collected."""

    blocks: int
    """Of memory, as Python's allocator counts them."""
    kilobytes: int
    """Resident."""
    descriptors: int
    threads: int
    tasks: int
    """On the I/O loop."""
    objects: int
    """Of rxflow's own types, and its closures; but for those that were there when the rounds began to count."""

    @property
    def blocks_besides(self) -> int:
        """Those of no open connection."""
        return self.blocks - OF_A_CONNECTION * self.descriptors

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, field.name):,} {field.name}" for field in fields(self))


async def count_tasks(into: list[int]) -> None:
    into.append(len(asyncio.all_tasks()) - 1)


def sample() -> Sample:
    for _ in range(3):  # what is found in one pass can free what the next finds
        gc.collect()
    tasks: list[int] = []
    io_loop.submit(count_tasks(tasks)).result(PATIENCE_S)
    return Sample(
        blocks=sys.getallocatedblocks(),
        kilobytes=resident(),
        descriptors=len(list(Path("/dev/fd").iterdir())),
        threads=threading.active_count(),
        tasks=tasks[0],
        objects=sum(1 for each in gc.get_objects() if is_ours(each)),
    )


def is_ours(thing: object) -> bool:
    """Subclasses of ours too."""
    definitions = (thing,) if isinstance(thing, FunctionType) else type(thing).__mro__
    return any(str(definition.__module__).startswith("rxflow") for definition in definitions)


def resident() -> int:
    """The memory of this process in KiB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


async def one_round(provider: Loopback, cases: list[Case], members: list[Member]) -> None:
    """All at once, to their ends."""

    def answer(request: Request) -> Reply:
        tag = tag_in(request)
        return Reply(text=[tag] * SAID) if tag else case_of(request, cases).answer(request)

    provider.answer(answer)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(Storm(CHAT, provider.url).pass_over(cases))
        for member in members:
            work = asyncio.to_thread(read, member) if member.is_threaded else read_async(member)
            group.create_task(work)
    await provider.until(lambda p: len(p.requests) == p.completed + len(p.disconnects))


def rounds(provider: Loopback, llm: LLM) -> Iterator[Sample]:
    """The process after each round, warm."""
    number = 0
    end = time.monotonic() + SECONDS
    while number < WARM_UP or time.monotonic() < end:
        cases = list(drawn(AT_ONCE, SEED + number, HERE))
        members = crowd(AT_ONCE, SEED + number, llm)
        asyncio.run(one_round(provider, cases, members))
        complaints = [complaint for case in cases for complaint in case.complaints()]
        complaints += [complaint for member in members for complaint in member.complaints()]
        assert complaints == [], f"round {number} of RXFLOW_SOAK_SEED={SEED}"
        del cases, members
        provider.answer(lambda request: Reply())
        with provider.change():
            provider.requests.clear()
            provider.disconnects.clear()
            provider.completed = 0
        assert_nothing_is_left()
        number += 1
        if number == WARM_UP:
            gc.collect()
            gc.freeze()  # the collector need not go through litellm thrice a round: that leaves time for more rounds
        if number > WARM_UP:
            yield sample()


@pytest.mark.timeout(60 + SECONDS * 1.5)
@pytest.mark.filterwarnings("ignore:.* was dropped while its run was going on:ResourceWarning")
def test_memory_descriptors_threads_and_tasks_stay_flat(
    provider: Loopback, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hooks, "on_start", None)  # the plugin's leak check would note each run, for the test's length
    try:
        seen = list(rounds(provider, llm))
    finally:
        gc.unfreeze()
    third = max(1, len(seen) // 3)
    early, late = seen[:third], seen[-third:]
    flows = (len(seen) - third) * 2 * AT_ONCE
    print(f"\n{len(seen)} rounds, {len(seen) * 2 * AT_ONCE:,} flows; RXFLOW_SOAK_SEED={SEED}")
    for number in range(0, len(seen), max(1, len(seen) // SHOWN)):
        print(f"after round {number + 1:>5}: {seen[number]}")

    # By the least of each third: a round that has just ended may still hold something, for a moment.
    held = min(each.objects for each in late) - min(each.objects for each in early)
    assert held <= 40, f"{held} objects of rxflow more after {flows} flows"  # an open connection may keep some
    growth = min(each.blocks_besides for each in late) - min(each.blocks_besides for each in early)
    assert growth <= 800 + flows / 4, f"{growth} blocks more after {flows} flows"
    resident_growth = statistics.median(s.kilobytes for s in late) - statistics.median(s.kilobytes for s in early)
    assert resident_growth <= 20_000, f"{resident_growth} KiB more after {flows} flows"
    assert min(s.descriptors for s in late) <= min(s.descriptors for s in early) + AT_ONCE
    assert min(s.threads for s in late) <= min(s.threads for s in early)
    assert min(s.tasks for s in late) <= min(s.tasks for s in early)
