"""The keys of runs in Redis, and the scripts that change several keys in one step.

A run ``r`` has three keys: the hash ``rxflow:run:r`` (its status and other fields), the stream ``rxflow:log:r`` (event
n has the entry id ``n+1-0``) and ``rxflow:lease:r``. Redis deletes the lease when the worker does not renew it, so
clocks of different machines are never compared. With ``keep``, the other two keys of a live run expire that many
seconds after its lease, so that lost runs are deleted too. ``rxflow:notes`` is the stream of notes for runs, and
``rxflow:runs`` is a sorted set of the run ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rxflow.operators._core.run_log import LIVE, Status, no_such_run
from rxflow.runs.store import Head, read_error, read_spec

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
  return {'ok', head[2]}
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
return {'ok', generation}
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
    """Return the name and entries of each stream in a reply to XREAD: a dict in RESP3, a list in RESP2."""
    if isinstance(replies, dict):
        return [(name, entries[0]) for name, entries in cast("dict[bytes, Any]", replies).items()]
    return cast("Sequence[tuple[bytes, Any]]", replies or [])


def read_head(run_id: str, values: Mapping[bytes, bytes], *, is_leased: bool) -> Head:
    """Return the head of a run from its hash. Raises LookupError if the hash is empty."""
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
