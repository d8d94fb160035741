"""An extension of griffe: what our docstrings have of reStructuredText, as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc|data):`([^`]+)`")
LITERAL = re.compile(r"^(?P<before>.*?) ?::\n\n(?P<block>(?:[ ]{4}.*\n|[ ]*\n)*[ ]{4}.*(?:\n|$))", re.MULTILINE)


class ReadDocstrings(griffe.Extension):
    """Turns roles into code, and literal blocks into fenced ones."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Docstring text as Markdown: a literal block is Python behind "Example", and plain text elsewhere."""
    return LITERAL.sub(_fence, ROLE.sub(lambda role: f"`{role[1].lstrip('~')}`", text + "\n")).rstrip("\n")


def _fence(match: re.Match[str]) -> str:
    before = match["before"].strip()
    language = "python" if before.lower().startswith("example") else "text"
    title = f"**{before}**" if language == "python" else before + ("" if before.endswith((".", ":")) else ":")
    block = "\n".join(line[4:] for line in match["block"].rstrip().splitlines())
    return f"{title if before else ''}\n\n```{language}\n{block}\n```\n"
