"""Keys and passwords, masked in what is written to files. A net below: rxflow writes none of its own."""

from __future__ import annotations

import re

_SHAPES = [
    rb"sk-[\w-]{16,}",  # OpenAI, Anthropic, OpenRouter …
    rb"[prs]k_(?:live|test)_\w{16,}",
    rb"(?:gsk|hf|r8|gh[pousr]|github_pat)_\w{20,}",
    rb"(?:xai|glpat|xox[a-z])-[\w-]{16,}",
    rb"AIza[\w-]{30,}",
    rb"A[KS]IA[A-Z0-9]{16}",
    rb"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+",  # signed tokens
]
_KEY = re.compile(rb"(?<!\w)(?:%s)" % b"|".join(_SHAPES))
_BEARER = re.compile(rb"(?i)(bearer )[\w.~+/=-]{8,}")
_NAMES = rb"[\w-]*api[_-]?key|[\w-]*authorization|[\w-]*password|[\w-]*secret|[\w-]*access[_-]?token"
_NAMED = re.compile(rb'(?i)(\\*"(?:%s)\\*" *: *\\*")[^"\\]+' % _NAMES)  # also in JSON that is a string in JSON
_MASK = b"***"

SHORTEST = 16
"""Characters: text that is shorter holds no key."""


def mask(text: bytes) -> bytes:
    """JSON text with what looks like a key, or is named like one, replaced by ``***``. It stays JSON."""
    text = _KEY.sub(_MASK, text)
    text = _BEARER.sub(rb"\g<1>" + _MASK, text)
    return _NAMED.sub(rb"\g<1>" + _MASK, text)
