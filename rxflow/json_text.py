"""Text and JSON that are not of our making: where JSON stands in an answer, and what of a text can be sent on."""

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


def encodable(text: str) -> str:
    """``text`` with the replacement character for halves of characters, which nothing but Python's strings takes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # By way of UTF-16, where two halves that belong together are one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def in_words(value: object) -> str:
    """``str(value)``, or who it is that has no words."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever an object of another's class raises
        return f"<{type(value).__name__} that cannot be shown: its __str__ raised {type(error).__name__}>"
