"""Nodes, edges and labels as SVG. Every text passes ``escaped`` on its way in: names, docs and labels are data."""

from __future__ import annotations

import html

from rxflow.flow.drawing.faces import Face
from rxflow.flow.drawing.layout import Box
from rxflow.flow.drawing.routes import Point, Route, Step
from rxflow.flow.drawing.sketch import Edge, Look, Node
from rxflow.flow.drawing.text import printable

_LINE = 17.0
_POINT = 14.0


def escaped(text: str) -> str:
    """``text`` as the content of an element or of an attribute."""
    return html.escape(printable(text))


def node_svg(node: Node, face: Face, box: Box) -> str:
    """A node: its shape, its text, and all that was too long for it as a tooltip."""
    x, y = box.middle
    baseline = y + 4.5 - _LINE * len(face.doc) / 2
    lines = [_text("name", face.name, x, baseline)]
    lines += [_text("doc", line, x, baseline + _LINE * number) for number, line in enumerate(face.doc, 1)]
    tip = "\n".join(escaped(line) for line in (node.tip or node.text).split("\n"))
    return f'<g class="node {node.look.value}"><title>{tip}</title>{shape_svg(node.look, box)}{"".join(lines)}</g>'


def shape_svg(look: Look, box: Box) -> str:
    """The outline that tells the kinds apart, also for those who see no colours."""
    if look in (Look.ROUTER, Look.STARTING_ROUTER):
        point = min(_POINT, box.width / 4)
        left, right, middle = box.x, box.x + box.width, box.y + box.height / 2
        corners = [
            *((left, middle), (left + point, box.y), (right - point, box.y)),
            *((right, middle), (right - point, box.y + box.height), (left + point, box.y + box.height)),
        ]
        return f'<polygon points="{" ".join(_point(corner) for corner in corners)}"/>'
    round_ = {Look.LISTENER: 5.0, Look.AND: 4.0}.get(look, min(box.height / 2, 22.0))
    place = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}"'
    return f'<rect {place} rx="{_n(round_)}"/>'


def edge_svg(edge: Edge, route: Route) -> str:
    """An edge with its arrowhead, which always points down: every edge enters from above."""
    x, y = route.end
    # The line ends under the arrowhead, whose tip is thinner than it.
    steps: list[Step] = [*route.steps[:-1], ((x, y - 4),)]
    way = f"M{_point(route.start)}" + "".join(_step(step) for step in steps)
    head = f"M{_point((x, y))}l-4.5,-8h9z"
    return f'<g class="edge {edge.line.value}"><path class="way" d="{way}"/><path class="head" d="{head}"/></g>'


def label_svg(edge: Edge, text: str, box: Box) -> str:
    """The label that an edge carries."""
    x, y = box.middle
    place = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}"'
    shape = f'<rect {place} rx="{_n(box.height / 2)}"/>'
    tip = escaped(edge.label or "")
    return f'<g class="carried {edge.line.value}"><title>{tip}</title>{shape}{_text("name", text, x, y + 4.2)}</g>'


def _text(kind: str, text: str, x: float, y: float) -> str:
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}">{escaped(text)}</text>'


def _step(step: Step) -> str:
    return ("C" if len(step) == 3 else "L") + " ".join(_point(point) for point in step)


def _point(point: Point) -> str:
    return f"{_n(point[0])},{_n(point[1])}"


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
