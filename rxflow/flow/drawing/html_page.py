"""The page: heading, drawing and legend in one file that loads nothing and runs nothing."""

from __future__ import annotations

from collections import Counter
from string import Template

from rxflow.flow.drawing.faces import face_of, label_of
from rxflow.flow.drawing.layout import Layout, lay_out
from rxflow.flow.drawing.legend import legend_html
from rxflow.flow.drawing.markup import edge_svg, escaped, label_svg, node_svg
from rxflow.flow.drawing.ranks import Link
from rxflow.flow.drawing.sketch import Sketch, sketch_of
from rxflow.flow.drawing.style import STYLE
from rxflow.flow.graph import Graph

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
_READABLE = 0.7
"""No screen shrinks a drawing further than this; what is wider scrolls."""


def page(graph: Graph, title: str) -> str:
    """``graph`` drawn, under the heading ``title``, as the text of an HTML file."""
    content = _drawing(graph) if graph.methods else f"<p>{escaped(graph.name)} has no methods to draw.</p>"
    return _PAGE.substitute(title=escaped(title), style=STYLE, content=content)


def _drawing(graph: Graph) -> str:
    sketch = sketch_of(graph)
    leaving = Counter(edge.source for edge in sketch.edges)
    arriving = Counter(edge.target for edge in sketch.edges)
    faces = [face_of(node, max(leaving[at], arriving[at])) for at, node in enumerate(sketch.nodes)]
    labels = ["" if edge.label is None else label_of(edge.label)[0] for edge in sketch.edges]
    layout = lay_out([(face.width, face.height) for face in faces], _links(sketch))
    parts = [edge_svg(edge, route) for edge, route in zip(sketch.edges, layout.routes, strict=True)]
    for edge, label, box in zip(sketch.edges, labels, layout.label_boxes, strict=True):
        if box is not None:
            parts.append(label_svg(edge, label, box))
    parts += [node_svg(*drawn) for drawn in zip(sketch.nodes, faces, layout.boxes, strict=True)]
    about = escaped(f"The graph of {graph.name}: {', '.join(graph.methods)}")
    drawn = "\n".join(parts)
    return f'<div class="drawing">{_opening(layout, about)}\n{drawn}\n</svg></div>\n{legend_html(sketch)}'


def _links(sketch: Sketch) -> list[Link]:
    return [
        Link(edge.source, edge.target, None if edge.label is None else label_of(edge.label)[1:])
        for edge in sketch.edges
    ]


def _opening(layout: Layout, about: str) -> str:
    width, height = round(layout.width), round(layout.height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{about}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" style="width:clamp({round(width * _READABLE)}px,100%,{width}px)">'
    )
