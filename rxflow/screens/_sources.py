"""The objects that a screen can show: a flow, a crew, or any Observable of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

from reactivex import Observable

from rxflow.flow import Flow
from rxflow.flow._graph import read_graph
from rxflow.types import Event


@runtime_checkable
class HasEvents(Protocol):
    """A flow, a crew, or any other object whose ``events()`` returns the events of a run."""

    def events(self, inputs: Mapping[str, Any] | None = None) -> Observable[Event]:
        """Return a cold Observable of the run's events."""
        ...


def read_events(source: HasEvents | Observable[Event], inputs: Mapping[str, Any] | None) -> Observable[Event]:
    """Return ``source`` itself if it is an Observable; otherwise return the events of a run of ``source``.

    Raises:
        TypeError: ``source`` is not an Observable and has no ``events()``. Also raised if ``source`` is an Observable
            and ``inputs`` are given.
    """
    if isinstance(source, Observable):
        if inputs is not None:
            raise TypeError("an Observable takes no inputs: give them to the events(…) that it comes from")
        return source
    if isinstance(source, HasEvents):  # pyright: ignore[reportUnnecessaryIsInstance]
        return source.events(inputs)
    raise TypeError(f"a flow, a crew or an Observable of events can be shown; got {source!r}")


def read_methods(source: object) -> tuple[str, ...]:
    """Return the names of the methods if ``source`` is a flow; otherwise an empty tuple."""
    if not isinstance(source, Flow):
        return ()
    return tuple(read_graph(type(cast("Flow[Any]", source))).methods)
