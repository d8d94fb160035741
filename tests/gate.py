"""What holds a test's threads and coroutines up until it lets them go on."""

import asyncio
import sys
import threading
import traceback
from concurrent.futures import Future

from rxflow.streaming.loops import call_soon


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

    def wait(self, timeout: float = 5.0) -> None:
        try:
            self._opened.result(timeout)
        except TimeoutError:
            raise AssertionError(f"the gate stayed closed for {timeout} s; {_where_all_stand()}") from None

    async def passed(self) -> None:
        loop = asyncio.get_running_loop()
        passed = asyncio.Event()
        self._opened.add_done_callback(lambda _: call_soon(loop, passed.set))
        await passed.wait()


def _where_all_stand() -> str:
    """The stacks of all threads: what a test waits for in vain is usually waiting, too."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = (
        f"{names.get(ident, '?')}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
    return "all threads:\n" + "\n".join(stacks)
