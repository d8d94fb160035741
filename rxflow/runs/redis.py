"""A store in Redis, for many machines. :mod:`rxflow.runs.redis_keys` describes the keys and contains the scripts.

Each store runs an event loop in a thread. It has these connections to Redis:

- one connection waits for notes (messages to the workers of runs);
- one connection receives the numbers of new events (:class:`~rxflow.runs.redis_keys.RedisWakes`);
- one connection renews leases;
- a pool of connections carries out all other commands.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rxflow._lazy import extra
from rxflow.operators._core.run_log import (
    LEASE_S,
    MAX_EVENT_BYTES,
    End,
    EventTooLargeError,
    Head,
    Lease,
    Note,
    OnNote,
    Page,
    RunExistsError,
    RunSpec,
    Status,
    Store,
    StoreError,
    Writer,
    check_after,
    is_running,
    may_hear,
    no_such_run,
    refuse,
    run_exists,
    too_large,
    wake,
    write_error,
    write_spec,
)
from rxflow.runs.redis_keys import APPEND, CLAIM, RENEW, VERSION, RedisWakes, read_head, read_streams
from rxflow.types import Event
from rxflow.types.codec import decode, encode, from_json_value, to_json_value

if TYPE_CHECKING:
    from redis import asyncio as aioredis, exceptions as errors
else:
    with suppress(ModuleNotFoundError):  # RedisLog() raises this error; the names of rxflow.runs can be imported
        from redis import asyncio as aioredis, exceptions as errors

T = TypeVar("T")

RETRY_S = 15.0
"""Seconds for which a command is retried when Redis cannot be reached."""
COMMAND_TIMEOUT_S = 5.0
NOTE_WAIT_MS = 2000
"""How many milliseconds one read waits for new notes.

The time-out of the socket must be longer, because redis-py 8 raises an error when a socket's time-out expires.
"""
MAX_CONNECTIONS = 16
"""The size of the pool. If no connection is free, commands wait. redis-py's default pool would raise an error."""
MAX_NOTES = 10_000
MAX_SEQ = 1 << 62
"""The greatest event number that a read sends to Redis, which refuses ids of more than 64 bits.

If a caller passes a greater number, the read sends ``MAX_SEQ`` instead.
"""


class RedisLog(Store):
    """A store that keeps runs in Redis 6.2 or later.

    Args:
        url: an address that redis-py accepts, such as ``"redis://host:6379/0"``.
        lease_s: seconds without a renewal after which a worker counts as dead.
        keep_s: seconds for which a run is kept after it has ended or was lost; None: until :meth:`forget` is called. A
            paused run has not ended, so it is kept.
        max_events: how many of a run's newest events are kept; None: all.

    When the connection to Redis is lost, commands are retried for 15 s. Events wait in memory meanwhile.

    Raises:
        StoreError: Redis cannot be reached, or its keys have another version.
        ImportError: redis-py is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_s: float = LEASE_S,
        keep_s: float | None = None,
        max_events: int | None = None,
    ) -> None:
        with extra("redis"):
            import_module("redis.asyncio")
        self._url = url
        self._lease = Lease(lease_s)
        self._keep_ms = "" if keep_s is None else str(max(1, round(keep_s * 1000)))
        self._max_events = "" if max_events is None else str(max_events)
        self._claims: dict[str, tuple[Writer, OnNote]] = {}
        self._last_note: str | None = None  # the id of the last note that was seen; None before the first claim
        self._work: dict[str, asyncio.Task[None]] = {}
        self._begun: set[Future[Any]] = set()
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="rxflow runs", daemon=True)
        self._thread.start()
        try:
            self._submit(self._open()).result()
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        return self._submit(self._append(writer, list(events), end))

    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        return self._submit(self._read(run_id, after, limit))

    def wait(self, run_id: str, after: int) -> Future[None]:
        waiting: Future[None] = Future()
        self._submit(self._wakes.wait(run_id, after, waiting)).add_done_callback(
            lambda done: None if done.cancelled() or not done.exception() else wake(waiting)
        )
        return waiting

    def note(self, run_id: str, note: Note) -> Future[None]:
        return self._submit(self._note(run_id, note))

    def claim(self, run_id: str, spec: RunSpec | None, on_note: OnNote) -> Future[tuple[Writer, Head]]:
        return self._submit(self._claim(run_id, spec, on_note))

    def release(self, writer: Writer) -> None:
        async def drop() -> None:
            if writer.run_id in self._claims and self._claims[writer.run_id][0] == writer:
                del self._claims[writer.run_id]

        self._submit(drop())

    def look_up(self, run_id: str) -> Future[Head]:
        return self._submit(self._look_up(run_id))

    def list(self, status: Status | None = None) -> Future[Sequence[Head]]:
        return self._submit(self._list(status))

    def forget(self, run_id: str) -> Future[None]:
        return self._submit(self._forget(run_id))

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._is_closed or not self._thread.is_alive():  # a forked process does not have the threads of its parent
            work.close()
            refused: Future[T] = Future()
            refused.set_exception(StoreError(f"the store {self._name} is closed, or was opened by another process"))
            return refused
        begun = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)
        return begun

    @property
    def _name(self) -> str:
        """The address without the user and the password, each of which may also be in the query."""
        return self._url.partition("?")[0].rpartition("@")[2]

    # All methods below run in the store's thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _open(self) -> None:
        pool = cast(Any, aioredis.BlockingConnectionPool).from_url(
            self._url,
            max_connections=MAX_CONNECTIONS,
            timeout=None,  # waiting long for a free connection is not a failure; each command has its own time-out
            socket_timeout=COMMAND_TIMEOUT_S,
            socket_connect_timeout=COMMAND_TIMEOUT_S,
        )
        self._redis: Any = aioredis.Redis(connection_pool=pool)
        pubsub = self._redis.pubsub(ignore_subscribe_messages=False)
        self._wakes = RedisWakes(pubsub, self._lease, self._look_up, self._try)
        self._append_script: Any = self._redis.register_script(APPEND)
        self._claim_script: Any = self._redis.register_script(CLAIM)
        try:
            await self._redis.set("rxflow:version", VERSION, nx=True)
            found = int(await self._redis.get("rxflow:version") or 0)
        except (errors.RedisError, OSError) as error:
            raise StoreError(f"the store {self._name} cannot be reached: {error}") from error
        if found != VERSION:
            raise StoreError(f"the store {self._name} is of version {found}; this rxflow has version {VERSION}")

    async def _shut(self) -> None:
        # finish the operations that have begun
        await asyncio.gather(*map(asyncio.wrap_future, tuple(self._begun)), return_exceptions=True)
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)
        if hasattr(self, "_redis"):
            with suppress(errors.RedisError, OSError):
                await self._wakes.close()
                await self._redis.aclose()
                await self._redis.connection_pool.disconnect()

    async def _try(self, command: Callable[[], Awaitable[T]]) -> T:
        """Run a command. If Redis cannot be reached, retry the command for ``RETRY_S`` seconds.

        Raises StoreError if Redis refuses the command, if Redis still cannot be reached after these seconds, or if the
        store is closed while Redis cannot be reached.
        """
        deadline, delay = time.monotonic() + RETRY_S, 0.02
        while True:
            try:
                return await command()
            except (errors.ConnectionError, errors.TimeoutError, errors.BusyLoadingError, OSError) as error:
                if time.monotonic() > deadline or self._is_closed:
                    closed = "was closed before Redis could be reached"
                    problem = closed if self._is_closed else f"could not be reached for {RETRY_S:g} s"
                    raise StoreError(f"the store {self._name} {problem}: {error}") from error
            except errors.RedisError as error:
                raise StoreError(f"the store {self._name} refused a command: {error}") from error
            await asyncio.sleep(delay * (0.5 + random.random()))
            delay = min(2 * delay, 0.5)

    async def _append(self, writer: Writer, events: Sequence[Event], end: End | None) -> None:
        lines: list[bytes] = []
        failure: EventTooLargeError | None = None
        for event in events:
            line = encode(event)
            if len(line) > MAX_EVENT_BYTES:
                failure = EventTooLargeError(too_large(writer.run_id, event.seq, len(line)))
                break
            lines.append(line)
        how = end if end is not None and failure is None else End("running")
        arguments = [
            writer.run_id,
            writer.id,
            writer.generation,
            int(writer.may_begin(events)),
            time.time(),
            self._max_events,
            self._keep_ms,
            how.status,
            write_error(how.error) or "",
            how.reason,
            write_spec(RunSpec()),
            events[0].seq if events else 0,
            *lines,
        ]
        reply = await self._try(lambda: self._append_script(args=arguments))
        if reply[0] == b"gap":  # possible after a failover to a replica that had not received all events
            lost = f"events {int(reply[1]) + 1} to {events[0].seq - 1}"
            raise StoreError(f"the store has lost {lost} of run {writer.run_id!r}, as after a failover; it is stopped")
        if reply[0] != b"ok":
            raise refuse(writer, int(reply[1]) if reply[0] == b"refused" else None)
        if failure is not None:
            raise failure
        if end is not None:
            self._claims.pop(writer.run_id, None)

    async def _claim(self, run_id: str, spec: RunSpec | None, on_note: OnNote) -> tuple[Writer, Head]:
        if self._last_note is None:
            newest = await self._try(lambda: self._redis.xrevrange("rxflow:notes", count=1))
            self._last_note = newest[0][0].decode() if newest else "0-0"
        writer = Writer(run_id)
        arguments = [
            run_id,
            writer.id,
            round(self._lease.seconds * 1000),
            time.time(),
            write_spec(spec) if spec is not None else "",
            self._keep_ms,
        ]
        reply = await self._try(lambda: self._claim_script(args=arguments))
        if reply[0] == b"exists":
            raise RunExistsError(run_exists(run_id))
        if reply[0] == b"running":
            raise RunExistsError(is_running(run_id))
        if reply[0] == b"unknown":
            raise no_such_run(run_id)
        head = read_head(run_id, dict(zip(reply[1::2], reply[2::2], strict=True)), is_leased=True)
        writer = Writer(run_id, writer.id, head.generation)
        self._claims[run_id] = writer, on_note
        self._keep_doing(self._renew, self._hear_notes)
        return writer, head

    async def _read(self, run_id: str, after: int, limit: int) -> Page:
        async def read() -> Any:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(f"rxflow:run:{run_id}")
                pipe.exists(f"rxflow:lease:{run_id}")
                pipe.xrange(f"rxflow:log:{run_id}", f"{min(max(after, -1), MAX_SEQ) + 2}-0", "+", limit)
                return await pipe.execute()

        values, is_leased, entries = await self._try(read)
        head = read_head(run_id, values, is_leased=bool(is_leased))
        check_after(run_id, after, head.first, head.last)
        events = [decode(fields[b"e"]) for _, fields in entries]
        return Page(events, head.status, head.last, head.error, head.reason)

    async def _look_up(self, run_id: str) -> Head:
        async def read() -> Any:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(f"rxflow:run:{run_id}")
                pipe.exists(f"rxflow:lease:{run_id}")
                return await pipe.execute()

        values, is_leased = await self._try(read)
        return read_head(run_id, values, is_leased=bool(is_leased))

    async def _list(self, status: Status | None) -> Sequence[Head]:
        names = await self._try(lambda: self._redis.zrange("rxflow:runs", 0, -1))
        heads: list[Head] = []
        for name in names:
            try:
                heads.append(await self._look_up(name.decode()))
            except LookupError:  # Redis has deleted the run, because ``keep_s`` seconds have passed
                await self._try(lambda name=name: self._redis.zrem("rxflow:runs", name))  # type: ignore[misc]
        return [head for head in heads if status in (None, head.status)]

    async def _forget(self, run_id: str) -> None:
        await self._note(run_id, Note("cancel", "the run was forgotten"))

        async def delete() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(*(f"rxflow:{kind}:{run_id}" for kind in ("run", "log", "lease")))
                pipe.zrem("rxflow:runs", run_id)
                pipe.publish(f"rxflow:wake:{run_id}", -1)  # a new run with this id begins to count anew
                pipe.publish(f"rxflow:wake:{run_id}", "over")
                await pipe.execute()

        await self._try(delete)

    async def _note(self, run_id: str, note: Note) -> None:
        head = await self._look_up(run_id)
        if not may_hear(head.status):
            return
        value = json.dumps(to_json_value(note.value))
        fields = {"run_id": run_id, "kind": note.kind, "request_id": note.request_id, "value": value}
        fields["generation"] = str(head.generation)
        await self._try(lambda: self._redis.xadd("rxflow:notes", fields, maxlen=MAX_NOTES, approximate=True))

    async def _hear_notes(self) -> None:
        """Pass new notes to the runs of this process, until the store is closed."""
        waiting = cast(Any, aioredis.Redis).from_url(self._url, socket_timeout=NOTE_WAIT_MS / 1000 + COMMAND_TIMEOUT_S)
        try:
            while not self._is_closed:  # checked because redis-py may swallow the cancellation of this task
                streams = {"rxflow:notes": self._last_note}
                try:
                    replies = await waiting.xread(streams, count=1000, block=NOTE_WAIT_MS)
                except (errors.RedisError, OSError):
                    await asyncio.sleep(0.1)
                    continue
                for _, entries in read_streams(replies):
                    for entry_id, fields in entries:
                        self._last_note = entry_id.decode()
                        self._hand_on({name.decode(): value.decode() for name, value in fields.items()})
        finally:
            await waiting.aclose()

    def _hand_on(self, fields: Mapping[str, str]) -> None:
        claim = self._claims.get(fields["run_id"])
        # A note may be read late. It must not reach a later generation of the run.
        if claim is not None and int(fields.get("generation", claim[0].generation)) == claim[0].generation:
            value = from_json_value(json.loads(fields["value"]))
            claim[1](Note(cast(Any, fields["kind"]), value, fields["request_id"]))

    async def _renew(self) -> None:
        """Renew the leases of this process's runs until the store is closed.

        Cancel the runs that were forgotten, or that another worker has taken over.
        """
        # Renewals have a connection of their own, so that they need not wait for a free connection in the pool.
        own = cast(Any, aioredis.Redis).from_url(self._url, socket_timeout=COMMAND_TIMEOUT_S)
        try:
            while not self._is_closed:
                await asyncio.sleep(self._lease.renewal_s)
                claims = list(self._claims.items())
                with suppress(errors.RedisError, OSError):  # the next renewal may succeed; otherwise the lease lapses
                    async with own.pipeline(transaction=False) as pipe:
                        for run_id, (writer, _) in claims:
                            lease_ms = round(self._lease.seconds * 1000)
                            pipe.eval(RENEW, 0, run_id, writer.id, lease_ms, self._keep_ms)
                        renewed: Sequence[Any] = await pipe.execute() if claims else []
                    for (run_id, claim), is_mine in zip(claims, renewed, strict=True):
                        # This process may have claimed the run again while it waited for the reply.
                        if not is_mine and self._claims.get(run_id) is claim:
                            del self._claims[run_id]
                            claim[1](Note("cancel", "another worker has taken over, or the run was forgotten"))
        finally:
            await own.aclose()

    def _keep_doing(self, *works: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start each of ``works`` as a task, unless it was already started. The tasks run until the store is closed."""
        for work in works:
            if work.__name__ not in self._work:
                self._work[work.__name__] = self._loop.create_task(work())
