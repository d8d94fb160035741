"""``by_task``: a lane for each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.division import divided
from rxflow.operators._core.labels import TASK
from rxflow.types.lanes import Lane

T = TypeVar("T")


def by_task() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Take a stream apart by tasks: a :class:`~rxflow.types.lanes.Lane` for each, its ``key`` the task's name.

    In a run a lane begins when its task does, whether or not it says anything, and completes when the task has ended,
    well or not; a task that runs again gets another lane. In a stream of bare chunks it begins with its first chunk and
    completes with the stream. Tasks of one name that run at once share a lane. What belongs to no task is dropped. An
    error of the source ends all open lanes and the result. ::

        source        --a1--b1--a2--{a ends}--b2--|
        by_task()     --A---B---------------------|
        A             --a1------a2--|
        B             ------b1----------------b2--|

    A lane keeps its items until its reader comes, in the same thread; it has one reader: a second one gets a
    RuntimeError, and ``share()`` helps. Nothing runs on unread: when the result is disposed and no lane is being
    read, the source is disposed. A reader that raises ends all of it with its error.

    Example::

        def show(lane: Lane[StreamChunk]) -> None:
            lane.subscribe(panel(lane.key).append)

        flow.observe().pipe(ops.by_task()).subscribe(show)
    """
    return divided(TASK)
