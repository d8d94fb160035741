"""``in_graph_order``: emits concurrent branches one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import Holder
from rxflow.operators._core import CallTracker, OpenCall, get_span_id, through
from rxflow.types import (
    Cancelled,
    Failed,
    Finished,
    Happened,
    Heartbeat,
    Started,
    StreamChunk,
    ToolCancelled,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)

T = TypeVar("T")


def in_graph_order() -> Callable[[Observable[T]], Observable[T]]:
    """Emit concurrent branches one after the other (like ``concat``), in the order in which they began.

    Methods, crews, tasks, agents and LLM calls are branches. The items of the first open branch are emitted at once.
    The items of concurrent branches are held until the first branch ends. Then the next branch follows: first its held
    items, and then its new items as they arrive. Methods that start a flow together are ordered as they are defined. No
    item is lost. An error follows all held items. ::

        source              --a1--b1--a2--b2--{a ends}--b3|      (a and b began in this order)
        in_graph_order()    --a1------a2------(b1 b2)---b3|

    If no event ends a branch, it ends with the branch around it. If a method returns chunks without their events, for
    example ``self.crew.observe()`` with RxPY's operators, the chunks belong to the method, in order of arrival.
    Heartbeats and items that are not events are emitted at once.

    If RxPY's operators or ``share_log`` follow ``observe()``, the stream has only chunks and no events. It does not
    show where branches begin and end. In such a stream, each task is a branch. A chunk without a task belongs to the
    branch of its method. A chunk with neither belongs to the branch of its LLM call. A branch begins with its first
    chunk. All branches except the first are held until the stream ends. To read a shared run in order and live, share
    ``flow.events()``.

    Example::

        shared = flow.events().pipe(ops.share_log("cancel"))
        shared.subscribe(write_to_log)                                        # in order of arrival
        shared.pipe(ops.in_graph_order(), ops.text()).subscribe(show)         # in order of the graph
    """
    return through(_order)


def _order(source: Observable[Any]) -> Observable[Any]:
    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        order = _Order(observer)
        order.running.hold(source.subscribe(order.on_next, order.on_error, order.on_completed, scheduler=scheduler))
        return order.running

    return Observable(subscribe)


class _Branch:
    """A span of the run. In a stream without events, a branch is a task, a method or an LLM call.

    ``is_live`` is True once all items before this branch were emitted. ``inner`` is the live branch directly inside
    this branch; None if there is none.
    """

    __slots__ = ("held", "inner", "is_live", "is_open", "key", "namespace", "parent")

    def __init__(self, key: object, parent: _Branch | None, namespace: tuple[str, ...] = ()) -> None:
        self.key = key
        self.namespace = namespace
        self.parent = parent
        self.held: deque[Any] = deque()
        """What waits in this branch, in order: its own items, and the branches inside it."""
        self.inner: _Branch | None = None
        self.is_live = False
        self.is_open = True


class _Call(OpenCall):
    __slots__ = ("branch",)

    def __init__(self, item: object, branch: _Branch) -> None:
        super().__init__(item)
        self.branch = branch


class _Order:
    """The branches of one subscription, as a tree."""

    def __init__(self, observer: ObserverBase[Any]) -> None:
        self.running = Holder()
        self._observer = observer
        self._emit = observer.on_next
        self._root = _Branch(None, None)
        self._root.is_live = True
        self._branches: dict[object, _Branch] = {}
        self._calls: CallTracker[_Call] = CallTracker()
        self._find = self._calls.get
        self._is_releasing = False
        self._terminal: Callable[[], None] | None = None

    def on_next(self, item: Any) -> None:
        if isinstance(item, StreamChunk):
            call = self._find(get_span_id(item))
            if call is None or not call.branch.is_open:
                call = self._calls.add(_Call(item, self._find_branch(item)))
            self._add(item, call.branch)
        elif not isinstance(item, Happened) or isinstance(item, Heartbeat):
            self._emit(item)
        elif isinstance(item, ToolStarted):  # calls inside a tool belong to the branch of the tool's agent
            branch = self._branches.get(item.origin.span_id) or self._find_parent(item)
            self._branches.setdefault(item.origin.span_id, branch)
            self._add(item, branch)
        elif isinstance(item, Started) and item.origin.span_id:
            self._add(item, self._begin(item.origin.span_id, self._find_parent(item), item.origin.namespace))
        else:
            branch = self._branches.get(item.origin.span_id) or self._find_parent(item)
            self._add(item, branch)
            if isinstance(item, ToolFinished | ToolFailed | ToolCancelled):
                if branch.key != item.origin.span_id:
                    self._branches.pop(item.origin.span_id, None)
            elif isinstance(item, Finished | Failed | Cancelled) and branch.key == item.origin.span_id:
                self._end(branch)
            for ended in self._calls.find_ended(item):
                self._calls.remove(ended)

    def on_error(self, error: Exception) -> None:
        self._terminal = partial(self._observer.on_error, error)
        self._end(self._root)

    def on_completed(self) -> None:
        self._terminal = self._observer.on_completed
        self._end(self._root)

    def _find_parent(self, event: Happened) -> _Branch:
        return self._branches.get(event.origin.parent_span_id, self._root)

    def _find_branch(self, chunk: StreamChunk) -> _Branch:
        """Return the branch of a chunk.

        If an event began the chunk's call, return the branch of the call. Otherwise return the innermost open branch
        that the chunk's namespace names. In a stream without events, return the branch of the chunk's task or method.
        """
        return self._branches.get(chunk.span_id) or self._find_innermost(chunk) or self._find_task_branch(chunk)

    def _find_innermost(self, chunk: StreamChunk) -> _Branch | None:
        best: _Branch | None = None
        for branch in self._branches.values():
            length = len(branch.namespace)
            if length > (len(best.namespace) if best else 0) and branch.namespace == chunk.namespace[:length]:
                best = branch
        return best

    def _find_task_branch(self, chunk: StreamChunk) -> _Branch:
        """Return the branch of the chunk's task or method in a stream without events. Begin the branch if it is new.

        A chunk that names neither a task nor a method belongs to the branch of its call. A chunk that also names no
        call belongs to the root.
        """
        key = (chunk.namespace, chunk.task_id) if chunk.namespace or chunk.task_id else get_span_id(chunk)
        if not key:
            return self._root
        return self._branches.get(key) or self._begin(key, self._root)

    def _begin(self, key: object, parent: _Branch, namespace: tuple[str, ...] = ()) -> _Branch:
        branch = self._branches[key] = _Branch(key, parent, namespace)
        if parent.is_live and parent.inner is None and not parent.held:
            branch.is_live = True
            parent.inner = branch
        else:
            parent.held.append(branch)
        return branch

    def _add(self, item: Any, branch: _Branch) -> None:
        if branch.is_live and branch.inner is None and not branch.held:
            self._emit(item)
        else:
            branch.held.append(item)

    def _end(self, branch: _Branch) -> None:
        """End a branch and all open branches inside it. If the branch is live, emit the held items."""
        self._close(branch)
        if branch.is_live and not self._is_releasing:
            self._is_releasing = True
            try:
                self._release()
            finally:
                self._is_releasing = False
            terminal, self._terminal = self._terminal, None
            if terminal is not None:
                terminal()

    def _close(self, branch: _Branch) -> None:
        branch.is_open = False
        self._branches.pop(branch.key, None)
        if branch.inner is not None:
            self._close(branch.inner)
        for each in branch.held:
            if isinstance(each, _Branch):
                self._close(each)

    def _release(self) -> None:
        """Emit the held items of the innermost live branch.

        If this branch has ended, continue with the branch around it. While an item is emitted, the observer may make
        the source emit items, which begin or end branches.
        """
        branch = self._root
        while not self.running.is_disposed:
            while branch.inner is not None:
                branch = branch.inner
            if branch.held:
                each = branch.held.popleft()
                if isinstance(each, _Branch):
                    each.is_live = True
                    branch.inner = each
                else:
                    self._emit(each)
            elif branch.is_open or branch.parent is None:
                return
            else:
                branch = branch.parent
                branch.inner = None
