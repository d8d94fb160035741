"""Filling ``{placeholders}`` from inputs: each once, so that a brace inside a value is never expanded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")


def fill(text: str, inputs: Mapping[str, Any] | None, where: str) -> str:
    """``text`` with its placeholders filled; with no inputs at all it stays literal.

    Raises:
        ValueError: a placeholder has no input; says which, and ``where``.
    """
    if inputs is None:
        return text

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in inputs:
            raise ValueError(
                f"{where} needs the input {name!r}, which is missing; inputs has {sorted(inputs) or 'nothing'}"
            )
        return str(inputs[name])

    return PLACEHOLDER.sub(value, text)
