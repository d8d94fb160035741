"""Functions that read the arguments of :class:`Runs` and its methods, and the interfaces that a cluster implements."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from importlib import import_module
from typing import Any, Literal, Protocol, TypeAlias, cast

from rxflow._options import Seconds, read_seconds
from rxflow._streaming import EventStream
from rxflow._text import encodable
from rxflow.operators._core.run_log import Store
from rxflow.runs.memory import MemoryLog
from rxflow.types import Event

_STORES = 'use "sqlite:///runs.db", "redis://host:6379/0", or None for memory'

WhenUnread: TypeAlias = Literal["detach", "cancel"] | Seconds


class Runnable(Protocol):
    """A flow or a crew."""

    def events(self, inputs: Mapping[str, Any] | None = None) -> EventStream[Event]:
        """Return a cold Observable of the events of a run."""
        ...


class Carrier(Protocol):
    """Carries out the runs of one store in other processes."""

    def begin(self, verb: Literal["start", "restart", "resume"], run_id: str, **arguments: Any) -> Future[str]:
        """Make a worker process start, restart or resume a run.

        ``verb`` is the name of a method of ``Runs`` or ``Run``, and ``arguments`` are for that method. The returned
        future resolves to the run's id when the run has begun.
        """
        ...

    def close(self) -> None:
        """Cancel the runs that this carrier has begun, and wait for a limited time until they have ended."""
        ...


class Cluster(Protocol):
    """A cluster of processes that carry out runs, such as ``rxflow.cluster.Ray``."""

    def check_store(self, name: object) -> None:
        """Raise ValueError if other machines cannot open the store that ``name`` describes."""
        ...

    def open(self, store: Store, options: Mapping[str, Any]) -> Carrier:
        """Return a carrier for the runs of ``store``. The carrier's workers open the store with ``Runs(**options)``."""
        ...


def open_store(name: str | None, keep_s: float | None, max_events: int | None, lease_s: float) -> Store:
    """Open the store that ``name`` describes, such as "sqlite:///runs.db". None means a store in memory.

    Raises:
        TypeError: ``name`` is not a string.
        ValueError: ``name`` does not describe a store.
        StoreError: the store cannot be opened.
        ImportError: the store is in Redis, and redis-py is not installed.
    """
    if name is None:
        return MemoryLog(keep_s=keep_s, max_events=max_events)
    given = cast(object, name)
    if isinstance(given, os.PathLike):
        raise TypeError(f'store is a path, not a URL: {name!r}; write "sqlite:///{name}"')
    if not isinstance(given, str):
        raise TypeError(f"store is neither a string nor a Store: {name!r}; {_STORES}")
    if name.startswith("sqlite:///") and len(name) > len("sqlite:///"):
        from rxflow.runs.sqlite import SQLiteLog  # imported here, because most programs do not need it

        return SQLiteLog(name.removeprefix("sqlite:///"), lease_s=lease_s, keep_s=keep_s, max_events=max_events)
    if name.startswith(("redis://", "rediss://", "unix://")):
        from rxflow.runs.redis import RedisLog  # imported here, because redis-py is optional

        return RedisLog(name, lease_s=lease_s, keep_s=keep_s, max_events=max_events)
    raise ValueError(f"no store {name!r}; {_STORES}")


def read_reason(reason: str) -> str:
    """Return ``reason`` as text that can be encoded. Raises TypeError if ``reason`` is not a string."""
    if not isinstance(cast(object, reason), str):
        raise TypeError(f"reason is not a string: {reason!r}")
    return encodable(reason)


def check_answers(answers: Mapping[str, Any] | None) -> None:
    """Raise TypeError if ``answers`` is neither a mapping nor None."""
    if not isinstance(cast(object, answers), Mapping | None):
        raise TypeError(f"answers is not a mapping of request ids to answers: {answers!r}")


def find_runnable(target: Runnable | str) -> Runnable:
    """Return a flow or a crew: ``target`` itself, or what is at the import path ``target``.

    Raises:
        LookupError: there is nothing at the import path, or importing its module raised an ImportError, AttributeError
            or ValueError. Other errors of the module are raised as they are.
        TypeError: ``target``, or the object at the import path, is not a flow or a crew. Also raised if the object at
            the path cannot be called without arguments.
    """
    if isinstance(target, str):
        return _import_runnable(target)
    if isinstance(target, type):
        raise TypeError(f"target is a class, not a flow or a crew: {target!r}; write {target.__name__}()")
    if not hasattr(target, "events"):
        raise TypeError(f"target is not a flow, a crew or an import path: {target!r}")
    return target


def _import_runnable(path: str) -> Runnable:
    """Return the flow or crew at an import path.

    If there is a class or a function at the path, call it without arguments, and use the result. For an object of a
    ``@CrewBase`` class, return what its method ``crew`` returns.
    """
    module, _, names = path.partition(":")
    try:
        found: Any = import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LookupError(f"no flow or crew at {path!r}, which should be 'package.module:Name': {error}") from error
    is_class: bool = isinstance(found, type)  # a variable, so that isinstance() does not narrow the type of `found`
    if is_class or (callable(found) and not hasattr(found, "events")):
        try:
            found = found()
        except TypeError as error:
            raise TypeError(f"{path!r} cannot be created: {error}") from error
    crew: Any = getattr(found, "crew", None)
    if not hasattr(found, "events") and callable(crew):  # an object of a @CrewBase class
        found = crew()
    if not hasattr(found, "events"):
        raise TypeError(f"{path!r} is not a flow or a crew: {found!r}")
    return cast(Runnable, found)


def read_grace(when_unread: WhenUnread) -> float | None:
    """Return for how many seconds a run may have no reader before it is cancelled; None if it is never cancelled.

    For "cancel", return 0: the run is cancelled as soon as its last reader leaves.

    Raises:
        ValueError: ``when_unread`` is a text other than "detach" and "cancel", or a time that is not above 0.
        TypeError: ``when_unread`` is neither a text nor a time.
    """
    if when_unread == "detach":
        return None
    if when_unread == "cancel":
        return 0.0
    given: object = when_unread
    if isinstance(given, str):
        raise ValueError(f'when_unread must be "detach", "cancel" or a time in seconds; got {when_unread!r}')
    return read_seconds("when_unread", when_unread)
