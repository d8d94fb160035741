"""Lanes: one stream, divided by the labels of its items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, RefCountDisposable

from rxflow._streaming import Cleanup, Holder, Owned
from rxflow.operators._core.in_run import Selection, only, reselect, through
from rxflow.types import (
    Cancelled,
    Failed,
    Finished,
    Happened,
    MethodCancelled,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Started,
    StreamChunk,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskStarted,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Lane(Observable[T_co], Generic[T_co]):
    """The items that have the same ``key``. The key is the name of a task or method, or the role of an agent."""

    def __init__(self, key: str, items: Observable[T_co]) -> None:
        self.key = key
        self._items = items
        super().__init__(self._on_subscribe)

    def _on_subscribe(self, observer: ObserverBase[T_co], scheduler: SchedulerBase | None = None) -> DisposableBase:
        return self._items.subscribe(observer, scheduler=scheduler)

    def __repr__(self) -> str:
        return f"Lane({self.key!r})"


class Identified(Protocol):
    """A Task or an Agent. Its ``id`` is also in its chunks."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A kind of label by which a stream can be divided or filtered: task, agent or method.

    Attributes:
        what: the noun for the label in error messages.
        name, id: the fields of chunks and origins that hold the name and the id. ``id`` is None for methods.
        field: an attribute that distinguishes a Task from an Agent, because both have an ``id``. ``field`` is None for
            methods.
        begins: the class of the event that begins a span of a lane. For agents, this is the span of the task.
        ends: the classes of the events that end such a span.
    """

    what: str
    name: str
    id: str | None
    field: str | None
    begins: type[Started]
    ends: tuple[type[Finished], type[Failed], type[Cancelled]]

    def create_reader(self) -> Callable[[object], str]:
        """Return a function that reads the name of an item's task, agent or method. Without a name, it returns ""."""
        return _create_reader(self.name)

    def create_filter(self, given: tuple[str | Identified, ...], operator: str) -> Callable[[object], bool]:
        """Return a function that returns whether an item belongs to one of ``given``: names, Tasks or Agents.

        Raises:
            ValueError: ``given`` is empty, or contains an empty name.
            TypeError: an element of ``given`` is neither a name nor an object of the right kind.
        """
        if not given:
            raise ValueError(f"{operator}() needs at least one {self.what} to keep")
        names = frozenset(each for each in given if isinstance(each, str))
        if "" in names:
            raise ValueError(f"{operator}() got an empty name; no {self.what} has one")
        objects = [each for each in given if not isinstance(each, str)]
        if not all(
            self.field and hasattr(each, self.field) and isinstance(getattr(each, "id", None), str) for each in objects
        ):
            takes = (
                f"names of {self.what}s" if self.id is None else f"names of {self.what}s, or {self.what}s themselves"
            )
            raise TypeError(f"{operator}() takes {takes}; got {objects!r}")
        name_of = self.create_reader()
        if self.id is None or not objects:
            return lambda item: name_of(item) in names
        ids = frozenset(each.id for each in objects)
        id_of = _create_reader(self.id)
        return lambda item: name_of(item) in names or id_of(item) in ids


def _create_reader(field: str) -> Callable[[object], str]:
    get: Callable[[object], str] = attrgetter(field)

    def read(item: object) -> str:
        if isinstance(item, StreamChunk):
            return get(item)
        return get(item.origin) if isinstance(item, Happened) else ""

    return read


TASK = Label(
    what="task",
    name="task_name",
    id="task_id",
    field="description",
    begins=TaskStarted,
    ends=(TaskFinished, TaskFailed, TaskCancelled),
)
# An agent's lane lasts until the agent's task ends. The agent's own span is only one attempt at the task. If that
# attempt is rejected, the end of the span would end the lane too early.
AGENT = Label(
    what="agent",
    name="agent_role",
    id="agent_id",
    field="role",
    begins=TaskStarted,
    ends=(TaskFinished, TaskFailed, TaskCancelled),
)
METHOD = Label(
    what="method",
    name="flow_method",
    id=None,
    field=None,
    begins=MethodStarted,
    ends=(MethodFinished, MethodFailed, MethodCancelled),
)


def keep_only(
    label: Label, given: tuple[str | Identified, ...], operator: str
) -> Callable[[Observable[T]], Observable[T]]:
    """Create an operator that keeps the items that match ``given`` (see :meth:`Label.create_filter`)."""
    return through(only(label.create_filter(given, operator)))


def divide(division: Selection[Lane[Any]]) -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Create an operator that divides the selected items into lanes.

    ``division`` divides the events of the source into lanes. The selection is then applied to the events of each lane.
    """

    def lane_by_lane(shown: Selection[T]) -> Selection[Lane[T]]:
        def within(lane: Lane[Any]) -> Lane[T]:
            return Lane(lane.key, shown(lane))

        return lambda events: division(events).map(within)

    return reselect(lane_by_lane)


def divide_by(label: Label) -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Create an operator that emits a lane for the items with the same name. Items without a name are dropped.

    The name is that of the item's task, agent or method, depending on ``label``. A lane is emitted just before its
    first item. It completes after the event that ends the labelled span. If no such event comes, the lane completes or
    fails together with the source. After a lane has completed, the next item with the same name begins another
    lane. ::

        source     --a1--b1--a2--{a ends}--a3--|
        a          --a1------a2--|
        b          ------b1--------------------|
        a          ------------------------a3--|
        result     --a---b-----------------a---|

    A lane keeps its items until it is subscribed. It can be subscribed once. The source is disposed when the result is
    disposed and no lane is being read.
    """

    def division(source: Observable[Any]) -> Observable[Lane[Any]]:
        def subscribe(observer: ObserverBase[Lane[Any]], scheduler: SchedulerBase | None = None) -> DisposableBase:
            lanes = _Lanes(label, observer)
            lanes.running.hold(source.subscribe(lanes.on_next, lanes.on_error, lanes.on_completed, scheduler=scheduler))
            return lanes.in_use

        return Observable(subscribe)

    return divide(division)


class _Lanes:
    """The lanes of one subscription."""

    def __init__(self, label: Label, observer: ObserverBase[Lane[Any]]) -> None:
        self.running = Holder()
        self.in_use = RefCountDisposable(Owned(self.running, Cleanup(self._abandon)))
        self._label = label
        self._read_key = label.create_reader()
        self._observer = observer
        self._open: dict[str, _Items] = {}
        self._is_over = False

    def on_next(self, item: object) -> None:
        key = self._read_key(item)
        if not key or self._is_over:
            return
        items = self._open.get(key)
        if items is None:
            if self.in_use.is_primary_disposed:  # no observer would receive another lane
                return
            items = self._open[key] = _Items(self.in_use)
            self._observer.on_next(Lane(key, Observable(items.subscribe)))
        try:
            items.on_next(item)
            if not isinstance(item, StreamChunk):
                self._note_event(key, items, item)
        except Exception as error:  # noqa: BLE001 - a reader raised it; it must not reach the producer
            self.running.dispose()
            self.on_error(error)

    def _note_event(self, key: str, items: _Items, item: object) -> None:
        """Handle an event that may begin or end a span of the lane.

        Spans with the same name that are open at the same time share a lane. The lane ends when the last of these spans
        ends.
        """
        if not isinstance(item, Happened):
            return
        if isinstance(item, self._label.begins):
            items.spans.add(item.origin.span_id)
        elif isinstance(item, self._label.ends):
            items.spans.discard(item.origin.span_id)
            if not items.spans and self._open.get(key) is items:
                del self._open[key]
                items.end(_complete)

    def on_error(self, error: Exception) -> None:
        def fail(observer: ObserverBase[Any]) -> None:
            try:
                observer.on_error(error)
            except Exception as raised:
                if raised is not error:  # `error` itself is ignored: a reader without on_error raises it again
                    raise

        self._end(fail)

    def on_completed(self) -> None:
        self._end(_complete)

    def _end(self, tell: Callable[[ObserverBase[Any]], None]) -> None:
        """End the open lanes, and then the result. If a reader raises an error, the other lanes end nevertheless."""
        if self._is_over:
            return
        self._is_over = True
        lanes, self._open = self._open, {}
        with ExitStack() as ends:  # calls all callbacks in reverse order, even if one raises
            ends.callback(tell, self._observer)
            for items in reversed(lanes.values()):
                ends.callback(items.end, tell)

    def _abandon(self) -> None:
        """Drop all lanes, because nobody reads them any more. A lane that is subscribed later fails."""
        self._is_over = True
        lanes, self._open = self._open, {}
        for items in lanes.values():
            items.end(_refuse_late)


class _Items:
    """The items of one lane. They are kept until the lane is subscribed, and are then passed on."""

    __slots__ = ("_end", "_in_use", "_is_taken", "_kept", "_reader", "spans")

    def __init__(self, in_use: RefCountDisposable) -> None:
        self.spans: set[str] = set()
        self._in_use = in_use
        self._kept: deque[object] | None = deque()
        self._reader: ObserverBase[Any] | None = None
        self._is_taken = False
        self._end: Callable[[ObserverBase[Any]], None] | None = None

    def on_next(self, item: object) -> None:
        if self._reader is not None:
            self._reader.on_next(item)
        elif self._kept is not None:
            self._kept.append(item)

    def end(self, tell: Callable[[ObserverBase[Any]], None]) -> None:
        reader, self._reader = self._reader, None
        self._end = tell
        if reader is not None:
            tell(reader)

    def subscribe(self, reader: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        if self._is_taken:
            reader.on_error(
                RuntimeError(
                    "this lane was already subscribed, and has only one reader; share it with reactivex's ops.share()"
                )
            )
            return Disposable()
        self._is_taken = True
        subscription = Owned(Cleanup(self._leave), self._in_use.disposable)
        try:
            while self._kept:  # items that arrive during this loop are added at the end
                reader.on_next(self._kept.popleft())
            self._kept = None
            if self._end is not None:
                self._end(reader)
            else:
                self._reader = reader
        except BaseException:  # the reader raised, so it gets no subscription that it could dispose
            subscription.dispose()
            raise
        return subscription

    def _leave(self) -> None:
        self._reader = self._kept = None


def _complete(observer: ObserverBase[Any]) -> None:
    observer.on_completed()


def _refuse_late(observer: ObserverBase[Any]) -> None:
    observer.on_error(RuntimeError("this lane was subscribed too late: its stream is disposed"))
