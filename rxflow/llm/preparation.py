"""The threads in which litellm prepares a request, and what they make for calls that are over by then.

litellm makes a coroutine there, and awaits it on the loop. A call that is cancelled in between never comes to that, and
Python would complain on the program's standard error that the coroutine was never awaited.
"""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, TypeVar

from rxflow.llm.lookups import looked_up

P = ParamSpec("P")
T = TypeVar("T")


class Preparation:
    """What threads make for one call; what it never came to await is closed when it is over."""

    def __init__(self) -> None:
        self._made: list[Coroutine[Any, Any, Any]] = []
        self._is_over = False

    def __enter__(self) -> None:
        _current.set(self)

    def __exit__(self, *error: object) -> None:
        # Said before the look at what was made, as a thread does the reverse: one of the two sees the other.
        self._is_over = True
        self._close()

    def keep(self, function: Callable[[], T]) -> T:
        """Call ``function``, in a thread."""
        made = function()
        if inspect.iscoroutine(made):
            self._made.append(made)
            if self._is_over:
                self._close()
        return made

    def _close(self) -> None:
        while self._made:
            try:
                made = self._made.pop()
            except IndexError:  # the other thread was faster
                return
            if inspect.getcoroutinestate(made) == inspect.CORO_CREATED:
                made.close()


class Preparing(ThreadPoolExecutor):
    """The I/O loop's threads."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="litellm")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        call = partial(fn, *args, **kwargs)
        if fn is socket.getaddrinfo:
            return looked_up(call)
        preparation = _current.get()
        return super().submit(call if preparation is None else partial(preparation.keep, call))


_current: ContextVar[Preparation | None] = ContextVar("rxflow_preparation", default=None)
