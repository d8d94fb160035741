"""The ``regex`` package, which knows Unicode and partial matches: imported when the first operator needs it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


@cache
def regex() -> Any:
    """The module."""
    return import_module("regex")
