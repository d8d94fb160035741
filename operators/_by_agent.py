"""``by_agent``: a lane for each agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.division import divided
from rxflow.operators._core.labels import AGENT
from rxflow.types.lanes import Lane

T = TypeVar("T")


def by_agent() -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """Take a stream apart by agents: a :class:`~rxflow.types.lanes.Lane` for each, its ``key`` the agent's role.

    In a run a lane begins when its agent begins a task, and completes when that task has ended, well or not, with all
    its attempts; the agent's next task gets another lane. In a stream of bare chunks it begins with its first chunk and
    completes with the stream. Agents of one role that work at once share a lane. What is of no agent is dropped. An
    error of the source ends all open lanes and the result. ::

        source         --a1--b1--a2--{a's task ends}--b2--|
        by_agent()     --A---B----------------------------|
        A              --a1------a2--|
        B              ------b1-----------------------b2--|

    Lanes are read as those of :func:`by_task`.

    Example::

        crew.observe().pipe(ops.by_agent()).subscribe(lambda lane: lane.subscribe(bubble(lane.key).append))
    """
    return divided(AGENT)
