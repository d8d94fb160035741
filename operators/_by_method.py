"""``by_method``: a lane for each method of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.division import divided
from rxflow.operators._core.labels import METHOD
from rxflow.types.lanes import Lane

T = TypeVar("T")


def by_method() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Take a stream apart by flow methods: a :class:`~rxflow.types.lanes.Lane` for each, its ``key`` the method's name.

    In a run a lane begins when its method does, whether or not it says anything, and completes when the method has
    ended, well or not; a method that is called again gets another lane. In a stream of bare chunks it begins with its
    first chunk and completes with the stream. What is in no method is dropped. An error of the source ends all open
    lanes and the result. ::

        source          --a1--b1--a2--{a ends}--b2--|
        by_method()     --A---B---------------------|
        A               --a1------a2--|
        B               ------b1----------------b2--|

    Lanes are read as those of :func:`by_task`.

    Example::

        flow.observe().pipe(ops.by_method()).subscribe(lambda lane: lane.subscribe(column(lane.key).append))
    """
    return divided(METHOD)
