"""Draws a flow's graph as an HTML page with an SVG, or as Mermaid text. Both start from the same sketch."""

from rxflow.flow._drawing.markup import DRAWING_STYLE, draw_figure, draw_mermaid, draw_page

__all__ = ["DRAWING_STYLE", "draw_figure", "draw_mermaid", "draw_page"]
