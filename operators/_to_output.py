"""``to_output``: the items of a pipe for a ``for`` or ``async for`` loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow._streaming import PipelineOutput

T = TypeVar("T")


def to_output() -> Callable[[Observable[T]], PipelineOutput[T]]:
    """End a pipe with an output of its items for a loop (like ``to_iterable``, but live). ::

        source                          --a---b---c---|
        for item in …to_output():         a   b   c     (then the loop ends)

    The first iteration subscribes. Every iteration, sync or async, gets all items from the first one on. ``break`` does
    not cancel the run; ``with``, ``close()``, ``aclose()`` and dropping the output do. An error is raised by the
    iteration, after all items before it. ``result`` is the last item.

    A plain ``for`` in a thread with a running event loop (a notebook, an ``async def``) can read rxflow's pipelines,
    which then use another thread. A pipeline that ends with RxPY's operators runs on that loop, so the iteration raises
    an error: use ``async for``.

    Raises:
        RuntimeError: while iterating, if a plain ``for`` would wait forever.

    Example::

        with flow.observe().pipe(ops.text(), ops.words(), ops.smooth(60), ops.to_output()) as words:
            for word in words:
                print(word, end="", flush=True)
    """
    return PipelineOutput
