"""``only_task``: the output and the events of some tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.lanes import TASK, Identified, keep_only

T = TypeVar("T")


def only_task(*tasks: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some tasks (like ``filter``). The end and the error of the source always pass.

    A task is given by its name as ``task_name`` shows it (if it has no name: its description, placeholders filled in),
    or as the ``Task`` itself. Work that its agent delegates is a task of its own. A name that never occurs is not an
    error, since a run may skip a task: the result is empty then. ::

        source               --{flow}--a1--b1--a2--b2--|
        only_task("b")       --------------b1------b2--|

    Raises:
        ValueError: no task is given, or an empty name.
        TypeError: something else is given.

    Example::

        flow.observe().pipe(ops.only_task("report"), ops.text()).subscribe(show)
    """
    return keep_only(TASK, tasks, "only_task")
