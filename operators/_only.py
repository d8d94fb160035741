"""``only_task``, ``only_agent``, ``only_method``: keep the events of some tasks, agents or methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core import AGENT, METHOD, TASK, Identified, keep_only

T = TypeVar("T")


def only_task(*tasks: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some tasks (like ``filter``).

    The end and the error of the source are always passed on.

    A task is given by its name in ``task_name`` (a task without a name has its description, with placeholders filled
    in), or as the ``Task`` itself. Work that its agent delegates is a task of its own. If a name never occurs, the
    result is empty; that is not an error, because a run may skip a task. ::

        source               --{flow}--a1--b1--a2--b2--|
        only_task("b")       --------------b1------b2--|

    Raises:
        ValueError: no task is given, or an empty name.
        TypeError: an argument is neither a name nor a ``Task``.

    Example::

        flow.observe().pipe(ops.only_task("report"), ops.text()).subscribe(show)
    """
    return keep_only(TASK, tasks, "only_task")


def only_agent(*agents: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some agents (like ``filter``).

    The end and the error of the source are always passed on.

    An agent is given by its role in ``agent_role``, with placeholders filled in, or as the ``Agent`` itself. Work that
    it delegates belongs to its coworker. If a role never occurs, the result is empty; that is not an error. ::

        source                    --{flow}--a1--b1--a2--b2--|
        only_agent("B")           --------------b1------b2--|

    Raises:
        ValueError: no agent is given, or an empty role.
        TypeError: an argument is neither a role nor an ``Agent``.

    Example::

        crew.observe().pipe(ops.only_agent("Writer", "Editor"), ops.text()).subscribe(show)
    """
    return keep_only(AGENT, agents, "only_agent")


def only_method(*methods: str) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some methods of a flow (like ``filter``), with all crews and calls inside them.

    The end and the error of the source are always passed on. A method is given by its name in ``flow_method``. The
    methods of a flow that runs inside another one belong to the inner flow. If a name never occurs, the result is
    empty; that is not an error, because a router may choose another path. ::

        source                 --{flow}--a1--b1--a2--b2--|
        only_method("b")       --------------b1------b2--|

    Raises:
        ValueError: no method is given, or an empty name.
        TypeError: an argument is not a name.

    Example::

        flow.observe().pipe(ops.only_method("write"), ops.text()).subscribe(show)
    """
    return keep_only(METHOD, methods, "only_method")
