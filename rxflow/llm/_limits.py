"""Limits of requests and tokens per minute. LLMs with limits share a count if they have the same API key and model.

These LLMs may be in one process, or on several machines that use the same Redis. The package ``limits``
(``rxflow[limits]``) counts the requests and tokens. This module decides which call is next: the runs take turns, so
that a run with a thousand calls does not delay a run with a single call.

The methods of :class:`RateLimits` can be called on any loop. The queues and the counters are used only on the I/O loop,
so they need no lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from rxflow._lazy import extra
from rxflow._loops import call_soon
from rxflow.llm._io import get_resource, submit
from rxflow.types import UsageMetrics

if TYPE_CHECKING:
    from limits import RateLimitItem

IN_PROCESS: Final = "memory://"
MIN_WAIT_S: Final = 0.01
"""The shortest wait before a call asks for a slot again. Asking more often would only put load on the store."""
PAUSE_SCRIPT: Final = """
if redis.call("pttl", KEYS[1]) < tonumber(ARGV[1]) then
    redis.call("set", KEYS[1], 1, "px", ARGV[1])
end
"""
"""Redis runs this script in one step. If the read and the write were two steps, another machine could begin a longer
pause between them. The write would then shorten that pause."""


@dataclass(frozen=True, kw_only=True)
class RateLimits:
    """The limits of an LLM. A slot is the permission to send one request with a given number of tokens.

    Attributes:
        key: the name of the account, made from the provider, the server and a digest of the API key.
        model: the name of the model. The requests and tokens of each model are counted separately.
        max_rpm: requests per minute; None: no limit.
        max_tpm: tokens per minute, of prompts and answers; None: no limit.
        store: where the counters are: "memory://" for this process, or "redis://host:port/db" to share them.
        period: the length of the time window of both limits, in seconds. It is shorter than 60 only in tests.
    """

    key: str
    model: str
    max_rpm: int | None = None
    max_tpm: int | None = None
    store: str = IN_PROCESS
    period: int = 60

    def __post_init__(self) -> None:
        for name, value in (("max_rpm", self.max_rpm), ("max_tpm", self.max_tpm)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 per minute: {value!r}")
        if not self.store.startswith((IN_PROCESS, "redis://", "rediss://", "unix://")):
            raise ValueError(f'limit_store must be "redis://host:port/db"; got {self.store!r}')
        with extra("limits"):
            import limits  # noqa: F401  # pyright: ignore[reportUnusedImport]

    async def acquire(self, run_id: str, tokens: int) -> None:
        """Wait for a slot for a request of ``tokens`` tokens. Can be called on any loop.

        If the wait is cancelled when the store has already counted a slot for the request, the slot becomes free.
        Another request with the same limits can use the slot, if that request does not have more tokens.
        """
        waiter = _Waiter(self, tokens)
        try:
            await asyncio.wrap_future(submit(_enter(waiter, run_id)))
        except asyncio.CancelledError:
            waiter.leave()
            raise

    def settle(self, estimated: int, usage: UsageMetrics) -> None:
        """Count the tokens in ``usage`` that exceed ``estimated``. The estimate was counted before the request."""
        beyond = (usage.total_tokens or 0) - estimated
        if self.max_tpm is not None and beyond > 0:
            submit(_count(self, beyond))

    def back_off(self, delay: float) -> None:
        """Let no call with the same key and store begin for ``delay`` seconds. Calls without limits do not wait.

        Called after the provider answered with 429.
        """
        submit(_pause(self, delay))


def name_key(provider: str, base_url: str | None, api_key: str | None) -> str:
    """Return a name for the account. It contains a digest of the API key, and not the key itself."""
    digest = hashlib.sha256((api_key or "").encode()).hexdigest()[:16]
    return f"{provider}|{(base_url or '').rstrip('/')}|{digest}"


async def _enter(waiter: _Waiter, run_id: str) -> None:
    await get_resource("rate limits", _Queues).find_queue(waiter.limits).enter(waiter, run_id)


async def _count(limits: RateLimits, tokens: int) -> None:
    await get_resource("rate limits", _Queues).find_counters(limits.store).count(limits, tokens)


async def _pause(limits: RateLimits, delay: float) -> None:
    await get_resource("rate limits", _Queues).find_counters(limits.store).pause(limits.key, delay)


@dataclass(slots=True, eq=False)
class _Waiter:
    """A call that waits for a slot.

    Attributes:
        queue: the queue that the call has entered; None before that.
        slot: the slot that the call got; None if it has none.
        turn: resolves when the call has a slot. It is set when the call enters the queue.
    """

    limits: RateLimits
    tokens: int
    queue: _Queue | None = None
    slot: _Slot | None = None
    turn: asyncio.Future[None] = field(init=False)

    def leave(self) -> None:
        """Give the slot back if the call has one, because the call was cancelled. May be called in any thread.

        The call may have got its slot without noticing: between two steps of the I/O loop, or on the way to the
        caller's loop. So only the queue knows, on the I/O loop.
        """
        if self.queue is not None:  # otherwise, the cancellation also keeps the call from entering the queue
            call_soon(self.queue.loop, partial(self.queue.give_back, self))


class _Queues:
    """All queues of this process, and the connections to their stores."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str, str], _Queue] = {}
        self._counters: dict[str, _Counters] = {}

    def find_counters(self, url: str) -> _Counters:
        if url not in self._counters:
            self._counters[url] = _Counters(url)
        return self._counters[url]

    def find_queue(self, limits: RateLimits) -> _Queue:
        key = limits.store, limits.key, limits.model
        if key not in self._queues:
            self._queues[key] = _Queue(self.find_counters(limits.store))
        return self._queues[key]

    async def close(self) -> None:
        for queue in self._queues.values():
            queue.stop()
        for counters in self._counters.values():
            await counters.close()


@dataclass(slots=True)
class _Slot:
    """A slot that the store has counted. It is free if its call was cancelled before it could use the slot.

    Another call may use a free slot until the loop's clock shows ``until``: then the store no longer counts the slot.
    """

    limits: RateLimits
    tokens: int
    until: float


class _Queue:
    """The calls that wait for one model with one key. The runs take turns."""

    def __init__(self, counters: _Counters) -> None:
        self.loop = asyncio.get_running_loop()
        self._counters = counters
        self._free: list[_Slot] = []
        self._freed: asyncio.Future[None] = self.loop.create_future()  # resolves when a slot has become free
        self._waiting: dict[str, deque[_Waiter]] = {}  # by run id: the run's waiting calls. The first run is next.
        self._worker: asyncio.Task[None] | None = None

    async def enter(self, waiter: _Waiter, run_id: str) -> None:
        waiter.queue = self
        waiter.turn = self.loop.create_future()
        self._waiting.setdefault(run_id, deque()).append(waiter)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._serve())
        await waiter.turn

    def give_back(self, waiter: _Waiter) -> None:
        """Make the slot of ``waiter`` free, if there is one. The call that is next may use it at once."""
        if waiter.slot is not None:
            self._free.append(waiter.slot)
            waiter.slot = None
            if not self._freed.done():
                self._freed.set_result(None)

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()

    async def _serve(self) -> None:
        try:
            while (waiter := self._next()) is not None:
                await self._let_in(waiter)
        except Exception as error:  # noqa: BLE001 - raised by the waiting calls
            waiting = [waiter for waiters in self._waiting.values() for waiter in waiters]
            self._waiting.clear()
            for waiter in waiting:
                if not waiter.turn.done():
                    waiter.turn.set_exception(error)

    def _next(self) -> _Waiter | None:
        """Return the first waiting call of the run whose turn it is; None if no call waits.

        The call stays in the queue, so that it gets the error if the store fails.
        """
        while self._waiting:
            run_id, waiters = next(iter(self._waiting.items()))
            while waiters and waiters[0].turn.done():
                waiters.popleft()
            if waiters:
                return waiters[0]
            del self._waiting[run_id]
        return None

    async def _let_in(self, waiter: _Waiter) -> None:
        slot: _Slot | None = None
        while not waiter.turn.done():
            self._freed = self.loop.create_future()
            slot = self._take_free(waiter)
            if slot is not None:
                break
            until = asyncio.get_running_loop().time() + waiter.limits.period  # the store's answer may take a while
            delay = await self._counters.take(waiter.limits, waiter.tokens)
            if delay <= 0:
                slot = _Slot(waiter.limits, waiter.tokens, until)
                break
            # The wait ends early if the call is cancelled, or if a slot becomes free.
            await asyncio.wait([waiter.turn, self._freed], timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        if slot is not None:
            if waiter.turn.done():
                self._free.append(slot)
            else:
                waiter.slot = slot
                waiter.turn.set_result(None)
        run_id, waiters = next(iter(self._waiting.items()))
        self._waiting[run_id] = self._waiting.pop(run_id)  # moves the run to the end
        waiters.popleft()

    def _take_free(self, waiter: _Waiter) -> _Slot | None:
        """Take a free slot that is large enough. Return None if there is none."""
        now = asyncio.get_running_loop().time()
        self._free = [slot for slot in self._free if slot.until > now]
        for slot in self._free:
            if slot.limits == waiter.limits and slot.tokens >= waiter.tokens:
                self._free.remove(slot)
                return slot
        return None


class _Counters:
    """The counters, in memory or in Redis."""

    def __init__(self, url: str) -> None:
        with extra("limits"):
            from limits.aio import storage, strategies
        self._paused_until: dict[str, float] = {}  # by key: the loop's time at the end of the pause; unused with Redis
        if url.startswith(IN_PROCESS):
            self._storage: Any = storage.MemoryStorage()
            self._bridge: Any = None
        else:
            with extra("redis"):
                self._storage = storage.RedisStorage(f"async+{url}", implementation="redispy", key_prefix="rxflow")
            self._bridge = self._storage.bridge
            self._pause_script: Any = self._bridge.storage.register_script(PAUSE_SCRIPT)
        self._requests: Any = strategies.MovingWindowRateLimiter(self._storage)
        self._tokens: Any = strategies.SlidingWindowCounterRateLimiter(self._storage)

    async def take(self, limits: RateLimits, tokens: int) -> float:
        """Take a slot for a request of ``tokens`` tokens, and return 0.

        If no slot is free, return the seconds after which to try again.
        """
        pause = await self._read_pause(limits.key)
        if pause > 0:
            return pause
        name, items = (limits.key, limits.model), self._items(limits, tokens)
        for limiter, item, cost in items:
            if not await limiter.test(item, *name, cost=cost):
                stats = await limiter.get_window_stats(item, *name)
                return max(MIN_WAIT_S, min(float(stats.reset_time) - time.time(), limits.period))
        # Another machine may take the last slot between the tests and this line. If only one of the two limits then
        # refuses the request, the other limit has counted the request in vain. So slightly fewer requests are sent.
        taken = [await limiter.hit(item, *name, cost=cost) for limiter, item, cost in items]
        return 0.0 if all(taken) else MIN_WAIT_S

    async def count(self, limits: RateLimits, tokens: int) -> None:
        """Count ``tokens``, which were already used. If less is left of the limit, count only what is left."""
        item, name = _item(limits.max_tpm or 1, limits.period, "tokens"), (limits.key, limits.model)
        stats = await self._tokens.get_window_stats(item, *name)
        if stats.remaining:
            await self._tokens.hit(item, *name, cost=min(tokens, stats.remaining))

    async def pause(self, key: str, delay: float) -> None:
        """Let no call with ``key`` begin for ``delay`` seconds, rounded up to whole seconds.

        If there is already a longer pause, do nothing.
        """
        seconds = max(1, math.ceil(delay))
        if self._bridge is not None:
            name = self._bridge.prefixed_key(_name_pause(key))
            await self._pause_script(keys=[name], args=[1000 * seconds])
        else:
            until = asyncio.get_running_loop().time() + seconds
            self._paused_until[key] = max(until, self._paused_until.get(key, until))

    async def _read_pause(self, key: str) -> float:
        """Return how many seconds are left of the pause of ``key``, at least ``MIN_WAIT_S``. If there is none: 0."""
        if self._bridge is not None:
            name = _name_pause(key)
            if not await self._storage.get(name):
                return 0.0
            left = float(await self._storage.get_expiry(name)) - time.time()
        else:
            left = self._paused_until.get(key, 0.0) - asyncio.get_running_loop().time()
            if left <= 0:
                return 0.0
        return max(MIN_WAIT_S, left)

    async def close(self) -> None:
        timer: asyncio.Task[None] | None = getattr(self._storage, "timer", None)
        if timer is not None:
            timer.cancel()
        if self._bridge is not None:
            await self._bridge.storage.aclose()

    def _items(self, limits: RateLimits, tokens: int) -> list[tuple[Any, RateLimitItem, int]]:
        items: list[tuple[Any, RateLimitItem, int]] = []
        if limits.max_rpm is not None:
            items.append((self._requests, _item(limits.max_rpm, limits.period, "requests"), 1))
        if limits.max_tpm is not None:
            # A request with more tokens than max_tpm is counted with max_tpm tokens. Otherwise it could never begin.
            items.append((self._tokens, _item(limits.max_tpm, limits.period, "tokens"), min(tokens, limits.max_tpm)))
        return items


def _name_pause(key: str) -> str:
    return f"rxflow-pause|{key}"


@cache
def _item(amount: int, period: int, namespace: str) -> RateLimitItem:
    from limits import RateLimitItemPerSecond

    class Item(RateLimitItemPerSecond):
        def key_for(self, *identifiers: bytes | str | float) -> str:
            """Return the counter's name. It does not contain the amount, so all amounts share the counter."""
            return "/".join(map(str, (self.namespace, *identifiers, self.multiples)))

    return Item(amount, period, namespace=f"rxflow-{namespace}")
