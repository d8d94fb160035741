"""The nodes and edges that show a flow's graph, without sizes, coordinates or markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from rxflow.flow._graph import AllOf, AnyOf, Condition, Graph, Method, Trigger


class Look(Enum):
    """The kind of a node. The value has the CSS classes of the node."""

    START = "start"
    WAITING_START = "start waiting"
    LISTENER = "listener"
    ROUTER = "router"
    STARTING_ROUTER = "router start"
    AND = "and"
    OR = "or"
    LABEL = "loose"


class Line(Enum):
    """The kind of an edge. The value is the CSS class of the edge."""

    TRIGGER = "trigger"
    LABEL = "labelled"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Node:
    """A method, a join of several conditions, or a label.

    A label has a node of its own only if no router is known to emit it, or if nothing listens for it.

    ``text`` is the name of the method, "AND", "OR" or the label. ``doc`` is the first line of the method's docstring.
    ``tip`` is the tooltip.
    """

    look: Look
    text: str
    doc: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A line between two nodes. ``source`` and ``target`` are indices in ``Sketch.nodes``."""

    source: int
    target: int
    line: Line = Line.TRIGGER
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Sketch:
    """The nodes and edges of a graph. The nodes of methods come first, in the order of ``Graph.methods``."""

    nodes: list[Node] = field(default_factory=list[Node])
    edges: list[Edge] = field(default_factory=list[Edge])


def sketch_graph(graph: Graph) -> Sketch:
    """Return the nodes and edges that show ``graph``."""
    return _Sketcher(graph).sketch


class _Sketcher:
    def __init__(self, graph: Graph) -> None:
        self.sketch = Sketch()
        self._graph = graph
        self._indices = {name: index for index, name in enumerate(graph.methods)}
        self._joins: dict[Condition, int] = {}
        self._loose: dict[str, int] = {}
        self._heard: set[str] = set()
        for method in graph.methods.values():
            self._add_node(_describe_method(method))
        for method in graph.methods.values():
            if method.condition is not None:
                self._lead_to(method.condition, self._indices[method.name])
        self._add_unheard_labels()

    def _lead_to(self, condition: Condition, target: int) -> None:
        """Add edges that lead to the node ``target`` from everything that ``condition`` waits for.

        If the edges pass through joins, add the joins too.
        """
        if isinstance(condition, Trigger):
            edges = list(self._find_edges(condition.name, target))
            if len(edges) > 1 and self.sketch.nodes[target].look is Look.AND:
                # One of these edges is enough. If they led directly into the AND, all of them would seem to be needed.
                join = self._get_join(condition, Look.OR)
                self.sketch.edges.append(Edge(join, target))
            else:
                self.sketch.edges.extend(edges)
            return
        items = _flatten(condition)
        if len(items) == 1:
            self._lead_to(items[0], target)
        else:
            join = self._get_join(condition, Look.AND if isinstance(condition, AllOf) else Look.OR)
            self.sketch.edges.append(Edge(join, target))

    def _get_join(self, condition: Condition, look: Look) -> int:
        """Return the index of the join for ``condition``. Equal conditions share one join."""
        if condition not in self._joins:
            tip = "all of these" if look is Look.AND else "one of these"
            join = self._joins[condition] = self._add_node(
                Node(look, look.name, tip=f"{tip}: {format_condition(condition)}")
            )
            for item in [condition] if isinstance(condition, Trigger) else _flatten(condition):
                self._lead_to(item, join)
        return self._joins[condition]

    def _find_edges(self, trigger: str, target: int) -> Iterator[Edge]:
        """Yield the edges that lead to the node ``target`` from ``trigger``, which is a method's name or a label.

        The edges come from the method with this name, and from the routers that are known to emit this label. If there
        is no method with this name, and no router is known to emit this label, one edge is yielded:

        - If the labels of exactly one router are unknown, the edge comes from this router.
        - Otherwise the edge comes from a node for the label.
        """
        self._heard.add(trigger)
        routers = [m for m in self._graph.methods.values() if m.is_router]
        emitters = [m for m in routers if trigger in (m.labels or ())]
        if trigger in self._indices:
            yield Edge(self._indices[trigger], target)
        for emitter in emitters:
            yield Edge(self._indices[emitter.name], target, Line.LABEL, trigger)
        if emitters or trigger in self._indices:
            return
        open_ended = [m for m in routers if m.labels is None]
        if len(open_ended) == 1:
            yield Edge(self._indices[open_ended[0].name], target, Line.MAYBE, trigger)
        else:
            yield Edge(self._get_unknown_label(trigger, open_ended), target, Line.LABEL)

    def _get_unknown_label(self, label: str, open_ended: Sequence[Method]) -> int:
        """Return the index of a node for ``label``, which no router is known to emit.

        The labels of the ``open_ended`` routers are unknown, so these routers may emit ``label``. Without the node,
        each of these routers would need an edge to each listener.
        """
        if label in self._loose:
            return self._loose[label]
        tip = "one of the routers may emit this label" if open_ended else "no router emits this label"
        index = self._get_loose_label(label, tip)
        self.sketch.edges.extend(Edge(self._indices[m.name], index, Line.MAYBE) for m in open_ended)
        return index

    def _add_unheard_labels(self) -> None:
        for method in self._graph.methods.values():
            for label in dict.fromkeys(method.labels or ()):
                if label not in self._heard:
                    end = self._get_loose_label(label, "nothing listens for this label: the flow can end here")
                    self.sketch.edges.append(Edge(self._indices[method.name], end, Line.LABEL))

    def _get_loose_label(self, label: str, tip: str) -> int:
        if label not in self._loose:
            self._loose[label] = self._add_node(Node(Look.LABEL, label or '""', tip=f"{label}\n{tip}"))
        return self._loose[label]

    def _add_node(self, node: Node) -> int:
        self.sketch.nodes.append(node)
        return len(self.sketch.nodes) - 1


def format_condition(condition: Condition) -> str:
    """Return ``condition`` as text, in the form of code: ``and_(a, or_(b, c))``."""
    if isinstance(condition, Trigger):
        return condition.name
    name = "and_" if isinstance(condition, AllOf) else "or_"
    return f"{name}({', '.join(format_condition(item) for item in condition.items)})"


def _describe_method(method: Method) -> Node:
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
        tip.append(f"waits for {format_condition(method.condition)}")
    if method.is_router:
        known = "labels that only its run decides" if method.labels is None else ", ".join(method.labels)
        tip.append(f"emits {known or 'nothing'}")
    return Node(look, method.name, method.doc, "\n".join(tip))


def _flatten(condition: AnyOf | AllOf) -> list[Condition]:
    """Return the items of ``condition``, each once.

    An OR inside an OR, or an AND inside an AND, is replaced by its items. Inside ``condition``, a condition with only
    one item is replaced by this item.
    """
    items: list[Condition] = []
    for item in condition.items:
        while not isinstance(item, Trigger) and len(item.items) == 1:
            item = item.items[0]
        items += _flatten(item) if isinstance(item, type(condition)) else [item]
    return list(dict.fromkeys(items))
