"""Futures for which a thread waits while a loop on virtual time brings their results."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from rxflow.streaming.hooks import Pause

NewPause = Callable[[], Pause | None]

_CALLBACK = "run_coroutine_threadsafe.<locals>.callback"


def watch(callback: Callable[..., object], new_pause: NewPause) -> None:
    """Where ``callback`` is what ``asyncio.run_coroutine_threadsafe`` hands to a loop, count the waits for its future.

    anyio's ``from_thread.run`` goes the same way. The wait itself has to say so: whoever holds the future may wait for
    it at any time, or never, and is at work until then.
    """
    if isinstance(callback, FunctionType) and callback.__qualname__ == _CALLBACK and callback.__closure__ is not None:
        held: dict[str, Any] = dict(zip(callback.__code__.co_freevars, callback.__closure__, strict=True))
        future = held["future"].cell_contents
        future.__class__ = _Awaited
        future.new_pause = new_pause


class _Awaited(concurrent.futures.Future[Any]):
    new_pause: NewPause

    def result(self, timeout: float | None = None) -> Any:
        with self._waiting():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        with self._waiting():
            return super().exception(timeout)

    @contextmanager
    def _waiting(self) -> Generator[None]:
        pause = None if self.done() else self.new_pause()
        if pause is None:
            yield
            return
        self.add_done_callback(lambda _: pause.ends())  # on the loop's thread, before it goes on
        pause.begins()
        try:
            yield
        finally:
            pause.ends()
