"""A storm of cancellations: very many flows, each stopped at a point and in a way drawn by chance.

200 of them in every test run, 2,000 with ``make storm``; a fifth on each further wire. ``RXFLOW_STORM`` is their
number, ``RXFLOW_STORM_SEED`` chooses them.
"""

import asyncio
import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from rxflow.testing.leaks import assert_nothing_is_left
from tests.gate import PATIENCE_S
from tests.loopback import Loopback
from tests.loopback.dialects import CHAT, DIALECTS, Dialect
from tests.reliability.cases import Case, case_of, drawn
from tests.reliability.storm import Storm

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("RXFLOW_STORM", "200"))
SEED = int(os.environ.get("RXFLOW_STORM_SEED") or random.randrange(1 << 32))
STORMS = [
    pytest.param(dialect, COUNT if dialect is CHAT else COUNT // 5, id=str(dialect))
    for dialect in DIALECTS
    if dialect.has_tools
]


@pytest.fixture
def short_pauses(litellm_is_warm: None) -> Iterator[None]:
    """Python's collector stops all threads while it goes through everything: with litellm, 0.2 to 0.4 s at a time.

    That is no time of ours. A service does the same once it is warm (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(("dialect", "count"), STORMS)
@pytest.mark.usefixtures("short_pauses")
@pytest.mark.timeout(60 + COUNT // 5)
@pytest.mark.filterwarnings("ignore:.* was dropped while its run was going on:ResourceWarning")
def test_in_a_storm_of_cancellations_every_connection_closes_at_once_and_nothing_starts_afterwards(
    provider: Loopback, dialect: Dialect, count: int
) -> None:
    cases = list(drawn(count, SEED))
    said = f"{dialect}: {count} flows, RXFLOW_STORM={COUNT} RXFLOW_STORM_SEED={SEED}"
    provider.answer(lambda request: case_of(request, cases).answer(request))
    threads = threads_at_work()

    async def main() -> None:
        reported: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(str(context)))
        await Storm(dialect, provider.url).pass_over(cases)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=PATIENCE_S)
        assert (left, reported) == (set(), []), said

    try:
        asyncio.run(main())
    except BaseException as error:
        error.add_note(said)
        raise
    assert_nothing_is_left()
    assert threads_at_work() == threads, said
    assert [complaint for case in cases for complaint in case.complaints()] == [], said

    provider.wait_until(lambda p: len(p.requests) == p.completed + len(p.disconnects))
    times = times_to_close(provider, cases)
    print(
        said,
        f"{len(times)} connections closed within",
        *(f"{percentile(p, times) * 1000:.1f} ms ({p} %)" for p in (50, 99, 100)),
    )


POOLS = ("rxflow-io-worker", "litellm", "aws-signing", "rxflow loop")
"""In which requests are prepared and signed, and the loops kept for the next runs: they grow to a handful, and stay."""


def threads_at_work() -> Counter[str]:
    return Counter(each.name for each in threading.enumerate() if not each.name.startswith(POOLS))


def times_to_close(provider: Loopback, cases: list[Case]) -> list[float]:
    """Seconds from each cancellation to the moment when the server saw its connection close."""
    of_provider = [
        gone.at - case_of(gone.request, cases).stopped_at for gone in provider.disconnects if gone.request is not None
    ]
    of_others = [case.gone_at - case.stopped_at for case in cases if case.gone_at is not None]
    return sorted(of_provider + of_others)


def percentile(percent: int, ordered: list[float]) -> float:
    return ordered[(len(ordered) - 1) * percent // 100]
