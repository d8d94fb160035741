"""Draws a sketch as Mermaid text, for READMEs and wikis that render Mermaid."""

from __future__ import annotations

import re

from rxflow.flow._drawing.node_text import clean_text
from rxflow.flow._drawing.sketch import Edge, Line, Look, Node, sketch_graph
from rxflow.flow._drawing.style import LIGHT
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
    "router": f"fill:{LIGHT['route']},stroke:{LIGHT['route-line']},color:{LIGHT['text']}",
    "start": f"fill:{LIGHT['start']},stroke:{LIGHT['start-line']},color:{LIGHT['text']}",
    "waiting": "stroke-dasharray:6 4",
    "listener": f"fill:{LIGHT['listen']},stroke:{LIGHT['listen-line']},color:{LIGHT['text']}",
    "and": f"fill:{LIGHT['join']},stroke:{LIGHT['join']},color:{LIGHT['join-text']}",
    "or": f"fill:{LIGHT['back']},stroke:{LIGHT['join']},color:{LIGHT['text']}",
    "loose": f"fill:{LIGHT['back']},stroke:{LIGHT['label']},color:{LIGHT['label']},stroke-dasharray:2 3",
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
