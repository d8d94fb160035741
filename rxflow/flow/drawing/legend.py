"""The legend: what each shape and line that occurs in a drawing means."""

from __future__ import annotations

from rxflow.flow.drawing.layout import Box
from rxflow.flow.drawing.markup import edge_svg, escaped, shape_svg
from rxflow.flow.drawing.routes import Route
from rxflow.flow.drawing.sketch import Edge, Line, Look, Sketch

_NODES = {
    Look.START: "start",
    Look.WAITING_START: "start that waits for its condition",
    Look.LISTENER: "listener",
    Look.ROUTER: "router",
    Look.STARTING_ROUTER: "start and router",
    Look.AND: "AND: waits for all of them",
    Look.OR: "OR: one of them is enough",
    Look.LABEL: "label",
}
_LINES = {
    Line.TRIGGER: "runs after",
    Line.LABEL: "runs on a router’s label",
    Line.MAYBE: "a label that the router may emit",
}


def legend_html(sketch: Sketch) -> str:
    """The legend of ``sketch``, as a list."""
    looks = {node.look for node in sketch.nodes}
    lines = {edge.line for edge in sketch.edges}
    items = [_item(_node_sample(look), said) for look, said in _NODES.items() if look in looks]
    items += [_item(_line_sample(line), said) for line, said in _LINES.items() if line in lines]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _item(sample: str, said: str) -> str:
    svg = f'<svg width="34" height="20" viewBox="0 0 34 20" aria-hidden="true">{sample}</svg>'
    return f"<li>{svg}{escaped(said)}</li>"


def _node_sample(look: Look) -> str:
    return f'<g class="node {look.value}">{shape_svg(look, Box(2, 3, 30, 14))}</g>'


def _line_sample(line: Line) -> str:
    down = edge_svg(Edge(0, 0, line), Route((17, 0), (((17, 28),), ((17, 32),))))
    return f'<g transform="translate(1 10) rotate(-90) translate(-17 0)">{down}</g>'
