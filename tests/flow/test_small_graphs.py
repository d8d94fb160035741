"""Every small graph of two routers, ``or_``, ``and_`` and a cycle runs what it runs in CrewAI 1.15.1.

``small_graphs.json`` holds how often each method of each graph ran there. If a method waits for a router by its name,
CrewAI takes the router for a wave of its own: an ``or_`` of a router and its label fires twice there, and a cycle may
begin its next round before the listeners of this one have run. Here a method and its routers are one wave, so for these
the measure is ``expect_calls``, a model of the rules, which agrees with CrewAI on all others.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Set
from pathlib import Path

import pytest

import rxflow.flow
from tests.flow.small_graphs import MAX_METHOD_CALLS, METHODS, SHAPES, SmallGraph, Wanted, count_calls, enumerate_graphs

pytestmark = pytest.mark.slow

RECORDED: dict[str, str] = json.loads(Path(__file__).with_name("small_graphs.json").read_text())

by_shape = pytest.mark.parametrize("shape", SHAPES)


def recorded(graph: SmallGraph) -> str:
    return RECORDED[graph.row].split()[graph.column]


def names_a_router(graph: SmallGraph) -> bool:
    return "r1" in graph.either or graph.second_router == "r1"


@pytest.mark.filterwarnings("ignore:.*a label that no method waits for:UserWarning")
@by_shape
def test_every_method_runs_as_often_as_expected(shape: str) -> None:
    graphs = [graph for graph in enumerate_graphs() if graph.shape == shape]

    async def run_all() -> list[str]:
        return [await count_calls(graph, rxflow.flow) for graph in graphs]

    counted = asyncio.run(run_all())
    assert len(counted) == 700
    wrong = [(graph, got) for graph, got in zip(graphs, counted, strict=True) if got != expect_calls(graph)]
    assert wrong == []


@by_shape
def test_the_model_agrees_with_crewai_unless_a_method_waits_for_a_router_by_name(shape: str) -> None:
    graphs = [graph for graph in enumerate_graphs() if graph.shape == shape and not names_a_router(graph)]
    assert len(graphs) == 360
    assert [graph for graph in graphs if expect_calls(graph) != recorded(graph)] == []


def expect_calls(graph: SmallGraph) -> str:
    """Work out by recursion how often each method runs."""
    model = Model(graph)
    try:
        asyncio.run(model.run_method(model.start))
    except RecursionError:
        return "endless"
    return "".join(str(model.calls[name]) for name in METHODS)


class Model:
    """The rules of a flow, each in the words of the documentation."""

    def __init__(self, graph: SmallGraph) -> None:
        self.calls: Counter[str] = Counter()
        self.arrived: dict[str, set[str]] = {}
        self.fired: set[str] = set()
        self.start = "a" if graph.shape == "cycle of a start" else "begin"
        first: dict[str, Wanted] = {"cycle": ("or", "begin", "again"), "cycle of a start": "again"}
        self.waits: dict[str, Wanted] = {
            "b": "a",
            "r1": graph.first_router,
            "r2": graph.second_router,
            "either": ("or", *graph.either),
            "both": ("and", *graph.both),
            "a": first.get(graph.shape, "begin"),
        }
        self.labels = {"r1": ("x",), "r2": SHAPES[graph.shape]}

    async def call(self, name: str) -> None:
        self.calls[name] += 1
        if self.calls[name] > 1:
            self.fired.clear()  # when a completed method runs again, all are re-armed
        if self.calls[name] > MAX_METHOD_CALLS:
            raise RecursionError(name)
        await asyncio.sleep(0)

    async def run_method(self, name: str) -> None:
        """A wave is a method's completion with the routers that it sets off."""
        await self.call(name)
        happened: list[tuple[str, bool, frozenset[str]]] = [(name, False, frozenset())]
        ran: set[str] = set()
        for trigger, _, causes in happened:  # grows while it is read
            for router in self.find_due(trigger, ran - causes, is_router=True):
                await self.call(router)
                ran.add(router)
                label = self.labels[router][: self.calls[router]][-1]
                happened += [(router, False, causes | {router}), (label, True, causes | {router})]
        before = set(self.fired)
        for trigger, is_label, _ in happened:
            if is_label:  # re-arms only those that name it, and only if they had fired before this wave
                named = {each for each in before if trigger in self.waits[each]}
                self.fired -= named
                before -= named
            due = self.find_due(trigger, self.fired, is_router=False)
            self.fired |= {each for each in due if self.waits[each][0] == "or"}
            await asyncio.gather(*map(self.run_method, due))

    def find_due(self, trigger: str, spent: Set[str], *, is_router: bool) -> list[str]:
        due: list[str] = []
        for name, wanted in self.waits.items():
            kind, names = ("one", [wanted]) if isinstance(wanted, str) else (wanted[0], [*wanted[1:]])
            if (name in self.labels) is not is_router or trigger not in names or (kind == "or" and name in spent):
                continue
            arrived = self.arrived.setdefault(name, set[str]())
            arrived.add(trigger)
            if kind != "and" or arrived.issuperset(names):
                arrived.clear()
                due.append(name)
        return due
