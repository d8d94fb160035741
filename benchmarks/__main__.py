"""``make bench``: prints tables, and writes the figures to a JSON file with ``--json``.

``--only throughput`` runs one of the benchmarks; ``--quick`` makes all so small that they only show that they run.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    adapters,
    cluster,
    first_chunk,
    import_time,
    journal,
    many_flows,
    memory,
    operators,
    runs,
    scale,
    startup,
    stopping,
    throughput,
    web,
)


@dataclass(frozen=True)
class Size:
    """How much is measured. The larger, the less it is disturbed by what else the machine does."""

    chunks: int = 20_000
    turns: int = 10
    wire_turns: int = 5
    first_chunks: int = 100
    operators: int = 5_000
    flows: int = 1_000
    pace: float = many_flows.PACE
    waiting: int = 100
    stops: int = 100
    stream: int = scale.CHUNKS
    chain: int = scale.METHODS
    cycle: int = scale.CYCLES
    repeats: int = 3
    events: int = 1_000
    burst: int = 20_000
    web_runs: int = 100
    web_readers: int = 1_000
    cluster_runs: int = 200


QUICK = Size(
    chunks=500,
    turns=1,
    wire_turns=1,
    first_chunks=1,
    operators=200,
    flows=10,
    pace=0.001,
    waiting=4,
    stops=3,
    stream=2_000,
    chain=20,
    cycle=100,
    repeats=1,
    events=20,
    burst=200,
    web_runs=2,
    web_readers=6,
    cluster_runs=4,
)


def _throughput(size: Size) -> tuple[str, Any]:
    rates = throughput.measure(size.chunks, size.turns)
    return throughput.table(rates, size.chunks), [asdict(rate) for rate in rates]


def _wires(size: Size) -> tuple[str, Any]:
    rates = throughput.measure_wires(size.chunks, size.wire_turns)
    return throughput.table(rates, size.chunks), [asdict(rate) for rate in rates]


def _startup(size: Size) -> tuple[str, Any]:
    startups = startup.measure(size.turns)
    return startup.table(startups), [asdict(each) for each in startups]


def _first_chunk(size: Size) -> tuple[str, Any]:
    firsts = first_chunk.measure(size.first_chunks)
    return first_chunk.table(firsts), [asdict(first) for first in firsts]


def _many_flows(size: Size) -> tuple[str, Any]:
    loads, served = many_flows.measure(size.flows, size.repeats, pace=size.pace)
    blocking = many_flows.measure_blocking(min(size.flows, 200), pace=size.pace)
    figures = {"loads": [asdict(load) for load in loads], "served": asdict(served), "blocking": asdict(blocking)}
    return many_flows.table(loads, served, blocking, size.flows), figures


def _scale(size: Size) -> tuple[str, Any]:
    lengths = scale.measure(size.stream, size.chain, size.cycle, size.repeats)
    return scale.table(lengths), [asdict(each) for each in lengths]


def _memory(size: Size) -> tuple[str, Any]:
    memories = memory.measure(size.waiting, size.chunks)
    return memory.table(memories), [asdict(each) for each in memories]


def _stopping(size: Size) -> tuple[str, Any]:
    stops = stopping.measure(size.stops)
    return stopping.table(stops), [asdict(each) for each in stops]


def _runs(size: Size) -> tuple[str, Any]:
    figures = runs.measure(size.events, size.burst, min(size.stops, 50), size.chunks, size.turns)
    return runs.table(figures), [asdict(figure) for figure in figures]


def _cluster(size: Size) -> tuple[str, Any]:
    figures = cluster.measure(size.events, size.burst, min(size.stops, 50), size.cluster_runs)
    return cluster.table(figures), [asdict(figure) for figure in figures]


def _journal(size: Size) -> tuple[str, Any]:
    cost = journal.measure(size.turns)
    return journal.table(cost), asdict(cost)


def _web(size: Size) -> tuple[str, Any]:
    figures = web.measure(size.web_runs, size.web_readers)
    return web.table(figures), [asdict(figure) for figure in figures]


def _adapters(size: Size) -> tuple[str, Any]:
    costs = adapters.measure(size.chunks, 7)
    return adapters.table(costs), [asdict(cost) for cost in costs]


def _import(size: Size) -> tuple[str, Any]:
    imports = import_time.measure(size.turns)
    return import_time.table(imports), [asdict(each) for each in imports]


def _operators(size: Size) -> tuple[str, Any]:
    costs = operators.measure(size.operators, size.repeats)
    lines = [f"{'operators, on top of a bare Subject':<44}{'µs a chunk':>12}{'< ' + format(operators.LIMIT, 'g'):>8}"]
    lines += [f"{cost.name:<44}{cost.microseconds:>12.2f}{'yes' if cost.is_under else 'no':>8}" for cost in costs]
    return "\n".join(lines), [asdict(cost) for cost in costs]


BENCHMARKS: dict[str, Callable[[Size], tuple[str, Any]]] = {
    "throughput": _throughput,
    "wires": _wires,
    "startup": _startup,
    "first_chunk": _first_chunk,
    "many_flows": _many_flows,
    "scale": _scale,
    "memory": _memory,
    "stopping": _stopping,
    "runs": _runs,
    "cluster": _cluster,
    "journal": _journal,
    "web": _web,
    "adapters": _adapters,
    "import": _import,
    "operators": _operators,
}
"""Each gives a table for people, and the same for programs."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="one of them; may be given again")
    parser.add_argument("--quick", action="store_true", help="small numbers: only to see that they run")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    only: Sequence[str] = options.only or list(BENCHMARKS)
    path: Path | None = options.json

    size = QUICK if options.quick else Size()
    figures: dict[str, Any] = {"machine": machine()}
    began = time.monotonic()
    for name in only:
        table, figures[name] = BENCHMARKS[name](size)
        print(f"{table}\n", flush=True)
    print(f"{time.monotonic() - began:.0f} s; {machine()}")
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def machine() -> str:
    """What it was measured on."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


if __name__ == "__main__":
    main()
