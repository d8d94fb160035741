"""``to_output``: makes the items of a pipe iterable, with ``for`` or ``async for``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow._streaming import PipelineOutput

T = TypeVar("T")


def to_output() -> Callable[[Observable[T]], PipelineOutput[T]]:
    """Make the items of a pipe iterable with ``for`` and ``async for`` (like ``to_iterable``, but live). ::

        source                          --a---b---c---|
        for item in …to_output():         a   b   c     (then the loop ends)

    The pipe then returns an output instead of an Observable. The first iteration over the output subscribes. Every
    iteration, sync or async, gets all items from the first one on. Leaving the loop with ``break`` does not cancel the
    run. These cancel it: ``close()``, ``aclose()``, the end of a ``with`` block, and dropping the output. If the stream
    fails, each iteration raises the error after all items. The output's ``result`` is the last item.

    A plain ``for`` also works in a thread with a running event loop (a notebook, an ``async def``): the run then uses
    another thread. But if the pipe contains an operator of RxPY, the run would need the loop of this thread, which the
    ``for`` would block. The iteration then raises a RuntimeError: use ``async for`` instead.

    Raises:
        RuntimeError: while iterating, if a plain ``for`` would wait forever.

    Example::

        with flow.observe().pipe(ops.text(), ops.words(), ops.smooth(60), ops.to_output()) as words:
            for word in words:
                print(word, end="", flush=True)
    """
    return PipelineOutput
