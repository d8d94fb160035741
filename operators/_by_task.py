"""``by_task``: a lane for each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.lanes import TASK, divide_by
from rxflow.types.lanes import Lane

T = TypeVar("T")


def by_task() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Divide a stream by tasks (like ``group_by``): a :class:`~rxflow.types.lanes.Lane` for each, keyed by its name.

    In a run, a lane begins when its task does, even if the task emits nothing, and completes when the task has ended,
    whether it succeeded or failed. A task that runs again gets another lane. In a stream of bare chunks, a lane begins
    with its first chunk and completes with the stream. Tasks of one name that run at once share a lane. Items outside
    of tasks are dropped. An error of the source ends all open lanes and the result. ::

        source        --a1--b1--a2--{a ends}--b2--|
        by_task()     --A---B---------------------|
        A             --a1------a2--|
        B             ------b1----------------b2--|

    A lane keeps its items until it is subscribed, in the same thread. It can be subscribed once: a second subscriber
    gets a RuntimeError, unless the lane is shared with ``share()``. When the result is disposed and no lane is being
    read, the source is disposed. A reader that raises ends the source and all lanes with its error.

    Example::

        def show(lane: Lane[StreamChunk]) -> None:
            lane.subscribe(panel(lane.key).append)

        flow.observe().pipe(ops.by_task()).subscribe(show)
    """
    return divide_by(TASK)
