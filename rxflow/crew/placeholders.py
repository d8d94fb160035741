"""Filling ``{placeholders}`` from inputs: each once, so that a brace inside a value is never expanded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")


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

    return _PLACEHOLDER.sub(value, text)


def fill_path(path: str, inputs: Mapping[str, Any] | None, where: str) -> str:
    """The same for a file's path; a value may not lead out of the folder that the path names.

    Inputs often come from strangers, and the file is written with this program's rights.
    """
    filled = fill(path, inputs, where)
    for name in _PLACEHOLDER.findall(path) if inputs is not None else ():
        value = str(inputs[name]) if inputs is not None else ""
        if PurePath(value).is_absolute() or ".." in PurePath(value).parts or "\0" in value:
            raise ValueError(f"{where}: the input {name!r} would lead out of its folder: {value!r}")
    # Harmless values may add up to harm: two dots, or an empty first folder.
    if (PurePath(filled).is_absolute() and not PurePath(path).is_absolute()) or _climbs(filled) > _climbs(path):
        raise ValueError(f"{where}: the inputs would lead out of its folder: {filled!r}")
    return filled


def _climbs(path: str) -> int:
    return PurePath(path).parts.count("..")
