"""Runs that outlive their readers. A store keeps the log of each run, and any number of readers can read the log.

If the store is in SQLite or Redis, the readers may be in other processes.
"""

from typing import TYPE_CHECKING

from rxflow import _lazy
from rxflow._streaming import NotResumable
from rxflow.operators._core.log_reader import RunReader
from rxflow.operators._core.run_log import (
    LIVE,
    End,
    EventsDroppedError,
    EventTooLargeError,
    FallenBehindError,
    Head,
    Log,
    Note,
    NotTheWriterError,
    Page,
    RunCancelled,
    RunExistsError,
    RunLost,
    RunSpec,
    Status,
    Store,
    StoreError,
    Writer,
)
from rxflow.runs.memory import MemoryLog
from rxflow.runs.options import WhenUnread
from rxflow.runs.run import Run
from rxflow.runs.runs import Runs

if TYPE_CHECKING:
    from rxflow.runs.redis import RedisLog
    from rxflow.runs.sqlite import SQLiteLog

__getattr__, __dir__ = _lazy.create_lookup(
    __name__, {"SQLiteLog": "rxflow.runs.sqlite", "RedisLog": "rxflow.runs.redis"}
)

__all__ = [
    "LIVE",
    "End",
    "EventTooLargeError",
    "EventsDroppedError",
    "FallenBehindError",
    "Head",
    "Log",
    "MemoryLog",
    "NotResumable",
    "NotTheWriterError",
    "Note",
    "Page",
    "RedisLog",
    "Run",
    "RunCancelled",
    "RunExistsError",
    "RunLost",
    "RunReader",
    "RunSpec",
    "Runs",
    "SQLiteLog",
    "Status",
    "Store",
    "StoreError",
    "WhenUnread",
    "Writer",
]
