"""``by_task``, ``by_agent``, ``by_method``: a lane for each task, agent or method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core import AGENT, METHOD, TASK, Lane, divide_by

T = TypeVar("T")


def by_task() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Emit a :class:`~rxflow.types.Lane` for each task (like ``group_by``). The key of a lane is the task's name.

    In a run, a lane begins when its task begins, even if the task emits no chunks. It completes when the task ends,
    even if the task failed or was stopped. A task that runs again gets another lane. Tasks with the same name that run
    at the same time share a lane, which completes when the last of these tasks ends. Items outside of tasks are
    dropped. An error of the source ends all open lanes and the Observable of lanes.

    If the stream has only chunks and no events, for example after an operator of RxPY, a lane begins with its first
    chunk, and completes when the stream completes. ::

        source        --a1--b1--a2--{a ends}--b2--|
        by_task()     --A---B---------------------|
        A             --a1------a2--|
        B             ------b1----------------b2--|

    A lane keeps its items until it is subscribed. Subscribe to it in the thread in which it was emitted. A lane can be
    subscribed once: a second subscriber gets a RuntimeError, unless the lane is shared with ``share()``. The source is
    disposed when the subscription to the Observable of lanes is disposed and no lane is being read. If a reader of a
    lane raises an error, the source is disposed, and all open lanes and the Observable of lanes end with that error.

    Example::

        def show(lane: Lane[StreamChunk]) -> None:
            lane.subscribe(panel(lane.key).append)

        flow.observe().pipe(ops.by_task()).subscribe(show)
    """
    return divide_by(TASK)


def by_agent() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Emit a :class:`~rxflow.types.Lane` for each agent (like ``group_by``). The key of a lane is the agent's role.

    In a run, a lane begins when its agent begins a task. It completes when the task ends, even if the task failed or
    was stopped. All attempts at the task are in this lane. The agent's next task gets another lane. Agents with the
    same role that work at the same time share a lane, which completes when the last of their tasks ends. Items without
    an agent are dropped. An error of the source ends all open lanes and the Observable of lanes.

    If the stream has only chunks and no events, for example after an operator of RxPY, a lane begins with its first
    chunk, and completes when the stream completes. ::

        source         --a1--b1--a2--{a's task ends}--b2--|
        by_agent()     --A---B----------------------------|
        A              --a1------a2--|
        B              ------b1-----------------------b2--|

    Subscribe to lanes as described for :func:`by_task`.

    Example::

        crew.observe().pipe(ops.by_agent()).subscribe(lambda lane: lane.subscribe(bubble(lane.key).append))
    """
    return divide_by(AGENT)


def by_method() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Emit a :class:`~rxflow.types.Lane` for each flow method (like ``group_by``). The key is the name of the method.

    In a run, a lane begins when its method begins, even if the method emits no chunks. It completes when the method
    ends, even if the method failed or was stopped. A method that is called again gets another lane. Items outside of
    methods are dropped. An error of the source ends all open lanes and the Observable of lanes.

    If the stream has only chunks and no events, for example after an operator of RxPY, a lane begins with its first
    chunk, and completes when the stream completes. ::

        source          --a1--b1--a2--{a ends}--b2--|
        by_method()     --A---B---------------------|
        A               --a1------a2--|
        B               ------b1----------------b2--|

    Subscribe to lanes as described for :func:`by_task`.

    Example::

        flow.observe().pipe(ops.by_method()).subscribe(lambda lane: lane.subscribe(column(lane.key).append))
    """
    return divide_by(METHOD)
