"""What an adapter costs: processor time for each event of a run, relative to writing the event as a line of JSON.

Microseconds depend on the machine; ``python -m benchmarks --only adapters`` measures them against their target.
"""

import pytest

from benchmarks import adapters as benchmark
from rxflow.types.events import Event

pytestmark = pytest.mark.slow

PATIENCE = 30  # times seven turns
AT_MOST = 6.0  # lines of JSON; the dearest adapter costs 3 to 4


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return benchmark.record_run(2_000)


@pytest.mark.parametrize("adapter", benchmark.ADAPTERS)
def test_an_adapter_costs_little_for_each_event(adapter: str, events: list[Event]) -> None:
    # The least of many turns: a busy machine takes time from some of them, and gives none back.
    costs: list[float] = []
    lines: list[float] = []
    while len(costs) < PATIENCE and (not costs or min(costs) >= AT_MOST * min(lines)):
        costs.append(benchmark.measure_one(events, benchmark.ADAPTERS[adapter], 7))
        lines.append(benchmark.measure_one(events, benchmark.ADAPTERS["json lines"], 7))
    assert min(costs) < AT_MOST * min(lines)
