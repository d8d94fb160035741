"""``to_output``: the items of a pipe in a ``for`` or ``async for`` loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow._streaming import PipelineOutput

T = TypeVar("T")


def to_output() -> Callable[[Observable[T]], PipelineOutput[T]]:
    """End a pipe (like ``to_iterable``, but live): its items in a loop, as ``kickoff()`` gives the chunks of a flow. ::

        source                          --a---b---c---|
        for item in …to_output():         a   b   c     (then the loop ends)

    The first pull subscribes. Every iteration, sync or async, sees all items from the first. ``break`` cancels nothing;
    ``with``, ``close()``, ``aclose()`` and dropping the output do. An error is raised by the iteration, after all items
    before it. ``result`` is the last item.

    A plain ``for`` in a thread whose event loop runs (a notebook, an ``async def``) can read rxflow's pipelines, which
    then use another thread. Pipelines that end with RxPY's operators live on that loop, and the iteration raises: use
    ``async for``.

    Raises:
        RuntimeError: while iterating, if a plain ``for`` would wait forever.

    Example::

        with flow.observe().pipe(ops.text(), ops.words(), ops.smooth(60), ops.to_output()) as words:
            for word in words:
                print(word, end="", flush=True)
    """
    return PipelineOutput
