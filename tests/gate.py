"""What holds a test's threads and coroutines up until it lets them go on."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from rxflow._loops import call_soon
from tests.stacks import where_all_stand

PATIENCE_S = 60.0
"""How long a test waits for what must come. Only a test that fails waits that long, so a busy machine has room."""

T = TypeVar("T")


def poll(ask: Callable[[], T], is_enough: Callable[[T], object], missing: str) -> T:
    """Ask again and again, for what nobody reports; the first answer that is enough."""
    until = time.monotonic() + PATIENCE_S
    while not is_enough(answer := ask()):
        assert time.monotonic() < until, f"{missing} after {PATIENCE_S} s; the last answer: {answer!r}"
    return answer


class Gate:
    """Opens once, from any thread; threads and coroutines wait for it."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()

    @property
    def is_open(self) -> bool:
        return self._opened.done()

    def open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def wait(self, timeout: float = PATIENCE_S) -> None:
        try:
            self._opened.result(timeout)
        except TimeoutError:
            raise AssertionError(f"the gate stayed closed for {timeout} s; {where_all_stand()}") from None

    async def passed(self) -> None:
        loop = asyncio.get_running_loop()
        passed = asyncio.Event()
        self._opened.add_done_callback(lambda _: call_soon(loop, passed.set))
        await passed.wait()
