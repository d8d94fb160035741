"""``only_agent``: the output and the events of some agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.lanes import AGENT, Identified, keep_only

T = TypeVar("T")


def only_agent(*agents: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and events of some agents (like ``filter``). The end and the error of the source always pass.

    An agent is given by its role as ``agent_role`` shows it, placeholders filled in, or as the ``Agent`` itself. Work
    that it delegates belongs to its coworker. A role that never occurs is not an error: the result is empty then. ::

        source                    --{flow}--a1--b1--a2--b2--|
        only_agent("B")           --------------b1------b2--|

    Raises:
        ValueError: no agent is given, or an empty role.
        TypeError: something else is given.

    Example::

        crew.observe().pipe(ops.only_agent("Writer", "Editor"), ops.text()).subscribe(show)
    """
    return keep_only(AGENT, agents, "only_agent")
