"""``in_graph_order``: branches that ran side by side, read one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.operators._core.lift import through
from rxflow.operators._core.texts import place_of
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    Failed,
    Finished,
    Happened,
    Heartbeat,
    Started,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)

T = TypeVar("T")


def in_graph_order() -> Callable[[Observable[T]], Observable[T]]:
    """Read what ran side by side one branch after the other, in the order in which the branches began.

    Methods, crews, tasks, agents and LLM calls are branches. Of those that are open side by side, the first is live,
    and the others are held until it ends; then the next one comes, at once what was held of it and live from there.
    Methods that start a flow together begin in the order of their definition. Nothing is lost; an error comes after all
    that was held. ::

        source              --a1--b1--a2--b2--{a ends}--b3|      (a and b began in this order)
        in_graph_order()    --a1------a2------(b1 b2)---b3|

    A branch that was cut off, and so never ends, is over when the one around it is. What a method returns as bare
    chunks (``self.crew.observe()`` with RxPY's operators) is a part of the method, in order of arrival. Heartbeats and
    what is not rxflow's pass at once.

    In a stream of bare chunks (after RxPY's operators, or ``share_log`` of ``observe()``) nothing tells of beginnings
    and ends: there each task, or method outside of tasks, is a branch that begins with its first chunk, and all but
    the first are held until the stream ends. To read a shared run in order and live, share ``flow.events()``.

    Example::

        shared = flow.events().pipe(ops.share_log("cancel"))
        shared.subscribe(write_to_log)                                        # in order of arrival
        shared.pipe(ops.in_graph_order(), ops.text()).subscribe(show)         # in order of the graph
    """
    return through(_ordered)


def _ordered(source: Observable[Any]) -> Observable[Any]:
    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        order = _Order(observer)
        order.running.disposable = source.subscribe(
            order.on_next, order.on_error, order.on_completed, scheduler=scheduler
        )
        return order.running

    return Observable(subscribe)


class _Branch:
    """A bracket of the run. It is live when its parent has come to it; then ``inner`` is the branch that it is at."""

    __slots__ = ("held", "inner", "is_live", "is_open", "key", "namespace", "parent")

    def __init__(self, key: object, parent: _Branch | None, namespace: tuple[str, ...] = ()) -> None:
        self.key = key
        self.namespace = namespace
        self.parent = parent
        self.held: deque[Any] = deque()
        """Items and branches that wait, in their order."""
        self.inner: _Branch | None = None
        self.is_live = False
        self.is_open = True


class _Order:
    """The branches of one subscription."""

    def __init__(self, observer: ObserverBase[Any]) -> None:
        self.running = SingleAssignmentDisposable()
        self._observer = observer
        self._emit = observer.on_next
        self._root = _Branch(None, None)
        self._root.is_live = True
        self._branches: dict[object, _Branch] = {}
        self._homes: dict[str, _Branch] = {}
        """By place: the branches of calls that no event has told of."""

    def on_next(self, item: Any) -> None:
        if isinstance(item, StreamChunk):
            branch = self._branches.get(item.span_id)
            self._add(item, self._home_of(item) if branch is None else branch)
        elif not isinstance(item, Happened) or isinstance(item, Heartbeat):
            self._emit(item)
        elif isinstance(item, Started) and not isinstance(item, ToolStarted) and item.origin.span_id:
            self._add(item, self._begin(item.origin.span_id, self._around(item), item.origin.namespace))
        else:
            branch = self._branches.get(item.origin.span_id) or self._around(item)
            self._add(item, branch)
            is_end = isinstance(item, Finished | Failed) and not isinstance(item, ToolFinished | ToolFailed)
            if is_end and branch.key == item.origin.span_id:
                self._end(branch)

    def on_error(self, error: Exception) -> None:
        self._end(self._root)
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._end(self._root)
        self._observer.on_completed()

    def _around(self, event: Happened) -> _Branch:
        return self._branches.get(event.origin.parent_span_id, self._root)

    def _home_of(self, chunk: StreamChunk) -> _Branch:
        """Where a chunk belongs whose call no event has told of: to the innermost branch that it names."""
        place = place_of(chunk)
        home = self._homes.get(place)
        if home is None or not home.is_open:
            home = self._homes[place] = self._named(chunk) or self._of_bare_chunks(chunk)
        return home

    def _named(self, chunk: StreamChunk) -> _Branch | None:
        best: _Branch | None = None
        for branch in self._branches.values():
            length = len(branch.namespace)
            if length > (len(best.namespace) if best else 0) and branch.namespace == chunk.namespace[:length]:
                best = branch
        return best

    def _of_bare_chunks(self, chunk: StreamChunk) -> _Branch:
        """The branch of a task in a stream without events; a chunk without labels belongs to none."""
        key = (chunk.namespace, chunk.task_id) if chunk.namespace or chunk.task_id else place_of(chunk)
        if not key:
            return self._root
        return self._branches.get(key) or self._begin(key, self._root)

    def _begin(self, key: object, parent: _Branch, namespace: tuple[str, ...] = ()) -> _Branch:
        branch = self._branches[key] = _Branch(key, parent, namespace)
        if parent.is_live and parent.inner is None:
            branch.is_live = True
            parent.inner = branch
        else:
            parent.held.append(branch)
        return branch

    def _add(self, item: Any, branch: _Branch) -> None:
        if branch.is_live and branch.inner is None:
            self._emit(item)
        else:
            branch.held.append(item)

    def _end(self, branch: _Branch) -> None:
        """It is over, and so is all that is left open in it."""
        self._close(branch)
        if branch.is_live:
            while branch.inner is not None:
                branch = branch.inner
            self._go_on(branch)

    def _close(self, branch: _Branch) -> None:
        branch.is_open = False
        self._branches.pop(branch.key, None)
        if branch.inner is not None:
            self._close(branch.inner)
        for each in branch.held:
            if isinstance(each, _Branch):
                self._close(each)

    def _go_on(self, branch: _Branch) -> None:
        """Give what is held, from a live branch on: into those inside, and out to those around where one is over."""
        while not self.running.is_disposed:
            if branch.held:
                each = branch.held.popleft()
                if isinstance(each, _Branch):
                    each.is_live = True
                    branch.inner = branch = each
                else:
                    self._emit(each)
            elif branch.is_open or branch.parent is None:
                return
            else:
                branch = branch.parent
                branch.inner = None
