"""Draws a graph as an HTML page, as an SVG element or as Mermaid text. The page loads nothing and runs no scripts."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping
from string import Template

from rxflow.flow._drawing.coordinates import Box, Layout, Point, Route, Step, lay_out
from rxflow.flow._drawing.layering import Link
from rxflow.flow._drawing.node_text import LINE_PX, NodeText, clean_text, fit_label, fit_node
from rxflow.flow._drawing.sketch import Edge, Line, Look, Node, Sketch, sketch_graph
from rxflow.flow._graph import Graph

LIGHT = {
    "back": "#fff",
    "text": "#1a1d23",
    "soft": "#515a68",
    "edge": "#5b6472",
    "label": "#9a4a00",
    "start": "#e3f6e8",
    "start-line": "#1f7a3d",
    "listen": "#e8f0fe",
    "listen-line": "#2f5fb3",
    "route": "#fff1dc",
    "route-line": "#b25a00",
    "join": "#414a59",
    "join-text": "#fff",
}
DARK = {
    "back": "#14171c",
    "text": "#e8ebf0",
    "soft": "#a9b3c1",
    "edge": "#94a0b0",
    "label": "#ffb968",
    "start": "#15331f",
    "start-line": "#5cc97f",
    "listen": "#182a47",
    "listen-line": "#7aa7f2",
    "route": "#3a2812",
    "route-line": "#f0a04b",
    "join": "#c3ccd8",
    "join-text": "#14171c",
}


def _declare(colours: Mapping[str, str]) -> str:
    return f":root {{ {' '.join(f'--{name}: {colour};' for name, colour in colours.items())} }}"


DRAWING_STYLE = f"""\
{_declare(LIGHT)}
@media (prefers-color-scheme: dark) {{ {_declare(DARK)} }}
svg text {{ text-anchor: middle; fill: var(--text); }}
svg .name {{ font: 600 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
svg .doc {{ font-size: 12px; fill: var(--soft); }}
svg .node rect, svg .node polygon {{ stroke-width: 1.6; stroke-linejoin: round; }}
svg .listener rect {{ fill: var(--listen); stroke: var(--listen-line); }}
svg .start rect, svg .start polygon {{ fill: var(--start); stroke: var(--start-line); }}
svg .router polygon {{ fill: var(--route); stroke: var(--route-line); }}
svg .router.start polygon {{ fill: var(--start); }}
svg .waiting rect {{ stroke-dasharray: 6 4; }}
svg .and rect {{ fill: var(--join); stroke: var(--join); }}
svg .or rect {{ fill: var(--back); stroke: var(--join); }}
svg .loose rect {{ fill: var(--back); stroke: var(--label); stroke-dasharray: 2 3; }}
svg .and .name, svg .or .name {{ font-size: 11px; }}
svg .and .name {{ fill: var(--join-text); }}
svg .loose .name, svg .carried .name {{ font: 600 12px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial,
  sans-serif; fill: var(--label); }}
svg .carried rect {{ fill: var(--back); }}
svg .way {{ fill: none; stroke: var(--edge); stroke-width: 1.5; }}
svg .head {{ fill: var(--edge); }}
svg .labelled .way, svg .maybe .way {{ stroke: var(--label); stroke-dasharray: 6 4; }}
svg .maybe .way {{ stroke-dasharray: 1.5 4; }}
svg .labelled .head, svg .maybe .head {{ fill: var(--label); }}
"""
"""The CSS for the elements of :func:`draw_figure`. It defines the colours as CSS variables, such as ``--text``."""


_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>$title</title>
<style>
$style</style>
</head>
<body>
<h1>$title</h1>
$content
</body>
</html>
""")
_MIN_SCALE = 0.7
"""The smallest scale of a drawing in a narrow window. If the drawing is still too wide, it can be scrolled."""


def draw_page(graph: Graph, title: str) -> str:
    """Draw ``graph`` under the heading ``title``. Return the text of an HTML file."""
    content = _draw_graph(graph) if graph.methods else f"<p>{_escape(graph.name)} has no methods to draw.</p>"
    return _PAGE.substitute(title=_escape(title), style=_STYLE, content=content)


def draw_figure(graph: Graph) -> str:
    """Draw ``graph`` as an SVG element without styles, for a page that has ``DRAWING_STYLE``.

    Each method is a ``<g class="node …" data-method="name of the method">``.
    """
    return _draw_svg(graph, sketch_graph(graph), is_scaled=False)


def _draw_graph(graph: Graph) -> str:
    sketch = sketch_graph(graph)
    return f'<div class="drawing">{_draw_svg(graph, sketch)}</div>\n{_draw_legend(sketch)}'


def _draw_svg(graph: Graph, sketch: Sketch, *, is_scaled: bool = True) -> str:
    leaving = Counter(edge.source for edge in sketch.edges)
    arriving = Counter(edge.target for edge in sketch.edges)
    node_texts = [fit_node(node, max(leaving[at], arriving[at])) for at, node in enumerate(sketch.nodes)]
    labels = ["" if edge.label is None else fit_label(edge.label)[0] for edge in sketch.edges]
    layout = lay_out([(node_text.width, node_text.height) for node_text in node_texts], _collect_links(sketch))
    parts = [_draw_edge(edge, route) for edge, route in zip(sketch.edges, layout.routes, strict=True)]
    for edge, label, box in zip(sketch.edges, labels, layout.label_boxes, strict=True):
        if box is not None:
            parts.append(_draw_label(edge, label, box))
    methods = [*graph.methods, *[""] * (len(sketch.nodes) - len(graph.methods))]
    parts += [_draw_node(*drawn) for drawn in zip(sketch.nodes, methods, node_texts, layout.boxes, strict=True)]
    about = _escape(f"The graph of {graph.name}: {', '.join(graph.methods)}")
    drawn = "\n".join(parts)
    return f"{_open_svg(layout, about, is_scaled=is_scaled)}\n{drawn}\n</svg>"


def _collect_links(sketch: Sketch) -> list[Link]:
    return [
        Link(edge.source, edge.target, None if edge.label is None else fit_label(edge.label)[1:])
        for edge in sketch.edges
    ]


def _open_svg(layout: Layout, about: str, *, is_scaled: bool) -> str:
    width, height = round(layout.width), round(layout.height)
    style = f' style="width:clamp({round(width * _MIN_SCALE)}px,100%,{width}px)"' if is_scaled else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{about}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"{style}>'
    )


_LOOK_MEANINGS = {
    Look.START: "start",
    Look.WAITING_START: "start that waits for its condition",
    Look.LISTENER: "listener",
    Look.ROUTER: "router",
    Look.STARTING_ROUTER: "start and router",
    Look.AND: "AND: waits for all of them",
    Look.OR: "OR: one of them is enough",
    Look.LABEL: "label",
}
_LINE_MEANINGS = {
    Line.TRIGGER: "runs after",
    Line.LABEL: "runs on a router’s label",
    Line.MAYBE: "a label that the router may emit",
}


def _draw_legend(sketch: Sketch) -> str:
    """Return an HTML list that explains each shape and each kind of line in ``sketch``."""
    looks = {node.look for node in sketch.nodes}
    lines = {edge.line for edge in sketch.edges}
    items = [
        _draw_legend_item(_sample_node(look), meaning) for look, meaning in _LOOK_MEANINGS.items() if look in looks
    ]
    items += [
        _draw_legend_item(_sample_line(line), meaning) for line, meaning in _LINE_MEANINGS.items() if line in lines
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _draw_legend_item(sample: str, meaning: str) -> str:
    svg = f'<svg width="34" height="20" viewBox="0 0 34 20" aria-hidden="true">{sample}</svg>'
    return f"<li>{svg}{_escape(meaning)}</li>"


def _sample_node(look: Look) -> str:
    return f'<g class="node {look.value}">{_draw_shape(look, Box(2, 3, 30, 14))}</g>'


def _sample_line(line: Line) -> str:
    down = _draw_edge(Edge(0, 0, line), Route((17, 0), (((17, 28),), ((17, 32),))))
    return f'<g transform="translate(1 10) rotate(-90) translate(-17 0)">{down}</g>'


_POINT_PX = 14.0


def _escape(text: str) -> str:
    """Put ``text`` on one line, and escape it for use in an HTML element or attribute."""
    return html.escape(clean_text(text))


def _draw_node(node: Node, method: str, node_text: NodeText, box: Box) -> str:
    """Draw a node: its shape, its text, and a tooltip with the complete text.

    ``method`` is the name of the method that the node shows. It is empty for a join or a label.
    """
    x, y = box.middle
    baseline = y + 4.5 - LINE_PX * len(node_text.doc) / 2
    lines = [_draw_text("name", node_text.name, x, baseline)]
    lines += [_draw_text("doc", line, x, baseline + LINE_PX * number) for number, line in enumerate(node_text.doc, 1)]
    tip = "\n".join(_escape(line) for line in (node.tip or node.text).split("\n"))
    name = f' data-method="{_escape(method)}"' if method else ""
    shape = _draw_shape(node.look, box)
    return f'<g class="node {node.look.value}"{name}><title>{tip}</title>{shape}{"".join(lines)}</g>'


def _draw_shape(look: Look, box: Box) -> str:
    """Draw the outline of a node. Listeners, start methods and routers differ in shape, not only in colour.

    A start method that is a router has the shape of a router.
    """
    if look in (Look.ROUTER, Look.STARTING_ROUTER):
        point = min(_POINT_PX, box.width / 4)
        left, right, middle = box.x, box.x + box.width, box.y + box.height / 2
        corners = [
            *((left, middle), (left + point, box.y), (right - point, box.y)),
            *((right, middle), (right - point, box.y + box.height), (left + point, box.y + box.height)),
        ]
        return f'<polygon points="{" ".join(_format_point(corner) for corner in corners)}"/>'
    return _draw_rectangle(box, {Look.LISTENER: 5.0, Look.AND: 4.0}.get(look, min(box.height / 2, 22.0)))


def _draw_edge(edge: Edge, route: Route) -> str:
    """Draw an edge. Its arrowhead points down, because every edge enters its target from above."""
    x, y = route.end
    # The tip of the arrowhead is thinner than the line, so the line ends 4 px before the tip.
    steps: list[Step] = [*route.steps[:-1], ((x, y - 4),)]
    path = f"M{_format_point(route.start)}" + "".join(_format_step(step) for step in steps)
    head = f"M{_format_point((x, y))}l-4.5,-8h9z"
    return f'<g class="edge {edge.line.value}"><path class="way" d="{path}"/><path class="head" d="{head}"/></g>'


def _draw_label(edge: Edge, text: str, box: Box) -> str:
    x, y = box.middle
    shape = _draw_rectangle(box, box.height / 2)
    tip = _escape(edge.label or "")
    return f'<g class="carried {edge.line.value}"><title>{tip}</title>{shape}{_draw_text("name", text, x, y + 4.2)}</g>'


def _draw_text(kind: str, text: str, x: float, y: float) -> str:
    return f'<text class="{kind}" x="{_format_number(x)}" y="{_format_number(y)}">{_escape(text)}</text>'


def _draw_rectangle(box: Box, radius: float) -> str:
    x, y, width, height, rx = map(_format_number, (box.x, box.y, box.width, box.height, radius))
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{rx}"/>'


def _format_step(step: Step) -> str:
    return ("C" if len(step) == 3 else "L") + " ".join(_format_point(point) for point in step)


def _format_point(point: Point) -> str:
    return f"{_format_number(point[0])},{_format_number(point[1])}"


def _format_number(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


_STYLE = (
    DRAWING_STYLE
    + """\
body { margin: 0 auto; padding: 20px; background: var(--back); color: var(--text);
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { margin: 0 0 12px; font-size: 22px; text-align: center; overflow-wrap: anywhere; }
p { text-align: center; color: var(--soft); }
.drawing { overflow-x: auto; }
.drawing svg { display: block; margin: 0 auto; height: auto; }
.legend { display: flex; flex-wrap: wrap; justify-content: center; gap: 6px 20px; margin: 16px 0 0; padding: 0;
  list-style: none; font-size: 13px; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: 6px; }
"""
)


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
# Matches each character that must be escaped. Mermaid reads texts as Markdown. Without escapes, "1." would begin a
# list, and "_a_" would be in italics. An underscore inside a word is harmless.
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
