"""The graph as Mermaid text, for READMEs and wikis that draw it themselves."""

from __future__ import annotations

import re

from rxflow.flow.drawing.sketch import Edge, Line, Look, Node, sketch_of
from rxflow.flow.drawing.text import printable
from rxflow.flow.graph import Graph

_SHAPES = {
    Look.START: ("([", "])"),
    Look.WAITING_START: ("([", "])"),
    Look.LISTENER: ("[", "]"),
    Look.ROUTER: ("{{", "}}"),
    Look.STARTING_ROUTER: ("{{", "}}"),
    Look.AND: ("((", "))"),
    Look.OR: ("((", "))"),
    Look.LABEL: (">", "]"),
}
_STYLES = {
    "router": "fill:#fff1dc,stroke:#b25a00,color:#1a1d23",
    "start": "fill:#e3f6e8,stroke:#1f7a3d,color:#1a1d23",
    "waiting": "stroke-dasharray:6 4",
    "listener": "fill:#e8f0fe,stroke:#2f5fb3,color:#1a1d23",
    "and": "fill:#414a59,stroke:#414a59,color:#fff",
    "or": "fill:#fff,stroke:#414a59,color:#1a1d23",
    "loose": "fill:#fff,stroke:#9a4a00,color:#9a4a00,stroke-dasharray:2 3",
}
# Mermaid reads Markdown in its texts, also "1." and "_a_"; inside a word an underscore is harmless.
_UNSAFE = re.compile(r"[^\w ]|(?<![^\W_])_|_(?![^\W_])")


def mermaid(graph: Graph) -> str:
    """``graph`` as a Mermaid ``flowchart TD``."""
    sketch = sketch_of(graph)
    lines = ["flowchart TD"]
    if not sketch.nodes:
        lines.append(f'    empty["{_quoted(graph.name)} has no methods"]')
    lines += [f"    {_node(place, node)}" for place, node in enumerate(sketch.nodes)]
    lines += [f"    {_edge(edge)}" for edge in sketch.edges]
    used: dict[str, list[str]] = {kind: [] for kind in _STYLES}
    for place, node in enumerate(sketch.nodes):
        for kind in node.look.value.split():
            used[kind].append(f"n{place}")
    for kind, places in used.items():
        if places:
            lines += [f"    classDef {kind} {_STYLES[kind]}", f"    class {','.join(places)} {kind}"]
    return "\n".join(lines) + "\n"


def _node(place: int, node: Node) -> str:
    opening, closing = _SHAPES[node.look]
    text = "<br/>".join(_quoted(line) for line in (node.text, node.doc) if line)
    return f'n{place}{opening}"{text}"{closing}'


def _edge(edge: Edge) -> str:
    arrow = "-->" if edge.line is Line.TRIGGER else "-.->"
    label = "" if edge.label is None else f'|"{_quoted(edge.label) or " "}"|'
    return f"n{edge.source} {arrow}{label} n{edge.target}"


def _quoted(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"#{ord(found.group())};", printable(text))
