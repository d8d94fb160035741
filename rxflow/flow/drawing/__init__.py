"""A flow's graph as a picture: an HTML page with an SVG, or Mermaid text. Both draw the same sketch."""

from rxflow.flow.drawing.mermaid import draw_mermaid
from rxflow.flow.drawing.svg import draw_page

__all__ = ["draw_mermaid", "draw_page"]
