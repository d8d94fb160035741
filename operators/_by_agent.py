"""``by_agent``: a lane for each agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.lanes import AGENT, divide_by
from rxflow.types.lanes import Lane

T = TypeVar("T")


def by_agent() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Divide a stream by agents (like ``group_by``): a :class:`~rxflow.types.lanes.Lane` for each, keyed by its role.

    In a run, a lane begins when its agent begins a task, and completes when that task has ended with all its attempts,
    whether it succeeded or failed. The agent's next task gets another lane. In a stream of bare chunks, a lane begins
    with its first chunk and completes with the stream. Agents of one role that work at once share a lane. Items without
    an agent are dropped. An error of the source ends all open lanes and the result. ::

        source         --a1--b1--a2--{a's task ends}--b2--|
        by_agent()     --A---B----------------------------|
        A              --a1------a2--|
        B              ------b1-----------------------b2--|

    Lanes are subscribed as those of :func:`by_task`.

    Example::

        crew.observe().pipe(ops.by_agent()).subscribe(lambda lane: lane.subscribe(bubble(lane.key).append))
    """
    return divide_by(AGENT)
