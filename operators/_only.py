"""``only_task``, ``only_agent``, ``only_method``: keep the events of some tasks, agents or methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core import AGENT, METHOD, TASK, Identified, keep_only

T = TypeVar("T")


def only_task(*tasks: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some tasks (like ``filter``).

    Completion and errors of the source are always passed on.

    Name a task as in ``chunk.task_name``, or give the ``Task`` itself. For a task without a name, ``task_name`` is the
    description, with placeholders filled in. Work that an agent delegates is a task of its own. A name that never
    occurs is not an error, because a run may skip a task. ::

        source               --{flow}--a1--b1--a2--b2--|
        only_task("b")       --------------b1------b2--|

    Raises:
        ValueError: no task is given, or a name is empty.
        TypeError: an argument is neither a name nor a ``Task``.

    Example::

        flow.observe().pipe(ops.only_task("report"), ops.text()).subscribe(show)
    """
    return keep_only(TASK, tasks, "only_task")


def only_agent(*agents: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some agents (like ``filter``).

    Completion and errors of the source are always passed on.

    Name the role of an agent as in ``chunk.agent_role``, with placeholders filled in, or give the ``Agent`` itself.
    Work that an agent delegates counts as work of the agent that does it. A role that never occurs is not an error. ::

        source                    --{flow}--a1--b1--a2--b2--|
        only_agent("B")           --------------b1------b2--|

    Raises:
        ValueError: no agent is given, or a role is empty.
        TypeError: an argument is neither a role nor an ``Agent``.

    Example::

        crew.observe().pipe(ops.only_agent("Writer", "Editor"), ops.text()).subscribe(show)
    """
    return keep_only(AGENT, agents, "only_agent")


def only_method(*methods: str) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some methods of a flow (like ``filter``), with all crews and calls inside them.

    Completion and errors of the source are always passed on.

    Name a method as in ``chunk.flow_method``. If a method runs another flow, the events of the inner flow do not count
    as the method's: they have the names of the inner flow's methods. A name that never occurs is not an error, because
    a router may choose another path. ::

        source                 --{flow}--a1--b1--a2--b2--|
        only_method("b")       --------------b1------b2--|

    Raises:
        ValueError: no method is given, or a name is empty.
        TypeError: an argument is not a name.

    Example::

        flow.observe().pipe(ops.only_method("write"), ops.text()).subscribe(show)
    """
    return keep_only(METHOD, methods, "only_method")
