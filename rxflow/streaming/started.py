"""Who is told of each run as it starts. A module of its own, so that one can ask for it without importing runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rxflow.streaming.handle import RunHandle

on_start: Callable[[RunHandle], None] | None = None
"""The leak check of the pytest plugin sets it."""
