"""What an adapter costs: processor time for each event of a run."""

import pytest

from benchmarks import adapters as benchmark
from rxflow.types.events import Event

pytestmark = pytest.mark.slow

PATIENCE = 30  # times seven turns


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return benchmark.record_run(2_000)


@pytest.mark.parametrize("adapter", benchmark.ADAPTERS)
def test_an_adapter_costs_little_for_each_event(adapter: str, events: list[Event]) -> None:
    # The least of many turns: a busy machine takes time from some of them, and gives none back.
    seen: list[float] = []
    while len(seen) < PATIENCE and min(seen, default=benchmark.LIMIT) >= benchmark.LIMIT:
        seen.append(benchmark.measure_one(events, benchmark.ADAPTERS[adapter], 7))
    assert min(seen) < benchmark.LIMIT
