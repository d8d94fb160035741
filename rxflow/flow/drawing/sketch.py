"""What there is to draw: nodes and edges, read off a flow's graph, without sizes, places or markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from rxflow.flow.conditions import AllOf, AnyOf, Condition, Trigger
from rxflow.flow.graph import Graph, Method


class Look(Enum):
    """What a node is. The value names its CSS classes."""

    START = "start"
    WAITING_START = "start waiting"
    LISTENER = "listener"
    ROUTER = "router"
    STARTING_ROUTER = "router start"
    AND = "and"
    OR = "or"
    LABEL = "loose"


class Line(Enum):
    """What an edge says. The value names its CSS class."""

    TRIGGER = "trigger"
    LABEL = "labelled"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Node:
    """A method, a join of several conditions, or a label that no single edge can carry."""

    look: Look
    text: str
    doc: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """From one node to another, by their places in ``Sketch.nodes``."""

    source: int
    target: int
    line: Line = Line.TRIGGER
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Sketch:
    """All there is to draw of a graph. The methods come first, in the order of the graph."""

    nodes: list[Node] = field(default_factory=list[Node])
    edges: list[Edge] = field(default_factory=list[Edge])


def sketch_of(graph: Graph) -> Sketch:
    """The nodes and edges that show ``graph``."""
    return _Sketcher(graph).sketch


class _Sketcher:
    def __init__(self, graph: Graph) -> None:
        self.sketch = Sketch()
        self._graph = graph
        self._places = {name: place for place, name in enumerate(graph.methods)}
        self._joins: dict[Condition, int] = {}
        self._loose: dict[str, int] = {}
        self._heard: set[str] = set()
        for method in graph.methods.values():
            self._node(_method_node(method))
        for method in graph.methods.values():
            if method.condition is not None:
                self._lead(method.condition, self._places[method.name])
        self._unheard_labels()

    def _lead(self, condition: Condition, target: int) -> None:
        """Draw what ``condition`` waits for as edges into ``target``."""
        if isinstance(condition, Trigger):
            edges = list(self._edges_from(condition.name, target))
            if len(edges) > 1 and self.sketch.nodes[target].look is Look.AND:
                # Straight into the AND they would read as if all of them were needed.
                join = self._join(condition, Look.OR)
                self.sketch.edges.append(Edge(join, target))
            else:
                self.sketch.edges.extend(edges)
            return
        items = _flat(condition)
        if len(items) == 1:
            self._lead(items[0], target)
        else:
            join = self._join(condition, Look.AND if isinstance(condition, AllOf) else Look.OR)
            self.sketch.edges.append(Edge(join, target))

    def _join(self, condition: Condition, look: Look) -> int:
        """The join node of ``condition``; the same one for all who wait for the same."""
        if condition not in self._joins:
            tip = "all of these" if look is Look.AND else "one of these"
            join = self._joins[condition] = self._node(Node(look, look.name, tip=f"{tip}: {said(condition)}"))
            for item in [condition] if isinstance(condition, Trigger) else _flat(condition):
                self._lead(item, join)
        return self._joins[condition]

    def _edges_from(self, trigger: str, target: int) -> Iterator[Edge]:
        """The edges into ``target`` that a trigger's name stands for: a method's end, routers' labels, or both."""
        self._heard.add(trigger)
        routers = [m for m in self._graph.methods.values() if m.is_router]
        emitters = [m for m in routers if trigger in (m.labels or ())]
        if trigger in self._places:
            yield Edge(self._places[trigger], target)
        for emitter in emitters:
            yield Edge(self._places[emitter.name], target, Line.LABEL, trigger)
        if emitters or trigger in self._places:
            return
        open_ended = [m for m in routers if m.labels is None]
        if len(open_ended) == 1:
            yield Edge(self._places[open_ended[0].name], target, Line.MAYBE, trigger)
        else:
            yield Edge(self._unknown_label(trigger, open_ended), target, Line.LABEL)

    def _unknown_label(self, label: str, open_ended: Sequence[Method]) -> int:
        """A node for a label that any of several routers may emit: lines from each to each listener would be many."""
        if label in self._loose:
            return self._loose[label]
        tip = "one of the routers may emit this label" if open_ended else "no router emits this label"
        place = self._loose_label(label, tip)
        self.sketch.edges.extend(Edge(self._places[m.name], place, Line.MAYBE) for m in open_ended)
        return place

    def _unheard_labels(self) -> None:
        for method in self._graph.methods.values():
            for label in dict.fromkeys(method.labels or ()):
                if label not in self._heard:
                    end = self._loose_label(label, "nothing listens for this label: the flow can end here")
                    self.sketch.edges.append(Edge(self._places[method.name], end, Line.LABEL))

    def _loose_label(self, label: str, tip: str) -> int:
        if label not in self._loose:
            self._loose[label] = self._node(Node(Look.LABEL, label or '""', tip=f"{label}\n{tip}"))
        return self._loose[label]

    def _node(self, node: Node) -> int:
        self.sketch.nodes.append(node)
        return len(self.sketch.nodes) - 1


def said(condition: Condition) -> str:
    """``condition`` as one would write it: ``and_(a, or_(b, c))``."""
    if isinstance(condition, Trigger):
        return condition.name
    name = "and_" if isinstance(condition, AllOf) else "or_"
    return f"{name}({', '.join(said(item) for item in condition.items)})"


def _method_node(method: Method) -> Node:
    if method.is_router:
        look = Look.STARTING_ROUTER if method.is_start else Look.ROUTER
    elif method.is_start:
        look = Look.START if method.condition is None else Look.WAITING_START
    else:
        look = Look.LISTENER
    tip = [method.name]
    if method.doc:
        tip.append(method.doc)
    if method.condition is not None:
        tip.append(f"waits for {said(method.condition)}")
    if method.is_router:
        known = "labels that only its run decides" if method.labels is None else ", ".join(method.labels)
        tip.append(f"emits {known or 'nothing'}")
    return Node(look, method.name, method.doc, "\n".join(tip))


def _flat(condition: AnyOf | AllOf) -> list[Condition]:
    """The items, each once; an OR in an OR and an AND in an AND say nothing of their own."""
    items: list[Condition] = []
    for item in condition.items:
        while not isinstance(item, Trigger) and len(item.items) == 1:
            item = item.items[0]
        items += _flat(item) if isinstance(item, type(condition)) else [item]
    return list(dict.fromkeys(items))
