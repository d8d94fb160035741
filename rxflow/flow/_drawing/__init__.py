"""Draws a flow's graph as an HTML page with an SVG, or as Mermaid text. Both are made from the same ``Sketch``."""
