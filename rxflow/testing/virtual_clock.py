"""``VirtualClock``: runs programs in virtual time, async and sync ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from rxflow.loops import running_loop
from rxflow.streaming import hooks
from rxflow.testing import virtual_sleep
from rxflow.testing.virtual_loop import VirtualLoop

_T = TypeVar("_T")


class VirtualClock:
    """Time that passes only where nothing else can happen, and then at once. ::

        clock = VirtualClock()
        answer = clock.run(main)      # a coroutine function: like asyncio.run, on a loop on virtual time
        assert clock.now == 3600.0

        with clock:                   # runs of sync programs, which bring a loop of their own, are virtual too
            for chunk in flow.kickoff():
                print(clock.now, chunk)

    While it is active, ``time.sleep`` in sync methods and tools passes virtual time; in other threads it is the real
    one. A clock goes on from run to run, as clocks do.
    """

    def __init__(self) -> None:
        self._past = 0.0
        self._loops: set[VirtualLoop] = set()
        self._outside: list[Callable[[], asyncio.AbstractEventLoop] | None] = []

    @property
    def now(self) -> float:
        """Virtual seconds since it was made."""
        for loop in self._loops.copy():
            self._past = max(self._past, loop.now)
            if loop.is_closed():
                self._loops.discard(loop)  # another thread may have done so
        return self._past

    def run(self, main: Callable[[], Coroutine[Any, Any, _T]] | Coroutine[Any, Any, _T]) -> _T:
        """Run ``main`` to its end on a fresh loop, and return its result.

        Raises:
            Deadlock: nothing could happen any more, and ``main`` was not done.
            RuntimeError: an event loop runs in this thread.
        """
        if running_loop() is not None:
            if not callable(main):
                main.close()
            raise RuntimeError(
                "virtual time has an event loop of its own, which cannot run where one is running already; "
                "begin it in a plain function, not in a coroutine"
            )
        with self, asyncio.Runner(loop_factory=self._new_loop) as runner:
            return runner.run(main() if callable(main) else main)

    def restart(self) -> None:
        """Back to 0, for what runs next."""
        self._loops.clear()
        self._past = 0.0

    def __enter__(self) -> Self:
        virtual_sleep.install()
        self._outside.append(hooks.loop_factory)
        hooks.loop_factory = self._new_patient_loop
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        hooks.loop_factory = self._outside.pop()
        virtual_sleep.uninstall()

    def _new_loop(self) -> VirtualLoop:
        return self._keep(VirtualLoop(self.now))

    def _new_patient_loop(self) -> VirtualLoop:
        here = running_loop()
        return self._keep(VirtualLoop(self.now, patient=True, blocked=here if isinstance(here, VirtualLoop) else None))

    def _keep(self, loop: VirtualLoop) -> VirtualLoop:
        self._loops.add(loop)
        return loop
