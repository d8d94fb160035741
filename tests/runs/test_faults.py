"""Stores that cannot be opened, read or written: a clear error, and nothing lost."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from reactivex import operators as rxops
from redis.asyncio.client import Pipeline, PubSub
from redis.commands.core import AsyncScript

from rxflow import operators as ops
from rxflow.operators._core.run_log import MAX_EVENT_BYTES, End, Note, RunSpec, Status, Writer
from rxflow.runs import EventTooLargeError, NotTheWriterError, RunExistsError, RunLost, Runs, SQLiteLog, StoreError
from rxflow.runs.redis import RedisLog
from rxflow.runs.sqlite_tables import APPLICATION_ID, Tables
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import Custom
from tests.gate import Gate
from tests.runs.conftest import LEASE_S, ROOT
from tests.runs.flows import Count, Endless, Twice
from tests.runs.redis_server import RedisServer
from tests.signals import signals_of

HERE = "tests.runs.flows"


def chunks(first: int, count: int) -> list[StreamChunk]:
    return [StreamChunk(content=str(number), seq=number) for number in range(first, first + count)]


class TestPort:
    """What each store promises to whoever writes to it."""

    def test_a_repeated_batch_is_left_out(self, runs: Runs) -> None:
        """As after a reply that was lost on its way."""
        writer = Writer("r")
        runs.store.append(writer, chunks(0, 3)).result()
        runs.store.append(writer, chunks(0, 3)).result()
        runs.store.append(writer, chunks(2, 3)).result()
        assert [event.seq for event in runs.store.read("r", -1, 100).result().events] == [0, 1, 2, 3, 4]

    def test_another_writer_is_refused(self, runs: Runs) -> None:
        runs.store.append(Writer("r"), chunks(0, 3)).result()
        with pytest.raises(RunExistsError, match=r"^run 'r' has begun already"):
            runs.store.append(Writer("r"), chunks(0, 1)).result()

    def test_so_is_one_of_an_older_generation(self, runs: Runs) -> None:
        run = runs.start(Twice())
        run.result(20)
        (old, _) = runs.store.claim(run.id, None, lambda note: None).result()
        runs.store.release(old)
        runs.store.append(old, [], None).result()
        with pytest.raises(NotTheWriterError, match=r"is written by another worker now: this one was taken for dead"):
            runs.store.append(Writer(run.id, generation=1), chunks(50, 1)).result()

    def test_so_is_one_that_was_seen_to_die_and_comes_back(self, runs: Runs) -> None:
        (writer, _) = runs.store.claim("r", RunSpec(), lambda note: None).result()
        runs.store.append(writer, chunks(0, 3)).result()
        runs.store.append(writer, [], End("lost")).result()
        with pytest.raises(NotTheWriterError, match=r"is written by another worker now: this one was taken for dead"):
            runs.store.append(writer, chunks(3, 1)).result()
        head = runs.store.look_up("r").result()
        assert (head.status, head.last, head.generation) == ("lost", 2, 2)
        assert runs.store.claim("r", None, lambda note: None).result()[0].generation == 3

    def test_a_run_that_is_over_is_not_lost_when_its_writer_dies(self, runs: Runs) -> None:
        (writer, _) = runs.store.claim("r", RunSpec(), lambda note: None).result()
        runs.store.append(writer, chunks(0, 3), End("completed")).result()
        runs.store.append(writer, [], End("lost")).result()
        head = runs.store.look_up("r").result()
        assert (head.status, head.generation) == ("completed", 1)

    def test_so_is_one_whose_run_was_forgotten(self, runs: Runs) -> None:
        writer = Writer("r")
        runs.store.append(writer, chunks(0, 3)).result()
        runs.forget("r")
        with pytest.raises(NotTheWriterError, match=r"^run 'r' was forgotten: its worker must stop$"):
            runs.store.append(writer, chunks(3, 1)).result()

    def test_an_event_that_is_too_large_is_refused_and_those_before_it_are_kept(self, store: str) -> None:
        origin = Origin(flow_name="Trip")
        large = Custom(origin=origin, name="file", value="x" * MAX_EVENT_BYTES, seq=1)
        with Runs(store) as runs:
            batch = [Custom(origin=origin, name="note", value="small", seq=0), large]
            with pytest.raises(EventTooLargeError, match=r"^event 1 of run 'r' has \d+ bytes; the store takes at most"):
                runs.store.append(Writer("r"), batch).result()
            assert runs.store.read("r", -1, 10).result().events == batch[:1]

    def test_an_id_that_is_not_a_text_is_refused_before_the_store_gets_it(self, runs: Runs) -> None:
        """A store that writes for several runs at once would fail for all of them."""
        wrong: Any = UUID(int=1)
        for ask in (
            lambda: runs[wrong],
            lambda: runs.forget(wrong),
            lambda: runs.start(Twice(), run_id=wrong),
            lambda: asyncio.run(runs.start_async(Twice(), run_id=wrong)),
            lambda: ops.log_to(runs.store, wrong),
            lambda: ops.from_log(runs.store, wrong),
        ):
            with pytest.raises(TypeError, match=r"^run_id must be a string; got UUID\('0000.*'\)$"):
                ask()

    def test_pages_have_so_many_events(self, runs: Runs) -> None:
        runs.store.append(Writer("r"), chunks(0, 10)).result()
        page = runs.store.read("r", 3, 4).result()
        assert ([event.seq for event in page.events], page.last) == ([4, 5, 6, 7], 9)

    @pytest.mark.parametrize("end", ["failed", "lost"])
    def test_a_note_for_a_generation_that_is_over_does_not_reach_the_next_one(self, store: str, end: Status) -> None:
        notes: list[object] = []
        has_heard, may_go_on = Gate(), Gate()

        def hear(note: Note) -> None:
            notes.append(note.value)
            if note.value == "in time":
                has_heard.open()

        def hold_up(_: Note) -> None:
            """Hold up the store's thread, so that the notes that follow come late, and not all at once."""
            may_go_on.wait()

        with Runs(store) as here, Runs(store) as elsewhere:
            (writer, _) = here.store.claim("r", RunSpec(), notes.append).result()
            here.store.append(writer, [], End(end)).result()
            here.store.claim("busy", RunSpec(), hold_up).result()
            for noted in [elsewhere.store.note("busy", Note("reader", 1, "someone")) for _ in range(1000)]:
                noted.result()
            elsewhere["r"].cancel("too late")
            claim = here.store.claim("r", None, hear)
            may_go_on.open()
            claim.result()
            elsewhere["r"].cancel("in time")
            has_heard.wait()
            assert notes == ["in time"]

    def test_a_reader_that_never_reads_holds_up_nobody(self, runs: Runs) -> None:
        """Nothing is kept for it but its place in the log."""
        run = runs.start(Count(), {"count": 50})
        output = run.output()
        next(iter(output))
        assert run.result(20).endswith("n49")
        output.close()

    def test_a_wait_that_is_given_up_leaves_nothing(self, runs: Runs) -> None:
        run = runs.start(Endless())
        with run.output() as output:
            next(iter(output))
        for _ in range(100):
            runs.store.wait(run.id, 10_000).cancel()
        assert runs.store.look_up(run.id).result().run_id == run.id


class TestSQLite:
    def test_a_folder_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=rf"^the store {tmp_path}/no/runs.db cannot be opened: its folder must"):
            Runs(f"sqlite:///{tmp_path}/no/runs.db")

    def test_a_file_that_is_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "runs.db").write_text("hello" * 1000)
        with pytest.raises(StoreError, match=r"runs.db is not an SQLite file: "):
            Runs(f"sqlite:///{tmp_path}/runs.db")

    def test_another_programs_file(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "runs.db") as db:
            db.execute("CREATE TABLE songs (name TEXT)")
        db.close()
        with pytest.raises(StoreError, match=r"runs.db is not a store of runs, but another SQLite file; choose"):
            Runs(f"sqlite:///{tmp_path}/runs.db")

    def test_a_store_of_another_version(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "runs.db") as db:
            db.execute("CREATE TABLE runs (run_id TEXT)")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute("PRAGMA user_version = 7")
        db.close()
        with pytest.raises(StoreError, match=r"runs.db has version 7; this rxflow has version 3$"):
            Runs(f"sqlite:///{tmp_path}/runs.db")

    def test_one_that_another_program_holds(self, tmp_path: Path) -> None:
        with Runs(SQLiteLog(tmp_path / "runs.db", busy_s=0.1)) as runs:
            holder = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match=r"runs.db is locked: another process holds it"):
                runs.start(Twice())
            holder.execute("ROLLBACK")
            holder.close()
            assert runs.start(Twice()).result(20) == "threefour"

    def test_a_run_whose_store_is_full_is_stopped_and_its_readers_are_told(self, tmp_path: Path) -> None:
        program = textwrap.dedent("""
            import resource, sys
            from rxflow.runs import Runs, StoreError
            from tests.runs.flows import Count
            with Runs(sys.argv[1], lease=3) as runs:
                runs.start(Count(), {"count": 1}).result()
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
                run = runs.start(Count(), {"count": 2000})
                try:
                    for chunk in run.output():
                        pass
                except Exception as error:
                    print(type(error).__name__, error)
                print(run.status)
        """)
        command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/runs.db"]
        printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout
        error, status = printed.splitlines()
        assert (error.split()[0], status) in {("RunLost", "lost"), ("StoreError", "failed")}

    def test_a_file_that_may_not_be_written(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            tmp_path.chmod(0o700)  # root may write anywhere: a folder in place of the file stands for it
            (tmp_path / "runs.db").mkdir()
        else:
            tmp_path.chmod(0o500)
        with pytest.raises(StoreError, match=r"runs.db cannot be (opened|written)"):
            Runs(f"sqlite:///{tmp_path}/runs.db")
        tmp_path.chmod(0o700)

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        runs = Runs(f"sqlite:///{tmp_path}/runs.db")
        runs.close()
        runs.close()
        with pytest.raises(StoreError, match=r"runs.db is closed$"):
            runs.list()

    def test_a_reader_that_begins_to_wait_in_a_locked_file_is_woken(self, tmp_path: Path) -> None:
        is_busy, may_go_on = Gate(), Gate()

        def hold_up(_: Note) -> None:
            """Hold up the store's thread, so that it does the jobs that follow in one transaction."""
            is_busy.open()
            may_go_on.wait()

        with (
            Runs(SQLiteLog(tmp_path / "runs.db", busy_s=0.1)) as runs,
            closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as holder,
        ):
            runs.store.claim("r", RunSpec(), hold_up).result()
            runs.store.note("r", Note("reader", 1, "someone")).result()
            is_busy.wait()
            holder.execute("BEGIN IMMEDIATE")
            noted = runs.store.note("r", Note("reader", 1, "someone"))
            waiting = runs.store.wait("r", -1)
            may_go_on.open()
            with pytest.raises(StoreError, match=r"runs.db is locked: another process holds it"):
                noted.result(20)
            waiting.result(20)  # it may read now, and gets the error if there is one
            holder.execute("ROLLBACK")

    def test_so_is_one_that_begins_to_wait_in_a_closed_store(self, tmp_path: Path) -> None:
        with Runs(f"sqlite:///{tmp_path}/runs.db") as runs:
            runs.store.append(Writer("r"), chunks(0, 3)).result()
        runs.store.wait("r", 2).result(20)

    def test_a_renewal_that_fails_stops_no_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        has_failed = Gate()

        def fail(*_: object) -> bool:
            has_failed.open()
            raise sqlite3.OperationalError("disk I/O error")

        with Runs(f"sqlite:///{tmp_path}/runs.db", lease=LEASE_S) as runs:
            monkeypatch.setattr(Tables, "renew", fail)
            (writer, _) = runs.store.claim("r", RunSpec(), lambda note: None).result()
            has_failed.wait()
            runs.store.append(writer, chunks(0, 3)).result(20)
            assert runs.store.look_up("r").result().last == 2

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_store_whose_thread_has_died_does_not_blame_another_process(self, tmp_path: Path) -> None:
        def die(_: Note) -> None:
            raise RuntimeError("a fault of the listener")

        with Runs(f"sqlite:///{tmp_path}/runs.db") as runs:
            runs.store.claim("r", RunSpec(), die).result()
            waiting = runs.store.wait("r", -1)
            runs.store.note("r", Note("cancel", "")).result()
            with pytest.raises(CancelledError):
                waiting.result(20)
            with pytest.raises(StoreError, match=r"runs.db has stopped: its thread has died; open it anew$"):
                runs.list()

    def test_runs_are_there_when_it_is_opened_again(self, tmp_path: Path) -> None:
        with Runs(f"sqlite:///{tmp_path}/runs.db") as runs:
            runs.start(Twice(), run_id="r").result(20)
        with Runs(f"sqlite:///{tmp_path}/runs.db") as runs:
            assert runs["r"].result(20) == "threefour"

    def test_a_run_that_an_older_rxflow_stored_is_read(self, tmp_path: Path) -> None:
        """Its spec does not say how long questions wait for an answer."""
        with Runs(f"sqlite:///{tmp_path}/runs.db") as runs:
            runs.start(Twice(), run_id="r", answer_within=60).result(20)
        with closing(sqlite3.connect(tmp_path / "runs.db")) as db, db:
            db.execute("UPDATE runs SET spec = json_remove(spec, '$.answer_within')")
        with Runs(f"sqlite:///{tmp_path}/runs.db") as runs:
            assert runs["r"].result(20) == "threefour"
            assert runs["r"].look_up().spec.answer_within is None

    def test_many_threads_open_a_new_file_at_once(self, tmp_path: Path) -> None:
        logs: list[SQLiteLog] = []
        threads = [threading.Thread(target=lambda: logs.append(SQLiteLog(tmp_path / "runs.db"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(logs) == 8
        for log in logs:
            log.close()


class TestRedis:
    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(StoreError, match=r"^the store 127.0.0.1:1/0 cannot be reached: "):
            Runs("redis://:secret@127.0.0.1:1/0")

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://127.0.0.1:1/0?password=s@cret", "redis://127.0.0.1:1/0"),
            ("unix:///no/redis.sock?password=s@cret", "unix:///no/redis.sock"),
            ("unix://someone:s%40cret@/no/redis.sock", "/no/redis.sock"),
        ],
    )
    def test_its_password_is_not_shown(self, url: str, shown: str) -> None:
        with pytest.raises(StoreError, match=rf"^the store {shown} cannot be reached: ") as raised:
            Runs(RedisLog(url))
        assert "cret" not in str(raised.value)

    def test_a_store_of_another_version(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server:
            subprocess.run(["redis-cli", "-p", str(server.port), "set", "rxflow:version", "7"], check=True)
            with pytest.raises(StoreError, match=r"is of version 7; this rxflow has version 1$"):
                Runs(server.url)

    @pytest.mark.slow
    def test_one_that_is_full_stops_the_run_and_its_readers_are_told(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server, Runs(server.url, lease=3) as runs:
            run = runs.start(Count(), {"count": 10_000, "gap_ms": 2})
            run.observe().pipe(rxops.element_at(20)).run()
            command = ["redis-cli", "-p", str(server.port), "config", "set", "maxmemory", "1"]
            subprocess.run(command, check=True, capture_output=True)
            assert run.worker is not None
            with pytest.raises(StoreError, match="used memory > 'maxmemory'"):
                run.worker.done.result(20)
            subprocess.run([*command[:-1], "0"], check=True, capture_output=True)
            seen = signals_of(run.observe())
            texts = [str(chunk) for chunk in seen.items]
            assert len(texts) >= 20
            assert texts == [f"n{number}" for number in range(len(texts))]
            assert isinstance(seen.errors[0], RunLost)

    @pytest.mark.slow
    def test_while_it_is_gone_nothing_is_lost(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server, Runs(server.url, lease=LEASE_S) as runs:
            run = runs.start(Count(), {"count": 300, "gap_ms": 5})
            run.observe().pipe(rxops.first()).run()
            texts: list[str] = []
            with run.output() as output:
                for chunk in output:
                    texts.append(str(chunk))
                    if len(texts) == 20:
                        server.stop()
                        server.start()
            assert texts == [f"n{number}" for number in range(300)]
            assert [str(chunk) for chunk in signals_of(run.observe()).items] == texts

    def test_a_claim_whose_reply_is_lost_does_not_refuse_itself(
        self, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = AsyncScript.__call__
        runs_of_the_script: list[AsyncScript] = []

        async def lose_first_reply(script: AsyncScript, *given: Any, **named: Any) -> Any:
            reply = await call(script, *given, **named)
            runs_of_the_script.append(script)
            if len(runs_of_the_script) == 1:
                raise redis.TimeoutError("the reply is lost")
            return reply

        with Runs(shared_redis.url) as runs:
            run = runs.start(Twice())
            run.result(20)
            monkeypatch.setattr(AsyncScript, "__call__", lose_first_reply)
            (writer, head) = runs.store.claim("lost reply", RunSpec(), lambda note: None).result()
            assert (writer.generation, head.status, len(runs_of_the_script)) == (1, "queued", 2)
            runs_of_the_script.clear()
            (writer, head) = runs.store.claim(run.id, None, lambda note: None).result()
            assert (writer.generation, head.status, len(runs_of_the_script)) == (2, "queued", 2)
            with pytest.raises(RunExistsError):
                runs.store.claim(run.id, None, lambda note: None).result()

    def test_a_claim_needs_no_second_command_that_could_fail(
        self, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that was claimed, but not handed to a worker, would be queued forever."""

        async def fail(*_: object, **__: object) -> Any:
            raise redis.ConnectionError("Redis is gone")

        with Runs(shared_redis.url, lease=LEASE_S) as runs:
            with monkeypatch.context() as patch:
                patch.setattr("rxflow.runs.redis.RETRY_S", 0)
                patch.setattr(Pipeline, "execute", fail)
                (writer, head) = runs.store.claim("in one step", RunSpec(target="a:b"), lambda note: None).result()
            assert head == runs.store.look_up("in one step").result()
            assert (head.status, head.generation, writer.generation) == ("queued", 1, 1)
            runs.store.append(writer, chunks(0, 3), End("paused")).result()
            (writer, head) = runs.store.claim("in one step", None, lambda note: None).result()
            assert head == runs.store.look_up("in one step").result()
            assert (head.status, head.last, head.generation, writer.generation) == ("queued", 2, 2, 2)

    def test_a_late_renewal_of_an_older_generation_does_not_stop_the_newer_one(
        self, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        execute: Any = Pipeline.execute
        notes: list[object] = []
        is_renewing, may_go_on, has_renewed = Gate(), Gate(), Gate()

        async def hold_up(pipeline: Any, *given: Any, **named: Any) -> Any:
            if not pipeline.is_transaction:  # only renewals are not
                (has_renewed if is_renewing.is_open else is_renewing).open()
                await may_go_on.passed()
            return await execute(pipeline, *given, **named)

        with Runs(shared_redis.url, lease=0.3) as runs:
            monkeypatch.setattr(Pipeline, "execute", hold_up)
            (writer, _) = runs.store.claim("renewed late", RunSpec(), notes.append).result()
            is_renewing.wait()
            runs.store.append(writer, [], End("paused")).result()
            runs.store.claim("renewed late", None, notes.append).result()
            may_go_on.open()
            has_renewed.wait(20)
            assert notes == []

    def test_readers_that_come_after_a_failed_one_are_woken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with RedisServer(tmp_path) as server, Runs(server.url) as runs:
            writer = Writer("r")
            runs.store.append(writer, chunks(0, 1)).result()
            server.stop()
            with monkeypatch.context() as patch:
                patch.setattr("rxflow.runs.redis.RETRY_S", 0.1)
                with pytest.raises(StoreError):  # the connections are given up
                    runs.store.look_up("r").result()
                waiting = [runs.store.wait("r", 0) for _ in range(2)]
                waiting[0].result(20)  # it may read now, and gets the error
            server.start()
            waiting.append(runs.store.wait("r", 0))
            runs.store.append(writer, chunks(1, 1)).result()
            for each in waiting:
                each.result(20)

    def test_a_reader_of_a_new_run_is_not_woken_by_the_forgotten_run_of_the_same_id(
        self, shared_redis: RedisServer
    ) -> None:
        """It would read nothing, wait, and be woken again."""
        with Runs(shared_redis.url, lease=LEASE_S) as runs:
            runs.store.append(Writer("twice"), chunks(0, 5)).result()
            runs.store.wait("twice", -1).result(20)
            waiting = runs.store.wait("twice", 4)
            runs.store.look_up("twice").result()  # the store has begun to wait
            runs.forget("twice")
            waiting.result(20)
            for first in range(2):
                runs.store.append(Writer("twice", "new"), chunks(first, 1)).result()
                runs.store.wait("twice", first - 1).result(20)
                waiting = runs.store.wait("twice", first)
                runs.store.look_up("twice").result()  # the store has begun to wait
                assert not waiting.done()

    def test_closing_the_store_finishes_what_has_begun(self, shared_redis: RedisServer) -> None:
        runs = Runs(shared_redis.url)
        (_, head) = runs.store.claim("held up", RunSpec(), lambda note: None).result()
        command = ["redis-cli", "-p", str(shared_redis.port), "client", "pause", "500", "all"]
        subprocess.run(command, check=True, capture_output=True)
        asked = runs.store.look_up("held up"), runs.store.claim("new", RunSpec(), lambda note: None)
        runs.close()
        assert asked[0].result(20).begun_at == head.begun_at
        assert asked[1].result(20)[1].status == "queued"

    def test_closing_the_store_ends_though_redis_py_swallows_a_cancellation(
        self, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As it does when a message arrives at that moment."""
        get_message: Any = PubSub.get_message

        async def swallow(pubsub: PubSub, *given: Any, **named: Any) -> Any:
            try:
                return await get_message(pubsub, *given, **named)
            except asyncio.CancelledError:
                return None

        monkeypatch.setattr(PubSub, "get_message", swallow)
        runs = Runs(shared_redis.url)
        (writer, _) = runs.store.claim("heard", RunSpec(), lambda note: None).result()
        waiting = runs.store.wait("heard", -1)
        runs.store.append(writer, chunks(0, 1)).result()
        waiting.result(20)
        closing = threading.Thread(target=runs.close, daemon=True)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()

    def test_a_command_that_fails_while_the_store_is_closed_says_so(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server:
            runs = Runs(server.url)
            server.stop()
            asked = runs.store.look_up("r")
            runs.close()
            with pytest.raises(StoreError, match=r"was closed before Redis could be reached: "):
                asked.result(20)

    def test_a_replica_that_lacks_the_last_events_ends_the_run(self, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server, Runs(server.url) as runs:
            run = runs.start(Count(), {"count": 10_000, "gap_ms": 5})  # its log is damaged long before its end
            run.observe().pipe(rxops.element_at(20)).run()
            command = ["redis-cli", "-p", str(server.port), "hset", f"rxflow:run:{run.id}", "last", "3"]
            subprocess.run(command, check=True, capture_output=True)
            with pytest.raises(Exception, match=r"the store has lost events 4 to \d+ of run") as raised:
                run.result(20)
        assert type(raised.value).__name__ in ("StoreError", "RecordedError")

    def test_without_redis_py_every_name_can_be_imported(self) -> None:
        program = "import sys; sys.modules['redis'] = None\nfrom rxflow.runs import *; print(RedisLog.__name__)"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
        assert (ran.stdout, ran.stderr) == ("RedisLog\n", "")

    def test_without_redis_py_the_error_names_the_extra(self) -> None:
        program = "import sys; sys.modules['redis'] = None\nfrom rxflow.runs import Runs; Runs('redis://localhost')"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
        assert ran.stderr.endswith("redis is not installed; it comes with: pip install 'rxflow[redis]'\n")
