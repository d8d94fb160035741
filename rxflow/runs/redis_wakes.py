"""Wakes readers that wait for new events of runs in Redis, with one channel per run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from rxflow._lazy import extra
from rxflow.operators._core.run_log import LIVE, StoreError
from rxflow.runs.lease import Lease
from rxflow.runs.store import Head, wake

with extra("redis"):
    from redis import exceptions as errors


class RedisWakes:
    """Receives the messages of all channels on one connection, and wakes readers. Used on the store's event loop."""

    def __init__(
        self,
        pubsub: Any,
        lease: Lease,
        look_up: Callable[[str], Awaitable[Head]],
        retry: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        self._pubsub = pubsub
        self._retry = retry
        self._lease = lease
        self._look_up = look_up
        self._waiting: dict[str, list[tuple[int, Future[None]]]] = {}
        # the number of the last known event of each run whose channel is subscribed; -1 if none is known yet
        self._seen: dict[str, float] = {}
        self._work: list[asyncio.Task[None]] = []
        self._is_closed = False

    async def wait(self, run_id: str, after: int, waiting: Future[None]) -> None:
        """Resolve ``waiting`` when the run has an event above ``after``, or has ended, or is lost."""
        if self._seen.get(run_id, -1) > after:
            wake(waiting)
            return
        self._waiting.setdefault(run_id, []).append((after, waiting))
        if run_id not in self._seen:
            self._seen[run_id] = -1
            if not self._work:
                # Before subscribing, so that readers that come meanwhile are woken even if subscribing fails.
                self._work.append(asyncio.create_task(self._look_for_the_dead()))
            try:
                await self._retry(lambda: self._pubsub.subscribe(f"rxflow:wake:{run_id}"))
            except BaseException:  # the next reader subscribes again; the caller wakes this one
                self._seen.pop(run_id, None)
                self._waiting[run_id] = [each for each in self._waiting.get(run_id, []) if each[1] is not waiting]
                raise
            if len(self._work) == 1:  # started after subscribing, which opens the connection that it reads
                self._work.append(asyncio.create_task(self._hear()))

    async def close(self) -> None:
        """Unsubscribe from everything. Futures that still wait are cancelled."""
        self._is_closed = True
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for waiting in [each for all_waiting in self._waiting.values() for _, each in all_waiting]:
            waiting.cancel()
        await self._pubsub.aclose()

    async def _hear(self) -> None:
        """Receive messages, and wake the readers that wait for them."""
        while not self._is_closed:  # redis-py 8.1 swallows a cancellation if something arrives at that moment
            try:
                message = await self._pubsub.get_message(timeout=1)
            except (errors.RedisError, OSError):  # redis-py subscribes again, but meanwhile messages are lost
                await asyncio.sleep(0.1)
                await self._check(list(self._seen))
                continue
            if message is None:
                continue
            run_id = message["channel"].decode().removeprefix("rxflow:wake:")
            if message["type"] == "subscribe":  # messages from before the subscription were not received
                await self._check([run_id])
            elif message["type"] == "message":
                self._note_last(run_id, float("inf") if message["data"] == b"over" else int(message["data"]))

    async def _look_for_the_dead(self) -> None:
        """Wake the readers of runs whose lease has lapsed. Unsubscribe from channels without readers."""
        were_idle: set[str] = set()
        while not self._is_closed:
            await asyncio.sleep(min(1.0, self._lease.seconds / 5))
            are_idle = {run_id for run_id in self._seen if not self._waiting.get(run_id)}
            # two checks in a row, because a reader may be between two reads
            idle, were_idle = are_idle & were_idle, are_idle - were_idle
            with suppress(errors.RedisError, OSError):
                if idle:
                    await self._pubsub.unsubscribe(*(f"rxflow:wake:{run_id}" for run_id in idle))
                for run_id in idle:
                    self._seen.pop(run_id, None)
                    if self._waiting.get(run_id):  # a reader has come just now
                        self._seen[run_id] = -1
                        await self._pubsub.subscribe(f"rxflow:wake:{run_id}")
            await self._check(list(self._waiting))

    async def _check(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            try:
                head = await self._look_up(run_id)
            except (LookupError, StoreError):  # the readers get the same error when they are woken
                self._note_last(run_id, float("inf"))
                continue
            self._note_last(run_id, head.last if head.status in LIVE else float("inf"))

    def _note_last(self, run_id: str, last: float) -> None:
        if run_id in self._seen and last != float("inf"):  # an end is not kept, because the run may start again
            # A message that arrived during a check may be newer than what the check found.
            self._seen[run_id] = max(last, self._seen[run_id])
        still: list[tuple[int, Future[None]]] = []
        for after, waiting in self._waiting.pop(run_id, []):
            if last > after:
                wake(waiting)
            elif not waiting.cancelled():
                still.append((after, waiting))
        if still:
            self._waiting[run_id] = still
