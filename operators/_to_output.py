"""``to_output``: a pipeline for ``for`` and ``async for``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow.streaming.output import PipelineOutput

T = TypeVar("T")


def to_output() -> Callable[[Observable[T]], PipelineOutput[T]]:
    """The end of a pipe: its items in a loop, live, as ``kickoff()`` gives the chunks of a flow. ::

        source                          --a---b---c---|
        for item in …to_output():         a   b   c     (then the loop ends)

    The first pull subscribes the pipeline. Every iteration, sync or async, sees all items from the first; ``break``
    cancels nothing, ``with``, ``close()``, ``aclose()`` and dropping the output do. An error of the pipeline is raised
    by the iteration, after all that had arrived. ``result`` is the last item.

    A plain ``for`` in a thread whose event loop runs (a notebook, an ``async def``) can read pipelines of ours, which
    take another thread there; behind RxPY's operators they live on that loop, and it refuses: use ``async for``.

    Raises:
        RuntimeError: while iterating, where a plain ``for`` would wait for ever.

    Example::

        with flow.observe().pipe(ops.text(), ops.words(), ops.smooth(60), ops.to_output()) as words:
            for word in words:
                print(word, end="", flush=True)
    """
    return PipelineOutput
