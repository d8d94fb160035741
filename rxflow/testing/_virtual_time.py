"""An event loop on virtual time: instead of sleeping, it sets its clock forward.

``asyncio.sleep``, the deadlines of anyio and the timers of RxPY take no real time, and are exact. Virtual time stands
still while a thread works for the loop, so the work of sync methods and tools takes no virtual time.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from rxflow.testing._stacks import describe_tasks, describe_threads
from rxflow.testing._workers import Workers, watch_callback

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

_DIGITS = 9  # times are rounded to nanoseconds; a float can distinguish nanoseconds up to about 100 days
_CONFIRMATION_S = 0.005
_RECHECK_S = 0.05
WATCHDOG_S = 10.0

__tracebackhide__ = True  # pytest shows the code that waits, and not this module


class Instant(float):
    """A time in seconds, exact to the nanosecond: 0.1 + 0.2 is 0.3.

    Deadlines are sums of ``loop.time()`` and a delay. With rounding errors, deadlines that should be equal would
    differ, and a test would get 0.30000000000000004 instead of 0.3.
    """

    __slots__ = ()

    def __add__(self, other: float, /) -> Instant:
        return Instant(round(float(self) + other, _DIGITS))

    __radd__ = __add__

    def __sub__(self, other: float, /) -> Instant:
        return Instant(round(float(self) - other, _DIGITS))

    def __rsub__(self, other: float, /) -> Instant:
        return Instant(round(float(other) - float(self), _DIGITS))

    @property
    def seconds(self) -> float:
        """The time as a plain float without rounding errors."""
        return round(float(self), _DIGITS)

    @classmethod
    def at(cls, seconds: float) -> Instant:
        """Create a time from ``seconds``, rounded to the nanosecond."""
        return cls(round(seconds, _DIGITS))


class Due(float):
    """The time at which a timer is due, with the timer's number.

    Of two equal times, the one with the lower number is less. Without the numbers, timers for the same time could fire
    in any order, because asyncio keeps its timers on a heap.
    """

    __slots__ = ("_number",)

    def __new__(cls, seconds: float, number: int) -> Due:
        self = super().__new__(cls, seconds)
        self._number = number
        return self

    _number: int

    def __lt__(self, other: float, /) -> bool:
        if isinstance(other, Due) and float(self) == float(other):
            return self._number < other._number
        return float(self) < float(other)


SOCKET_METHODS = (
    "add_reader",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "sendfile",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
)
"""The methods of an event loop that use sockets, pipes or processes."""


class RealSocketInVirtualTime(RuntimeError):
    """A socket, a pipe or a process was requested on a loop with virtual time."""


class ProviderInVirtualTime(RuntimeError):
    """A model of a real provider was called on a loop with virtual time."""

    def __init__(self) -> None:
        super().__init__(
            "a real provider cannot be called in virtual time, which would pass before its answer came; "
            "give this code a ScriptedLLM, or run it on a real event loop (asyncio.run)"
        )


def create_refusal(name: str) -> Callable[..., NoReturn]:
    """Create a replacement for the loop's method ``name``. The replacement raises RealSocketInVirtualTime."""

    def refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
        raise RealSocketInVirtualTime(
            f"loop.{name}({given}) needs a socket, a pipe or a process, which work in real time; "
            "replace the code that calls it in this test, or run the test on a real event loop (asyncio.run)"
        )

    refuse.__name__ = name
    return refuse


class Deadlock(RuntimeError):
    """Nothing can happen any more in virtual time, but something still waits."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose virtual time begins at ``start``.

    When nothing else can happen, the time jumps to the next timer. The loop raises :class:`Deadlock` in two cases:
    there is no timer; or a worker thread makes no progress for ``watchdog_s`` real seconds.

    A reader is another thread that waits for the events of a run on this loop. If ``is_patient`` is True and there is
    no reader, the loop does not raise Deadlock in these two cases. It waits until another thread wakes it.

    ``blocked`` is the virtual loop that runs in the reader's thread; None if no virtual loop runs there. While the
    reader waits, the clock of ``blocked`` follows the clock of this loop.
    """

    def __init__(
        self,
        start: float = 0.0,
        *,
        is_patient: bool = False,
        blocked: VirtualLoop | None = None,
        watchdog_s: float = WATCHDOG_S,
    ) -> None:
        self._now = Instant.at(start)
        self._blocked = blocked
        self._numbers = itertools.count()
        self._is_patient = is_patient
        self._watchdog_s = watchdog_s
        self._silent_s = 0.0
        self._idle_looks = 0
        self._positions: dict[int, tuple[FrameType, int]] = {}
        self._idle: asyncio.Future[bool] | None = None
        self._settled_at = 0.0
        self._jumps_left: int | None = None
        self._threads: Executor | None = None
        self._executing: set[asyncio.Future[Any]] = set()
        super().__init__(_Selector(self))
        self.thread_count = Workers(self)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def wall_clock(self) -> float:
        """Return the virtual time for the ``at`` of an event; see :func:`rxflow._hooks.wall_clock`."""
        return self._now.seconds

    @property
    def now(self) -> float:
        """The virtual time in seconds, as a plain float."""
        return self._now.seconds

    def call_at(
        self, when: float, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer. Timers for the same time fire in the order in which they were set."""
        due = Instant.at(when)
        if due <= self._now < when:
            # ``when`` has a rounding error. time() must not return less than ``when``, because the timer fires now.
            self._now = Instant(when)
        return super().call_at(Due(due, next(self._numbers)), callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule ``callback`` from any thread.

        ``asyncio.run_coroutine_threadsafe`` calls this method, and returns a future. A thread that waits for that
        future counts as waiting for this loop.
        """
        watch_callback(callback, self.thread_count)
        return super().call_soon_threadsafe(callback, *args, context=context)

    async def until_idle(self, *, jumps: int | None = None, after: float = 0.0) -> bool:
        """Wait until no timer is left and nothing else can happen, and return True.

        A program may set timers forever. So ``jumps`` limits how often time may jump to a timer later than ``after``.
        If the limit is reached and such a timer is left, return False. If ``jumps`` is None, there is no limit.
        """
        self._idle, self._jumps_left, self._settled_at = self.create_future(), jumps, after
        try:
            return await self._idle
        finally:
            self._idle = None

    def advance(self, seconds: float) -> None:
        """Let time pass while this loop is blocked. Timers that become due meanwhile fire late, as on any loop."""
        self._now += seconds

    def catch_up(self, now: float) -> None:
        """Set the clock forward to ``now``, the time of another loop that ran while this loop was blocked."""
        self._now = max(self._now, Instant.at(now))

    def wait_blocked(self, wait: Callable[[float], bool]) -> bool:
        """Block this loop's own thread until ``wait`` returns True. The result is always True.

        ``wait`` is called with a time limit in real seconds, and is called again if it returns False. Raises Deadlock
        if no other thread can make ``wait`` return True.
        """
        while not wait(self._watchdog_s):
            if not self.thread_count.at_work and not self.thread_count.has_others():
                raise Deadlock(
                    f"at {self.now} s of virtual time a coroutine blocks its event loop, and no other thread can end "
                    f"that:\n{describe_threads({threading.get_ident()})}"
                )
        return True

    def refuse_provider(self) -> Exception:
        """Return the error that a call of a real provider raises; see :func:`rxflow._loops.refusal_of`."""
        return ProviderInVirtualTime()

    def let_time_pass(self, timeout: float | None) -> bool:
        """Move time to the next timer, which is ``timeout`` seconds away. If ``timeout`` is None, there is no timer.

        Return True if the loop can continue: time has moved, or :meth:`until_idle` ends. Return False if the loop must
        wait in real time, because a thread may still act. Raises Deadlock if nothing can happen any more.
        """
        if self.thread_count.at_work or (self.thread_count.waits_for_others and not self._can_only_wait()):
            return False
        if self._idle is not None and not self._idle.done() and (timeout is None or self._has_jumped_enough(timeout)):
            self._idle.set_result(timeout is None)
            return True
        if timeout is not None:
            self._now += timeout
            if self._blocked is not None and self.thread_count.has_reader:
                self._blocked.catch_up(self._now)
            return True
        if self._can_be_woken:
            return False
        raise Deadlock(
            f"at {self.now} s of virtual time nothing can happen any more: no timer is pending, no thread is at "
            f"work, and these wait:\n{self.describe_waiters()}"
        )

    def begin_silence(self) -> None:
        """Start a new silence, and forget all checks of threads. A silence is real time in which nothing happens."""
        self._silent_s = 0.0
        self._idle_looks = 0
        self._positions = {}

    def get_patience(self) -> float | None:
        """Return how many real seconds the loop may wait before it checks its threads again; None for no limit."""
        if self.thread_count.at_work:
            return self._watchdog_s / 4
        if self.thread_count.waits_for_others:
            return _CONFIRMATION_S if self._idle_looks else _RECHECK_S
        return None

    def note_silence(self, seconds: float) -> None:
        """Note that nothing has happened for another ``seconds`` of real time. Raises Deadlock if a worker is stuck."""
        self._silent_s += seconds
        if not self.thread_count.at_work or self._can_be_woken:
            return
        positions = self.thread_count.get_positions()
        if positions != self._positions:
            self._silent_s, self._positions = 0.0, positions
        elif self._silent_s >= self._watchdog_s:
            raise Deadlock(
                f"at {self.now} s of virtual time nothing has happened for {self._watchdog_s:g} s of real time: these "
                "threads wait for something that the clock cannot see (a lock, a socket, a process), or spend the time "
                f"in one call:\n{self.describe_waiters()}"
            )

    def describe_waiters(self, but: asyncio.Task[Any] | None = None) -> str:
        """Describe where each task and each worker thread of the loop is, in a few lines. Leave out the task ``but``.

        Return an empty text if there is nothing to describe.
        """
        tasks = describe_tasks(asyncio.all_tasks(self) - {but})
        return "\n".join(filter(None, [tasks, describe_threads(self.thread_count.get_idents())]))

    @property
    def _can_be_woken(self) -> bool:
        return self._is_patient and not self.thread_count.has_reader

    def _can_only_wait(self) -> bool:
        """Return whether only time can end the waits of workers, because no other thread can act.

        The result is True if two checks in a row have found no thread that can act, with a short real wait between
        them. One check is not enough, because a thread that was just woken may not have run yet. The result is also
        True after ``watchdog_s`` real seconds of silence.
        """
        if self._silent_s >= self._watchdog_s:
            return True
        self._idle_looks = 0 if self.thread_count.has_others() else self._idle_looks + 1
        return self._idle_looks > 1

    def _has_jumped_enough(self, timeout: float) -> bool:
        if self._jumps_left is not None and self._now + timeout > self._settled_at:
            self._jumps_left -= 1
            return self._jumps_left < 0
        return False

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Args], _T], *args: *_Args
    ) -> asyncio.Future[_T]:
        """Run ``func`` in ``executor``. Time stands still while ``func`` works, and may pass while ``func`` waits."""
        if executor is None:
            if self._threads is None:
                self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
            executor = self._threads
        worker = self.thread_count.work(executor)
        call: Callable[[], _T] = partial(func, *args)
        if isinstance(executor, ThreadPoolExecutor):  # another kind of executor may run the call in another process
            call = partial(worker.run, call)
        try:
            future = super().run_in_executor(executor, call)
        except BaseException:
            worker.over()
            raise
        self._executing.add(future)
        future.add_done_callback(self._executing.discard)
        future.add_done_callback(lambda _: worker.over())
        return future

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:  # type: ignore[override]
        """Run the calls that name no executor in ``executor``."""
        super().set_default_executor(executor)
        self._threads = executor

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Wait until all calls in executors have ended, and shut down the default executor as asyncio does.

        asyncio waits for the executor's threads in one more thread. Meanwhile, that thread counts as a worker.
        """
        if self._executing:
            await asyncio.wait(self._executing)
        ending = self.thread_count.work()
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            ending.over()

    def close(self) -> None:
        """Close the loop. Threads that wait in virtual time get CancelledError."""
        super().close()
        self.thread_count.close()


for _name in SOCKET_METHODS:
    setattr(VirtualLoop, _name, create_refusal(_name))


class _Selector(selectors.DefaultSelector):
    """A selector that waits in real time only while threads may act. Otherwise it lets virtual time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        self._loop.begin_silence()
        while not events and not self._loop.let_time_pass(timeout):
            patience_s = self._loop.get_patience()
            events = super().select(patience_s)
            if not events and patience_s is not None:
                self._loop.note_silence(patience_s)
        return events
