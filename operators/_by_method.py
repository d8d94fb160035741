"""``by_method``: a lane for each method of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.lanes import METHOD, divide_by
from rxflow.types.lanes import Lane

T = TypeVar("T")


def by_method() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Divide a stream by flow methods (like ``group_by``): a :class:`~rxflow.types.lanes.Lane` for each, keyed by name.

    In a run, a lane begins when its method does, even if the method emits nothing, and completes when the method has
    ended, whether it succeeded or failed. A method that is called again gets another lane. In a stream of bare chunks,
    a lane begins with its first chunk and completes with the stream. Items outside of methods are dropped. An error of
    the source ends all open lanes and the result. ::

        source          --a1--b1--a2--{a ends}--b2--|
        by_method()     --A---B---------------------|
        A               --a1------a2--|
        B               ------b1----------------b2--|

    Lanes are subscribed as those of :func:`by_task`.

    Example::

        flow.observe().pipe(ops.by_method()).subscribe(lambda lane: lane.subscribe(column(lane.key).append))
    """
    return divide_by(METHOD)
