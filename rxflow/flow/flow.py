"""``Flow``: a class whose methods form a graph, and its runs."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, cast, get_args, get_origin

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable
from typing_extensions import TypeVar

from rxflow._options import check_options
from rxflow.flow.conditions import and_, or_
from rxflow.flow.decorators import listen, router, start
from rxflow.flow.flow_run import Record, merge_along
from rxflow.flow.graph import Graph, graph_of
from rxflow.flow.state import FlowState, State, create_state, merge_inputs, read_id
from rxflow.loops import Once
from rxflow.streaming.kickoff import run_async, run_blocking
from rxflow.streaming.observable import EventStream, chunks
from rxflow.streaming.output import FlowStreamingOutput
from rxflow.streaming.scope import Scope
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, FlowFinished
from rxflow.types.usage import UsageMetrics

if TYPE_CHECKING:
    from rxflow.streaming.frames import AsyncStreamSession, StreamSession

__all__ = ["Flow", "FlowState", "and_", "listen", "or_", "router", "start"]

S = TypeVar("S", default=dict[str, Any])

Inputs = Mapping[str, Any]


class Flow(Generic[S]):
    """Methods under ``@start``, ``@listen`` and ``@router``, run along their graph.

    ``Flow[Model]`` has a pydantic model as its state, plain ``Flow`` a dict. ``stream``, ``name``, ``initial_state``
    and ``max_method_calls`` are class attributes, instance attributes or arguments of the constructor.

    Raises:
        ValueError: the graph or the state cannot work. A label that nobody emits is a warning, if the method that
            waits for it can do without.
        TypeError: ``initial_state`` is neither a model, a dict nor an instance.
    """

    stream: bool = False
    name: str | None = None
    initial_state: Any = None
    max_method_calls: int = 100

    _graph: ClassVar[Graph] = Graph("Flow", {})
    _state_or_none: State | None
    _record: Record
    _running: Once
    _is_checked: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._graph = graph_of(cls)
        taken = sorted(name for name in cls._graph.methods if hasattr(Flow, name))
        if taken:
            raise ValueError(f"{cls.__name__}.{taken[0]} would hide Flow.{taken[0]}; give the method another name")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Not in __init__: a subclass may have one of its own, and forget ours.
        self = super().__new__(cls)
        self._state_or_none = None
        self._record = Record()
        self._running = Once()
        self._is_checked = False
        return self

    def __init__(
        self,
        *,
        stream: bool | None = None,
        name: str | None = None,
        initial_state: Any = None,
        max_method_calls: int | None = None,
        **options: Any,
    ) -> None:
        check_options("Flow", options, ("stream", "name", "initial_state", "max_method_calls"))
        given = {
            "stream": stream,
            "name": name,
            "initial_state": initial_state,
            "max_method_calls": max_method_calls,
        }
        for field, value in given.items():
            if value is not None:
                setattr(self, field, value)
        if self.max_method_calls < 1:
            raise ValueError(f"max_method_calls must be at least 1: {self.max_method_calls!r}")
        self._check_graph()
        self._state = self._create_state()

    @property
    def state(self) -> S:
        """The state: of the run that goes on, or of the last one."""
        return cast(S, self._state)

    @property
    def _state(self) -> State:
        if self._state_or_none is None:
            self._state_or_none = self._create_state()
        return self._state_or_none

    @_state.setter
    def _state(self, state: State) -> None:
        self._state_or_none = state

    @property
    def flow_id(self) -> str:
        """The state's id."""
        return read_id(self._state)

    @property
    def method_outputs(self) -> list[Any]:
        """What the methods of the last run returned, in the order of completion, router labels included."""
        return list(self._record.outputs)

    @property
    def usage_metrics(self) -> UsageMetrics:
        """The tokens of all LLM calls of the last run, so far."""
        return self._record.ledger.total

    def kickoff(self, inputs: Inputs | None = None) -> Any | FlowStreamingOutput:
        """Run the flow: the result of the last method to complete, or with ``stream`` a :class:`FlowStreamingOutput`.

        The stream runs nothing before its first pull. Works inside a running event loop too, as in a notebook.

        Raises:
            ValueError: ``inputs`` do not fit the state, or the flow has no method to run.
            RuntimeError: this instance is running already.
        """
        if self.stream:
            return self.stream_chunks(inputs)
        return run_blocking(self._kickoff_events(inputs), FlowFinished).result

    async def kickoff_async(self, inputs: Inputs | None = None) -> Any | FlowStreamingOutput:
        """:meth:`kickoff` for async code."""
        if self.stream:
            return self.stream_chunks(inputs)
        return (await run_async(self._kickoff_events(inputs), FlowFinished)).result

    akickoff = kickoff_async

    def events(self, inputs: Inputs | None = None) -> EventStream[Event]:
        """A cold Observable of everything that happens: each subscription is a run of its own, with its own state.

        Raises:
            ValueError: ``inputs`` do not fit the state, or the flow has no method to run.
        """
        self._require_methods()
        merge_inputs(self._create_state(), inputs or {})
        return EventStream(lambda scope: self._twin()._run(scope, inputs or {}))

    def observe(self, inputs: Inputs | None = None) -> EventStream[StreamChunk]:
        """A cold Observable of the chunks of all methods, merged along the graph. ::

        research   -a-b-c|
        write             -d-e|
        result     -a-b-c--d-e|
        """
        return self.events(inputs).select(chunks)

    def stream_chunks(self, inputs: Inputs | None = None) -> FlowStreamingOutput:
        """Run this instance as chunks, whatever ``stream`` says; the first pull starts it.

        Raises:
            ValueError: ``inputs`` do not fit the state.
            RuntimeError: this instance is running already.
        """
        return FlowStreamingOutput(source=self._kickoff_events(inputs))

    def stream_events(self, inputs: Inputs | None = None) -> StreamSession:
        """Run this instance as frames, for ``for``; the first pull starts it."""
        from rxflow.streaming.frames import StreamSession  # most programs read chunks, not frames

        return StreamSession(self._kickoff_events(inputs), FlowFinished)

    def astream(self, inputs: Inputs | None = None) -> AsyncStreamSession:
        """The same for ``async for``."""
        from rxflow.streaming.frames import AsyncStreamSession

        return AsyncStreamSession(self._kickoff_events(inputs), FlowFinished)

    def plot(self, filename: str = "flow", show: bool = True) -> Path:
        """Draw the graph into ``filename``.html, relative to where the caller stands, and return its path.

        One page that needs nothing from the network. ``show`` opens it in a browser where there is one.
        """
        import webbrowser  # most programs never draw

        from rxflow.flow.drawing import draw_page

        path = Path(filename)
        if path.suffix != ".html":
            path = path.with_name(f"{path.name}.html")
        path = path.resolve()
        path.write_text(draw_page(self._graph, self.name or type(self).__name__), encoding="utf-8")
        if show and _has_browser():
            webbrowser.open(path.as_uri())
        return path

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        from rxflow.flow.drawing import draw_mermaid

        return draw_mermaid(self._graph)

    def _kickoff_events(self, inputs: Inputs | None) -> EventStream[Event]:
        if self._running.is_taken:
            raise self._describe_busy()
        self._require_methods()
        merge_inputs(self._state, inputs or {})  # a mistake is the caller's, here and now; nothing has run
        return EventStream(lambda scope: self._run(scope, inputs or {}))

    def _check_graph(self) -> None:
        if not self._is_checked:
            self._graph.check()
            self._is_checked = True

    def _require_methods(self) -> None:
        """Raise if a run would run nothing. Such a flow can be made, for the sake of its state."""
        self._check_graph()  # a subclass may have forgotten our __init__
        if not self._graph.methods:
            raise ValueError(
                f"{type(self).__name__} has nothing to run: none of its methods is decorated with @start(), @listen(…) "
                "or @router(…)"
            )

    def _run(self, scope: Scope, inputs: Inputs) -> Observable[Event]:
        """A run on this instance."""

        def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
            if not self._running.take():
                raise self._describe_busy()
            idle_again = Disposable(self._running.give_back)
            try:
                self._state = merge_inputs(self._state, inputs)
            except BaseException:
                idle_again.dispose()
                raise
            name = self.name or type(self).__name__
            inner = scope.within(name, flow_name=name, flow_id=self.flow_id, flow_method="").metered()
            self._record = Record(ledger=inner.ledger)
            events = merge_along(
                self._graph,
                lambda method: getattr(self, method),
                inner,
                inputs=inputs,
                max_method_calls=self.max_method_calls,
                record=self._record,
            )

            def on_error(error: Exception) -> None:
                idle_again.dispose()
                observer.on_error(error)

            def on_completed() -> None:
                idle_again.dispose()
                observer.on_completed()

            return CompositeDisposable(events.subscribe(observer.on_next, on_error, on_completed), idle_again)

        return Observable(subscribe)

    def _describe_busy(self) -> RuntimeError:
        return RuntimeError(
            f"this {type(self).__name__} is running already: wait for that run or close it, make another instance, or "
            "use observe(), which runs a copy for each subscription"
        )

    def _twin(self) -> Self:
        """A copy with a state of its own, for a run of its own."""
        twin = copy.copy(self)
        twin._state = twin._create_state()
        twin._record = Record()
        twin._running = Once()
        return twin

    def _create_state(self) -> State:
        given = self.initial_state
        return create_state(_find_state_type(type(self)) if given is None else given, type(self).__name__)


def _find_state_type(cls: type) -> Any:
    """The ``T`` of ``Flow[T]``; None for a plain Flow."""
    for base in cls.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            origin = get_origin(generic)
            if isinstance(origin, type) and issubclass(origin, Flow):
                (argument,) = get_args(generic)
                if isinstance(argument, TypeVar):
                    continue
                return dict if get_origin(argument) is dict else argument
    return None


def _has_browser() -> bool:
    """A browser with a window: one that runs in the terminal would take it over."""
    if sys.platform.startswith(("win", "darwin")):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
