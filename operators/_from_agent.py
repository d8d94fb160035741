"""``from_agent``: what some agents say and do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.operators._core.labels import AGENT, Identified
from rxflow.operators._core.lift import only, through

T = TypeVar("T")


def from_agent(*agents: str | Identified) -> Callable[[Observable[T]], Observable[T]]:
    """Keep the chunks and the events of some agents; all else is dropped, end and error of the source are not.

    An agent is given by its role, placeholders filled in, as ``agent_role`` shows it, or as the ``Agent`` itself. What
    it delegates is a coworker's. A role that nothing has is no mistake: the result is then empty. ::

        source                    --{flow}--a1--b1--a2--b2--|
        from_agent("B")           --------------b1------b2--|

    Raises:
        ValueError: no agent is given, or an empty role.
        TypeError: something else is given.

    Example::

        crew.observe().pipe(ops.from_agent("Writer", "Editor"), ops.text()).subscribe(show)
    """
    return through(only(AGENT.wanted(agents, "from_agent")))
