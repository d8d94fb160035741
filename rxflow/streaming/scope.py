"""Where work stands: the run it belongs to, the labels it gives its chunks, and the context it runs in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import Any

from rxflow.types.chunks import Origin


def _count() -> Iterator[int]:
    return itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One subscription: the loop on whose thread all its signals are emitted, and its count of chunks."""

    loop: asyncio.AbstractEventLoop
    seq: Iterator[int] = field(default_factory=_count)
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """A place in a run. Handed down explicitly: a context variable would leak from one leaf into the next,

    because Rx subscribes the successor from inside the predecessor's completion.
    """

    run: Run
    origin: Origin = field(default_factory=Origin)
    context: Context = field(default_factory=copy_context)

    def within(self, *names: str, **labels: Any) -> Scope:
        """A scope inside this one: ``names`` extend the namespace, ``labels`` replace fields of the origin."""
        namespace = (*self.origin.namespace, *names)
        return Scope(self.run, replace(self.origin, namespace=namespace, **labels), self.context)
