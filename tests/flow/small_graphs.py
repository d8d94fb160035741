"""All small graphs of two routers, an ``or_``, an ``and_`` and a cycle, for rxflow and for CrewAI.

    begin ─► a ─► b          r1 waits for a or b, and returns "x"
      "again" ┘              r2 waits for any of ROUTED, and returns what SHAPES lists, one label a call
                             either waits for an or_ of two of OR_ITEMS, both for an and_ of AND_PAIRS

``python small_graphs.py small_graphs.json``, run by a Python that has CrewAI, records what CrewAI makes of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations, product
from pathlib import Path
from typing import Any

Wanted = str | tuple[str, ...]
"""A name, or ("or", name, …), or ("and", name, …)."""

MAX_METHOD_CALLS = 9
METHODS = ("a", "b", "r1", "r2", "either", "both")
ROUTED: tuple[Wanted, ...] = ("a", "b", "r1", "x", ("or", "a", "x"), ("or", "b", "x"), ("and", "a", "x"))
OR_ITEMS = ("a", "b", "r1", "x", "y")
AND_PAIRS = (("a", "x"), ("x", "y"), ("b", "either"), ("x", "either"), ("y", "either"))
SHAPES = {
    "straight": ("y",),
    "same label": ("x",),
    "cycle": ("again", "y"),
    "cycle of a start": ("again", "y"),
}


@dataclass(frozen=True)
class SmallGraph:
    """One of them."""

    shape: str
    first_router: str
    second_router: Wanted
    either: tuple[str, str]
    both: tuple[str, str]

    @property
    def row(self) -> str:
        """The row of the table that holds it."""
        second = _spell(self.second_router)
        return f"{self.shape}: r1 of {self.first_router}, r2 of {second}, or_({', '.join(self.either)})"

    @property
    def column(self) -> int:
        """The column of the table that holds it."""
        return AND_PAIRS.index(self.both)


def enumerate_graphs() -> Iterator[SmallGraph]:
    """Yield all, row by row."""
    for shape, first, second, either, both in product(SHAPES, ("a", "b"), ROUTED, combinations(OR_ITEMS, 2), AND_PAIRS):
        yield SmallGraph(shape, first, second, either, both)


async def count_calls(graph: SmallGraph, flow: Any, **options: Any) -> str:
    """Run ``graph`` with the names of the module ``flow``; one digit for each of METHODS: how often it ran."""
    calls: Counter[str] = Counter()

    def write(name: str, *labels: str) -> Any:
        async def method(self: Any) -> str | None:
            calls[name] += 1
            return labels[min(calls[name], len(labels)) - 1] if labels else None

        method.__name__ = name
        return method

    def condition(wanted: Wanted) -> Any:
        if isinstance(wanted, str):
            return wanted
        kind, *names = wanted
        return (flow.or_ if kind == "or" else flow.and_)(*names)

    members: dict[str, Any] = {
        "b": flow.listen("a")(write("b")),
        "r1": flow.router(graph.first_router, emit=["x"])(write("r1", "x")),
        "r2": flow.router(condition(graph.second_router), emit=["again", "x", "y"])(write("r2", *SHAPES[graph.shape])),
        "either": flow.listen(flow.or_(*graph.either))(write("either")),
        "both": flow.listen(flow.and_(*graph.both))(write("both")),
    }
    if graph.shape == "cycle of a start":
        members["a"] = flow.start("again")(write("a"))
    else:
        members["begin"] = flow.start()(write("begin"))
        members["a"] = flow.listen(flow.or_("begin", "again") if graph.shape == "cycle" else "begin")(write("a"))
    made = type("Small", (flow.Flow,), members)(max_method_calls=MAX_METHOD_CALLS, **options)
    try:
        await made.kickoff_async()
    except RecursionError:
        return "endless"
    return "".join(str(calls[name]) for name in METHODS)


def _spell(wanted: Wanted) -> str:
    return wanted if isinstance(wanted, str) else f"{wanted[0]}_({', '.join(wanted[1:])})"


def _record(path: Path) -> None:
    crewai_flow = import_module("crewai.flow.flow")
    table: dict[str, str] = {}
    for graph in enumerate_graphs():
        outcome = asyncio.run(count_calls(graph, crewai_flow, suppress_flow_events=True))
        table[graph.row] = f"{table.get(graph.row, '')} {outcome}".strip()
    path.write_text("{\n" + ",\n".join(f"{json.dumps(row)}: {json.dumps(table[row])}" for row in table) + "\n}\n")


if __name__ == "__main__":
    _record(Path(sys.argv[1]))
