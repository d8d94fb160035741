"""JSON that a model writes: where it stands in a text."""

from __future__ import annotations

import re

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


def json_in(text: str) -> str:
    """The JSON object in an answer: bare, in a fence, or with words around it. The text itself where there is none."""
    fenced = _FENCED.search(text)
    candidate = fenced.group(1) if fenced else text
    first, last = candidate.find("{"), candidate.rfind("}")
    if 0 <= first < last:
        candidate = candidate[first : last + 1]
    return candidate.strip()
