"""A flow's graph, drawn: as a self-contained HTML page, and as Mermaid text. One sketch feeds both."""

from rxflow.flow.drawing.html_page import page
from rxflow.flow.drawing.mermaid_text import mermaid

__all__ = ["mermaid", "page"]
