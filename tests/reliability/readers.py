"""Readers of a stream, in threads and on an event loop, whose pulls can be waited for: to their answers, and until
they wait for one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, TypeVar

from rxflow.types.streaming import StreamChunk
from tests.gate import PATIENCE_S, Gate

T = TypeVar("T")


class _OfThread(threading.local):
    """Not a context variable: what a pull starts has its context, and waits too."""

    stands: Gate | None = None


_of_thread = _OfThread()


class Told(NamedTuple):
    """What one pull came to: an item's text, the end, or an error."""

    kind: str
    value: Any = None


class Reader:
    """One cursor, its place, and the pull that it waits in, if it does."""

    def __init__(self, cursor: Iterator[StreamChunk] | AsyncIterator[StreamChunk]) -> None:
        self.cursor = cursor
        self.position = 0
        self.waiting: Future[Told] | None = None
        self.reads_on = False

    def __repr__(self) -> str:
        return f"<{type(self.cursor).__name__} at {self.position}{', waiting' if self.waiting else ''}>"

    @property
    def is_async(self) -> bool:
        return not isinstance(self.cursor, Iterator)


class Attentive(asyncio.SelectorEventLoop):
    """A loop that is told when a thread is about to wait for a run of its: as a loop on virtual time, on real time."""

    def __init__(self) -> None:
        super().__init__()
        self.thread_count = _Told()


class _Told:
    """All that such a loop is told, of which only the beginning of a wait matters here."""

    def work(self) -> "_Told":
        return self

    def reader(self) -> "_Told":
        return self

    def pause(self) -> "_Told":
        return self

    def run(self, function: Callable[[], T]) -> T:
        return function()

    def over(self) -> None: ...

    def begins(self) -> None:
        if _of_thread.stands is not None:
            _of_thread.stands.open()

    def ends(self) -> None: ...


class Readers:
    """Where they read: a thread for each pull, and an event loop in one more.

    All are daemons: a reader that is never woken fails the test, and must not hold up its end.
    """

    def __init__(self) -> None:
        self.loop = Attentive()
        self._pulls: list[Future[Told]] = []
        self._thread = threading.Thread(target=self.loop.run_forever, name="readers", daemon=True)
        self._thread.start()

    def pull(self, reader: Reader) -> Future[Told]:
        """Begin a pull. It has its answer, or stands and waits for it, when this returns: what comes now must wake it.

        A thread is seen to wait only where the run lives on an :class:`Attentive` loop.
        """
        stands = Gate()
        cursor = reader.cursor
        if isinstance(cursor, Iterator):
            pull = _in_thread(cursor, stands)
        else:
            pull = asyncio.run_coroutine_threadsafe(_pull_async(cursor, stands), self.loop)
        pull.add_done_callback(lambda _: stands.open())
        self._pulls.append(pull)
        stands.wait()
        return pull

    def close(self, timeout: float) -> None:
        wait(self._pulls, timeout)
        asyncio.run_coroutine_threadsafe(_others_done(timeout), self.loop).result(PATIENCE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()


async def _others_done(timeout: float) -> None:
    """What was just cancelled comes to its end; a loop that is stopped before would leave it pending."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, late = await asyncio.wait(left, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _in_thread(cursor: Iterator[StreamChunk], stands: Gate) -> Future[Told]:
    pull: Future[Told] = Future()

    def work() -> None:
        _of_thread.stands = stands
        pull.set_result(_pull(cursor))

    threading.Thread(target=work, name="reader", daemon=True).start()
    return pull


def _pull(cursor: Iterator[StreamChunk]) -> Told:
    try:
        return Told("item", next(cursor).content)
    except StopIteration:
        return Told("end")
    except Exception as error:  # noqa: BLE001 - compared with what was expected
        return Told("error", error)


async def _pull_async(cursor: AsyncIterator[StreamChunk], stands: Gate) -> Told:
    asyncio.get_running_loop().call_soon(stands.open)  # after this step, in which the pull has come as far as it can
    try:
        return Told("item", (await anext(cursor)).content)
    except StopAsyncIteration:
        return Told("end")
    except Exception as error:  # noqa: BLE001 - compared with what was expected
        return Told("error", error)
