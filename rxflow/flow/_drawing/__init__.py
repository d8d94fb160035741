"""Draws a flow's graph as an HTML page with an SVG, or as Mermaid text. Both start from the same sketch."""
