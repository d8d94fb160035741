"""The data of runs in Redis: keys, scripts that change several keys in one step, and channels that wake readers.

These are the keys; the last entry is a channel. ID stands for the id of a run:

- ``rxflow:version``: the version of the keys.
- ``rxflow:runs``: the ids of all runs, sorted by the time of their start.
- ``rxflow:run:ID``: a hash with the run's writer and the data of its :class:`Head`.
- ``rxflow:log:ID``: a stream with the events. The event with the number n has the id ``(n + 1)-0``.
- ``rxflow:lease:ID``: a key that exists while the lease of the run's worker lasts.
- ``rxflow:notes``: a stream with the notes for all runs.
- ``rxflow:wake:ID``: a channel. Each message is the number of the run's last event, or "over" when the run ends,
  pauses, is lost or is forgotten. If it is forgotten, the message before "over" is -1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from rxflow.operators._core.run_log import (
    LIVE,
    Head,
    Lease,
    Status,
    StoreError,
    no_such_run,
    read_error,
    read_spec,
    wake,
)

VERSION = 1
"""The version of these keys. It is stored under ``rxflow:version``."""

APPEND = """
local run, log, lease = 'rxflow:run:' .. ARGV[1], 'rxflow:log:' .. ARGV[1], 'rxflow:lease:' .. ARGV[1]
local writer, generation, may_begin, now, max_events, keep_ms = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local status, error, reason, spec, first_seq = ARGV[8], ARGV[9], ARGV[10], ARGV[11], tonumber(ARGV[12])
local head = redis.call('HMGET', run, 'writer', 'generation', 'last', 'status')
if not head[1] then
  if may_begin == '0' then return {'forgotten'} end
  redis.call('HSET', run, 'writer', writer, 'generation', generation, 'spec', spec, 'first', 0, 'last', -1,
             'begun_at', now, 'reason', '', 'status', 'running')
  redis.call('ZADD', 'rxflow:runs', now, ARGV[1])
  head = {writer, generation, '-1'}
end
if head[1] ~= writer then return {'refused', head[2]} end
if status == 'lost' then
  if head[4] ~= 'running' and head[4] ~= 'queued' then return {'ok'} end
  redis.call('HSET', run, 'writer', '', 'generation', head[2] + 1)
end
local last = tonumber(head[3])
if #ARGV >= 13 and first_seq > last + 1 then return {'gap', last} end
for i = 13, #ARGV do
  local seq = first_seq + i - 13
  if seq > last then
    redis.call('XADD', log, string.format('%d-0', seq + 1), 'e', ARGV[i])
    last = seq
  end
end
if head[3] == '-1' and #ARGV >= 13 then
  local rest_ms = redis.call('PTTL', run)
  if rest_ms > 0 then redis.call('PEXPIRE', log, rest_ms) end
end
redis.call('HSET', run, 'last', last, 'status', status)
if status ~= 'running' then
  redis.call('HSET', run, 'ended_at', now, 'error', error, 'reason', reason)
  redis.call('DEL', lease)
  if status == 'paused' then
    redis.call('PERSIST', run)
    redis.call('PERSIST', log)
  elseif keep_ms ~= '' then
    redis.call('PEXPIRE', run, keep_ms)
    redis.call('PEXPIRE', log, keep_ms)
  end
end
if max_events ~= '' and last >= tonumber(max_events) then
  redis.call('XTRIM', log, 'MAXLEN', max_events)
  redis.call('HSET', run, 'first', last - tonumber(max_events) + 1)
end
redis.call('PUBLISH', 'rxflow:wake:' .. ARGV[1], status == 'running' and last or 'over')
return {'ok'}
"""
CLAIM = """
local run, log, lease = 'rxflow:run:' .. ARGV[1], 'rxflow:log:' .. ARGV[1], 'rxflow:lease:' .. ARGV[1]
local writer, lease_ms, now, spec, keep_ms = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local head = redis.call('HMGET', run, 'status', 'generation', 'writer')
local generation = 1
if head[3] == writer then  -- the reply to the same claim was lost
  redis.call('SET', lease, writer, 'PX', lease_ms)
  return {'ok', unpack(redis.call('HGETALL', run))}
end
if spec ~= '' then
  if head[1] then return {'exists'} end
  redis.call('HSET', run, 'spec', spec, 'first', 0, 'last', -1, 'begun_at', now)
  redis.call('ZADD', 'rxflow:runs', now, ARGV[1])
else
  if not head[1] then return {'unknown'} end
  local is_live = head[1] == 'running' or head[1] == 'queued'
  if is_live and (head[2] == '0' or redis.call('EXISTS', lease) == 1) then return {'running'} end
  generation = tonumber(head[2]) + 1
  redis.call('HDEL', run, 'ended_at', 'error')
end
redis.call('HSET', run, 'writer', writer, 'generation', generation, 'status', 'queued', 'reason', '')
redis.call('SET', lease, writer, 'PX', lease_ms)
for _, key in ipairs({run, log}) do
  if keep_ms ~= '' then redis.call('PEXPIRE', key, lease_ms + keep_ms) else redis.call('PERSIST', key) end
end
return {'ok', unpack(redis.call('HGETALL', run))}
"""
RENEW = """
local run, log, lease = 'rxflow:run:' .. ARGV[1], 'rxflow:log:' .. ARGV[1], 'rxflow:lease:' .. ARGV[1]
local writer, lease_ms, keep_ms = ARGV[2], ARGV[3], ARGV[4]
local mine = redis.call('HMGET', run, 'writer', 'status')
if mine[1] ~= writer then return 0 end
if mine[2] ~= 'running' and mine[2] ~= 'queued' then return 1 end
redis.call('SET', lease, writer, 'PX', lease_ms)
if keep_ms ~= '' then
  redis.call('PEXPIRE', run, lease_ms + keep_ms)
  redis.call('PEXPIRE', log, lease_ms + keep_ms)
end
return 1
"""


def read_streams(replies: Any) -> Sequence[tuple[bytes, Any]]:
    """Return the name and entries of each stream in a reply to XREAD. RESP3 replies with a dict, RESP2 with a list."""
    if isinstance(replies, dict):
        return [(name, entries[0]) for name, entries in cast("dict[bytes, Any]", replies).items()]
    return cast("Sequence[tuple[bytes, Any]]", replies or [])


def read_head(run_id: str, values: Mapping[bytes, bytes], *, is_leased: bool) -> Head:
    """Return the head of a run, from the ``values`` of its hash. Raises LookupError if ``values`` is empty.

    If the stored status is live, but the worker that claimed the run has no lease, the status in the head is "lost".
    """
    if b"writer" not in values:
        raise no_such_run(run_id)
    status, generation = values[b"status"].decode(), int(values[b"generation"])
    if status in LIVE and generation and not is_leased:
        status = "lost"
    ended_at = values.get(b"ended_at")
    return Head(
        run_id=run_id,
        status=cast(Status, status),
        generation=generation,
        spec=read_spec(values[b"spec"]),
        first=int(values[b"first"]),
        last=int(values[b"last"]),
        begun_at=float(values[b"begun_at"]),
        ended_at=float(ended_at) if ended_at else None,
        error=read_error(values.get(b"error")),
        reason=values[b"reason"].decode(),
    )


if TYPE_CHECKING:
    from redis import exceptions as errors
else:
    with suppress(ModuleNotFoundError):  # see rxflow.runs.redis
        from redis import exceptions as errors


class RedisWakes:
    """Receives the messages of all channels on one connection, and wakes readers. Runs on the store's event loop."""

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
        # Maps the id of each run with a subscribed channel to the number of its last known event; -1: none is known.
        self._seen: dict[str, float] = {}
        self._work: list[asyncio.Task[None]] = []
        self._is_closed = False

    async def wait(self, run_id: str, after: int, waiting: Future[None]) -> None:
        """Arrange that ``waiting`` resolves when the run has an event after number ``after``, or is no longer live.

        ``waiting`` may resolve after this coroutine has returned.
        """
        if self._seen.get(run_id, -1) > after:
            wake(waiting)
            return
        self._waiting.setdefault(run_id, []).append((after, waiting))
        if run_id not in self._seen:
            self._seen[run_id] = -1
            if not self._work:
                # Start this task before subscribing. If subscribing fails, the task wakes other readers that
                # have begun to wait meanwhile.
                self._work.append(asyncio.create_task(self._look_for_the_dead()))
            try:
                await self._retry(lambda: self._pubsub.subscribe(f"rxflow:wake:{run_id}"))
            except BaseException:  # the next reader subscribes again; RedisLog.wait() wakes the reader of ``waiting``
                self._seen.pop(run_id, None)
                self._waiting[run_id] = [each for each in self._waiting.get(run_id, []) if each[1] is not waiting]
                raise
            if len(self._work) == 1:  # _hear() needs the connection that subscribing opens
                self._work.append(asyncio.create_task(self._hear()))

    async def close(self) -> None:
        """Unsubscribe from all channels. Futures that still wait are cancelled."""
        self._is_closed = True
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for waiting in [each for all_waiting in self._waiting.values() for _, each in all_waiting]:
            waiting.cancel()
        await self._pubsub.aclose()

    async def _hear(self) -> None:
        while not self._is_closed:  # redis-py 8.1 swallows a cancellation if something arrives at that moment
            try:
                message = await self._pubsub.get_message(timeout=1)
            except (errors.RedisError, OSError):  # redis-py subscribes again, but messages are lost until then
                await asyncio.sleep(0.1)
                await self._check(list(self._seen))
                continue
            if message is None:
                continue
            run_id = message["channel"].decode().removeprefix("rxflow:wake:")
            if message["type"] == "subscribe":  # messages from before the subscription were not received
                await self._check([run_id])
            elif message["type"] == "message":
                last = float("inf") if message["data"] == b"over" else int(message["data"])
                if run_id in self._seen and last < self._seen[run_id]:
                    # A new run with this id counts anew. Or a check has found a newer event, whose message follows.
                    self._seen[run_id] = last
                self._note_last(run_id, last)

    async def _look_for_the_dead(self) -> None:
        """Repeatedly wake the readers of runs with a lapsed lease, and unsubscribe from channels without readers."""
        were_idle: set[str] = set()
        while not self._is_closed:
            await asyncio.sleep(min(1.0, self._lease.seconds / 5))
            are_idle = {run_id for run_id in self._seen if not self._waiting.get(run_id)}
            # Unsubscribe only if two checks in a row find no reader, because a reader may be between two reads.
            idle, were_idle = are_idle & were_idle, are_idle - were_idle
            with suppress(errors.RedisError, OSError):
                if idle:
                    await self._pubsub.unsubscribe(*(f"rxflow:wake:{run_id}" for run_id in idle))
                for run_id in idle:
                    self._seen.pop(run_id, None)
                    if self._waiting.get(run_id):  # a reader came while unsubscribing
                        self._seen[run_id] = -1
                        await self._pubsub.subscribe(f"rxflow:wake:{run_id}")
            await self._check(list(self._waiting))

    async def _check(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            try:
                head = await self._look_up(run_id)
            except (LookupError, StoreError):  # woken readers read again, and get this error themselves
                self._note_last(run_id, float("inf"))
                continue
            self._note_last(run_id, head.last if head.status in LIVE else float("inf"))

    def _note_last(self, run_id: str, last: float) -> None:
        if run_id in self._seen and last != float("inf"):  # an end (inf) is not kept, because the run may start again
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
