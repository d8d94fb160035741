"""``by_task``, ``by_agent``, ``by_method``: a lane for each task, agent or method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core import AGENT, METHOD, TASK, Lane, divide_by

T = TypeVar("T")


def by_task() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Divide a stream by tasks (like ``group_by``): a :class:`~rxflow.types.Lane` for each, keyed by its name.

    In a run, a lane begins when its task does, even if the task emits nothing, and completes when the task has ended,
    whether it succeeded or failed. A task that runs again gets another lane. In a stream of bare chunks, a lane begins
    with its first chunk and completes with the stream. Tasks with the same name that run at once share a lane. Items
    outside of tasks are dropped. An error of the source ends all open lanes and the result. ::

        source        --a1--b1--a2--{a ends}--b2--|
        by_task()     --A---B---------------------|
        A             --a1------a2--|
        B             ------b1----------------b2--|

    A lane keeps its items until it is subscribed, which must happen in the same thread. It can be subscribed once: a
    second subscriber gets a RuntimeError, unless the lane is shared with ``share()``. When the result is disposed and
    no lane is being read, the source is disposed. If a reader raises an error, the source and all lanes end with that
    error.

    Example::

        def show(lane: Lane[StreamChunk]) -> None:
            lane.subscribe(panel(lane.key).append)

        flow.observe().pipe(ops.by_task()).subscribe(show)
    """
    return divide_by(TASK)


def by_agent() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Divide a stream by agents (like ``group_by``): a :class:`~rxflow.types.Lane` for each, keyed by its role.

    In a run, a lane begins when its agent begins a task, and completes when that task has ended with all its attempts,
    whether it succeeded or failed. The agent's next task gets another lane. In a stream of bare chunks, a lane begins
    with its first chunk and completes with the stream. Agents with the same role that work at once share a lane. Items
    without an agent are dropped. An error of the source ends all open lanes and the result. ::

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
    """Divide a stream by flow methods (like ``group_by``): a :class:`~rxflow.types.Lane` for each, keyed by name.

    In a run, a lane begins when its method does, even if the method emits nothing, and completes when the method has
    ended, whether it succeeded or failed. A method that is called again gets another lane. In a stream of bare chunks,
    a lane begins with its first chunk and completes with the stream. Items outside of methods are dropped. An error of
    the source ends all open lanes and the result. ::

        source          --a1--b1--a2--{a ends}--b2--|
        by_method()     --A---B---------------------|
        A               --a1------a2--|
        B               ------b1----------------b2--|

    Subscribe to lanes as described for :func:`by_task`.

    Example::

        flow.observe().pipe(ops.by_method()).subscribe(lambda lane: lane.subscribe(column(lane.key).append))
    """
    return divide_by(METHOD)
