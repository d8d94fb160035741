"""Draws a sketch as Mermaid text, for READMEs and wikis that render Mermaid."""

from __future__ import annotations

import re

from rxflow.flow._drawing.node_text import clean_text
from rxflow.flow._drawing.sketch import Edge, Line, Look, Node, sketch_graph
from rxflow.flow._graph import Graph

_BRACKETS = {
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
# Mermaid interprets Markdown in its texts, including "1." and "_a_". An underscore inside a word is harmless.
_UNSAFE = re.compile(r"[^\w ]|(?<![^\W_])_|_(?![^\W_])")


def draw_mermaid(graph: Graph) -> str:
    """Draw ``graph`` as a Mermaid ``flowchart TD``."""
    sketch = sketch_graph(graph)
    lines = ["flowchart TD"]
    if not sketch.nodes:
        lines.append(f'    empty["{_quote(graph.name)} has no methods"]')
    lines += [f"    {_format_node(index, node)}" for index, node in enumerate(sketch.nodes)]
    lines += [f"    {_format_edge(edge)}" for edge in sketch.edges]
    used: dict[str, list[str]] = {kind: [] for kind in _STYLES}
    for index, node in enumerate(sketch.nodes):
        for kind in node.look.value.split():
            used[kind].append(f"n{index}")
    for kind, ids in used.items():
        if ids:
            lines += [f"    classDef {kind} {_STYLES[kind]}", f"    class {','.join(ids)} {kind}"]
    return "\n".join(lines) + "\n"


def _format_node(index: int, node: Node) -> str:
    opening, closing = _BRACKETS[node.look]
    text = "<br/>".join(_quote(line) for line in (node.text, node.doc) if line)
    return f'n{index}{opening}"{text}"{closing}'


def _format_edge(edge: Edge) -> str:
    arrow = "-->" if edge.line is Line.TRIGGER else "-.->"
    label = "" if edge.label is None else f'|"{_quote(edge.label) or " "}"|'
    return f"n{edge.source} {arrow}{label} n{edge.target}"


def _quote(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"#{ord(found.group())};", clean_text(text))
