"""``Flow``: a class whose methods form a graph."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, cast, get_args, get_origin

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from typing_extensions import TypeVar

from rxflow._copies import copy_values
from rxflow._loops import Once
from rxflow._options import check_options
from rxflow._streaming import (
    AsyncStreamSession,
    Cleanup,
    Emitter,
    EventStream,
    FlowStreamingOutput,
    NotResumable,
    RunPart,
    Scope,
    StreamSession,
    Who,
    chunks,
    connect,
    log_events,
    run_async,
    run_blocking,
)
from rxflow._text import display_html, draw_card, draw_frame, has_browser
from rxflow.flow._flow_run import Record, merge_along
from rxflow.flow._graph import Graph, Method, and_, listen, or_, read_graph, router, start
from rxflow.flow._people import AsksPeople, ask_for_feedback
from rxflow.flow._state import (
    FlowState,
    State,
    create_state,
    give_new_id,
    has_id,
    merge_inputs,
    read_id,
    replace_state,
    resume_state,
    show_state,
)
from rxflow.flow.persistence import RULE_ATTRIBUTE, FlowPersistence, StateKeeper
from rxflow.types import Event, FlowFinished, StateChanged, StreamChunk, UsageMetrics

__all__ = ["Flow", "FlowState", "and_", "listen", "or_", "router", "start"]

S = TypeVar("S", default=dict[str, Any])

Inputs = Mapping[str, Any]

logger = logging.getLogger("rxflow")


class Flow(AsksPeople, Generic[S]):
    """Runs methods with ``@start``, ``@listen`` and ``@router`` along their graph.

    By default, the state of ``Flow[Model]`` is a pydantic model, and the state of a plain ``Flow`` is a dict. The
    arguments of the constructor can also be set as class attributes or instance attributes. ``persistence`` is a store
    that replaces the stores of ``@persist``. ``verbose=True`` logs progress to the ``rxflow`` logger, as a crew does.

    Raises:
        ValueError: an option is unknown, not supported or wrong, the graph cannot run, or the state cannot be created.
        TypeError: ``initial_state`` is not a dict, a pydantic model class, or an instance of such a class. Or
            ``persistence`` is not a store.
    """

    stream: bool = False
    name: str | None = None
    initial_state: Any = None
    persistence: FlowPersistence | None = None
    max_method_calls: int = 100
    verbose: bool = False

    _graph: ClassVar[Graph] = Graph("Flow", {})
    _record: Record
    _running: Once
    _is_checked: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._graph = read_graph(cls)
        taken = sorted(name for name in cls._graph.methods if hasattr(Flow, name) and not hasattr(AsksPeople, name))
        if taken:
            raise ValueError(f"{cls.__name__}.{taken[0]} would hide Flow.{taken[0]}; give the method another name")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # The attributes are set here, because a subclass may have an __init__() that does not call Flow.__init__().
        self = super().__new__(cls)
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
        persistence: FlowPersistence | None = None,
        input_provider: Who | None = None,
        max_method_calls: int | None = None,
        verbose: bool | None = None,
        **options: Any,
    ) -> None:
        own = ("stream", "name", "initial_state", "persistence", "input_provider", "max_method_calls", "verbose")
        given = check_options("Flow", options, own) | {
            "stream": stream,
            "name": name,
            "initial_state": initial_state,
            "persistence": persistence,
            "input_provider": input_provider,
            "max_method_calls": max_method_calls,
            "verbose": verbose,
        }
        for field, value in given.items():
            if value is not None:
                setattr(self, field, value)
        if self.max_method_calls < 1:
            raise ValueError(f"max_method_calls must be at least 1: {self.max_method_calls!r}")
        if not isinstance(self.persistence, FlowPersistence | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"persistence must be a store, a FlowPersistence: {self.persistence!r}")
        self._check_graph()
        self._state = self._create_state()

    @property
    def state(self) -> S:
        """The state of the current or last run. Before the first run, it is the initial state."""
        return cast(S, self._state)

    @cached_property
    def _state(self) -> State:
        return self._create_state()

    def _read_state(self) -> State:
        return self._state

    @property
    def flow_id(self) -> str:
        """The state's id."""
        return read_id(self._state)

    @property
    def method_outputs(self) -> list[Any]:
        """The results of methods in the current or last run, in order of completion. A router's result is its label.

        With ``@human_feedback``, the result is a HumanFeedbackResult; with its ``emit``, the value that was returned.
        """
        return list(self._record.outputs)

    @property
    def usage_metrics(self) -> UsageMetrics:
        """The tokens of all LLM calls in the current run so far, or in the last run."""
        return self._record.ledger.total

    def kickoff(
        self, inputs: Inputs | None = None, *, restore_from_state_id: str | None = None
    ) -> Any | FlowStreamingOutput:
        """Run the flow and return the result of the last method to complete.

        If ``stream`` is True, return a :class:`FlowStreamingOutput` instead. Its first iteration starts the run. This
        method also works inside a running event loop, as in a notebook.

        If the flow has a store, ``inputs["id"]`` continues with the state that was saved under this id. To begin with a
        copy of a saved state, pass the id of that state as ``restore_from_state_id``. The copy gets the id in
        ``inputs``; without one, it gets a new id, which is a str. A state whose id is an int needs one in ``inputs``.

        Raises:
            ValueError: ``inputs`` do not fit the state, or the flow has no method to run. Also raised if
                ``restore_from_state_id`` is given, and the flow does not have exactly one store.
            TypeError: ``inputs`` is not a mapping.
            RuntimeError: this instance is already running.
            PersistenceError: a state could not be saved or restored.
        """
        if self.stream:
            return self.stream_chunks(inputs, restore_from_state_id=restore_from_state_id)
        return run_blocking(self._kickoff_events(inputs, restore_from_state_id), FlowFinished).result

    async def kickoff_async(
        self, inputs: Inputs | None = None, *, restore_from_state_id: str | None = None
    ) -> Any | FlowStreamingOutput:
        """Do the same as :meth:`kickoff` in async code."""
        if self.stream:
            return self.stream_chunks(inputs, restore_from_state_id=restore_from_state_id)
        return (await run_async(self._kickoff_events(inputs, restore_from_state_id), FlowFinished)).result

    akickoff = kickoff_async

    def events(self, inputs: Inputs | None = None, *, restore_from_state_id: str | None = None) -> EventStream[Event]:
        """Return a cold Observable of all events. Each subscription is a new run with its own state.

        Raises:
            ValueError: ``inputs`` do not fit the state, or the flow has no method to run. Also raised if
                ``restore_from_state_id`` is given, and the flow does not have exactly one store.
            TypeError: ``inputs`` is not a mapping.
        """
        self._require_methods()
        self._require_store(restore_from_state_id)
        merge_inputs(self._create_state(), inputs or {})
        given = copy_values(inputs or {})
        return EventStream(lambda scope: self._twin()._run(scope, copy_values(given), restore_from_state_id))

    def observe(
        self, inputs: Inputs | None = None, *, restore_from_state_id: str | None = None
    ) -> EventStream[StreamChunk]:
        """Return a cold Observable of the chunks of all methods, merged along the graph.

        Each subscription is a new run with its own state. ::

            research   -a-b-c|
            write             -d-e|
            result     -a-b-c--d-e|
        """
        return self.events(inputs, restore_from_state_id=restore_from_state_id).select(chunks)

    def stream_chunks(
        self, inputs: Inputs | None = None, *, restore_from_state_id: str | None = None
    ) -> FlowStreamingOutput:
        """Return the chunks of a run of this instance, even if ``stream`` is False. The first iteration starts the run.

        Raises:
            ValueError: ``inputs`` do not fit the state, or the flow has no method to run. Also raised if
                ``restore_from_state_id`` is given, and the flow does not have exactly one store.
            TypeError: ``inputs`` is not a mapping.
            RuntimeError: this instance is already running.
        """
        return FlowStreamingOutput(source=self._kickoff_events(inputs, restore_from_state_id))

    def stream_events(self, inputs: Inputs | None = None, *, restore_from_state_id: str | None = None) -> StreamSession:
        """Return the frames of a run of this instance, for a ``for`` loop. The first iteration starts the run."""
        return StreamSession(self._kickoff_events(inputs, restore_from_state_id), FlowFinished)

    def astream(self, inputs: Inputs | None = None, *, restore_from_state_id: str | None = None) -> AsyncStreamSession:
        """Return the frames of a run of this instance, for ``async for``. The first iteration starts the run."""
        return AsyncStreamSession(self._kickoff_events(inputs, restore_from_state_id), FlowFinished)

    def plot(self, filename: str = "flow", show: bool = True) -> Path:
        """Draw the graph into an HTML file, and return its path. ".html" is added to ``filename`` if it is missing.

        The page needs nothing from the network. If ``show`` is True, the page is displayed: in a notebook below the
        cell, otherwise in a browser if there is one.
        """
        import webbrowser  # imported here, because most programs never draw

        path = Path(filename)
        if path.suffix != ".html":
            path = path.with_name(f"{path.name}.html")
        path = path.resolve()
        page = self._draw_page()
        path.write_text(page, encoding="utf-8")
        if show and not display_html(draw_frame(page, f"The graph of {type(self).__name__}")) and has_browser():
            webbrowser.open(path.as_uri())
        return path

    def _draw_page(self) -> str:
        from rxflow.flow._drawing.markup import draw_page  # imported here, because most programs never draw

        return draw_page(self._graph, self.name or type(self).__name__)

    def _repr_html_(self) -> str:
        name = self.name or type(self).__name__
        frame = draw_frame(self._draw_page(), f"The graph of {name}")
        return draw_card(f"Flow {name}", f"{len(self._graph.methods)} methods", frame)

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart."""
        from rxflow.flow._drawing.markup import draw_mermaid

        return draw_mermaid(self._graph)

    def _kickoff_events(self, inputs: Inputs | None, restore_from_state_id: str | None) -> EventStream[Event]:
        if self._running.is_taken:
            raise self._describe_busy()
        self._require_methods()
        self._require_store(restore_from_state_id)
        merge_inputs(self._state, inputs or {})  # raises an error for wrong inputs now; the result is not used
        return EventStream(partial(self._run, inputs=dict(inputs or {}), restore_from=restore_from_state_id))

    def _check_graph(self) -> None:
        if not self._is_checked:
            self._graph.check()
            self._is_checked = True

    def _require_methods(self) -> None:
        """Raise ValueError if there is no method to run. A flow may be created without methods, but cannot run."""
        self._check_graph()  # for a subclass that does not call Flow.__init__()
        if not self._graph.methods:
            raise ValueError(
                f"{type(self).__name__} has nothing to run: none of its methods is decorated with @start(), @listen(…) "
                "or @router(…)"
            )

    def _require_store(self, restore_from_state_id: str | None) -> None:
        if restore_from_state_id is not None and self._keep_state().store is None:
            raise ValueError(
                f"restore_from_state_id={restore_from_state_id!r}: {type(self).__name__} has no store to restore from, "
                "or several; give it persistence=…, or put @persist on the class"
            )

    def _keep_state(self) -> StateKeeper:
        rules = {name: method.persist for name, method in self._graph.methods.items()}
        return StateKeeper(type(self).__name__, self.persistence, getattr(self, RULE_ATTRIBUTE, None), rules)

    def _run(self, scope: Scope, inputs: Inputs, restore_from: str | None) -> Observable[Event]:
        """Return the events of a run that uses the state of this instance."""

        def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
            if not self._running.take():
                raise self._describe_busy()
            idle_again = Cleanup(self._running.give_back)
            try:
                events = self._merge_methods(scope, inputs, restore_from, idle_again)
                is_verbose = self.verbose and not scope.is_logged
                return connect(log_events(events) if is_verbose else events, observer, scheduler)
            except BaseException:
                idle_again.dispose()
                raise

        return RunPart(subscribe)

    def _merge_methods(
        self, scope: Scope, inputs: Inputs, restore_from: str | None, held: DisposableBase
    ) -> Observable[Event]:
        """Set the state for a run, and return the run's events. ``held`` is disposed when the run ends."""
        name = self.name or type(self).__name__
        self._keeper = keeper = self._keep_state()
        is_restored = keeper.has_stores and (restore_from is not None or has_id(self._state, inputs))
        if restore_from is not None and not has_id(self._state, inputs):
            self._state = give_new_id(self._state)
        self._state = merge_inputs(self._state, inputs)
        journal, step = scope.run.journal, scope.step
        if journal is not None:
            step = journal.next_step(step, name)
            started = journal.find_start(step)
            if started is not None:
                self._state = resume_state(self._state, journal.state_of(step), started.inputs, started.origin.flow_id)
                # Methods begin after the saved state was restored. A method that has begun may have saved another one.
                is_restored = is_restored and not journal.find_begun(step)
            elif scope.is_outermost:
                raise NotResumable(self._describe_other(journal.flow_names))

        async def complete(emitter: Emitter, method: Method, result: Any) -> Any:
            if method.feedback is not None:
                result = await ask_for_feedback(emitter, self, method.name, method.feedback, result)
                self._record.feedback.append(result)
            self._emit_state_change(emitter)
            await keeper.save(emitter, method.name, self._read_state)
            return result

        inner = scope.within(name, flow_name=name, flow_id=self.flow_id, flow_method="")
        inner = inner.with_own_ledger().at_step(step)
        if journal is not None:
            for usage, cost in journal.usage_of_done(step):
                inner.ledger.note(usage, cost)
        provider = self._provider()
        if provider is not None:
            inner = inner.with_answerer(provider)
        if self.verbose:
            inner = inner.mark_logged()
        self._record = Record(ledger=inner.ledger, state=show_state(self._state))
        return merge_along(
            self._graph,
            lambda method: getattr(self, method),
            inner,
            inputs=inputs,
            max_method_calls=self.max_method_calls,
            record=self._record,
            prepare=partial(self._restore, keeper, inputs, restore_from) if is_restored else None,
            complete=complete,
            held=held,
        )

    def _emit_state_change(self, emitter: Emitter) -> None:
        """Emit StateChanged if the state has changed since the last one, or since the start of the run."""
        state = show_state(self._state)
        if state != self._record.state:
            self._record.state = state
            emitter.on_next(StateChanged(origin=emitter.origin, state=state))

    async def _restore(self, keeper: StateKeeper, inputs: Inputs, restore_from: str | None, emitter: Emitter) -> None:
        """Load the state that was saved under ``restore_from`` (or the flow's own id). The flow keeps its own id."""
        read = partial(replace_state, self._state, state_id=self.flow_id)
        restored = await keeper.load(emitter, restore_from or self.flow_id, read)
        if restored is not None:
            self._state = merge_inputs(restored, inputs)
            self._emit_state_change(emitter)
        elif restore_from is not None:
            logger.warning("no saved state %r to restore from; %s begins anew", restore_from, type(self).__name__)

    def _describe_other(self, recorded: list[str]) -> str:
        """Return the error message for a log of another flow. With such a log, all calls would be made again."""
        own = self.name or type(self).__name__
        names = " and ".join(map(repr, recorded)) or "none"
        return (
            f"{own} cannot go on: the log is not of a flow of this name (it has {names}); if the class was renamed, "
            "give it name = … with the old name, or begin a new run"
        )

    def _describe_busy(self) -> RuntimeError:
        return RuntimeError(
            f"this {type(self).__name__} is running already: wait for that run or close it, make another instance, or "
            "use observe(), which runs a copy for each subscription"
        )

    def _twin(self) -> Self:
        """Return a copy with its own state, for another run."""
        twin = copy.copy(self)
        twin._state = twin._create_state()
        twin._record = Record()
        twin._running = Once()
        return twin

    def _create_state(self) -> State:
        given = self.initial_state
        return create_state(_find_state_type(type(self)) if given is None else given, type(self).__name__)


def _find_state_type(cls: type) -> Any:
    """Return the type of the state: the ``T`` of ``Flow[T]``. Return None if ``cls`` does not specify ``T``."""
    found = _find_state_argument(cls)
    if isinstance(found, TypeVar):
        return None
    return dict if get_origin(found) is dict else found


def _find_state_argument(cls: type) -> Any:
    """Return the type or type variable that ``cls`` specifies for the ``T`` of ``Flow[T]``; None if there is none."""
    bases: tuple[Any, ...] = vars(cls).get("__orig_bases__", cls.__bases__)
    for base in bases:
        origin: Any = get_origin(base) or base
        if Flow not in origin.__mro__:
            continue
        argument = S if origin is Flow else _find_state_argument(origin)
        if isinstance(argument, TypeVar):  # find what ``base`` specifies for this type variable of ``origin``
            variables: tuple[Any, ...] = getattr(origin, "__parameters__", ())
            argument = dict(zip(variables, get_args(base), strict=False)).get(argument)
        if argument is not None:
            return argument
    return None
