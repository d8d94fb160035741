"""``from_task``: what is said and done on some tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.labels import TASK, Identified
from rxflow.operators._core.lift import only, through

T = TypeVar("T")


def from_task(*tasks: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and the events of some tasks; all else is dropped, end and error of the source are not.

    A task is given by its name (its description where it has none, placeholders filled in), as ``task_name`` shows
    it, or as the ``Task`` itself. Work that its agent delegates is a task of its own. A name that nothing has is no
    mistake, as a run may do without a task: the result is then empty. ::

        source               --{flow}--a1--b1--a2--b2--|
        from_task("b")       --------------b1------b2--|

    Raises:
        ValueError: no task is given, or an empty name.
        TypeError: something else is given.

    Example::

        flow.observe().pipe(ops.from_task("report"), ops.text()).subscribe(show)
    """
    return through(only(TASK.wanted(tasks, "from_task")))
