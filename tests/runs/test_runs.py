"""Runs that go on when their readers leave, in each store."""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as rxops

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import start
from rxflow.operators._core.run_log import LIVE, Head
from rxflow.runs import (
    EventsDroppedError,
    MemoryLog,
    Note,
    Page,
    Run,
    RunCancelled,
    RunExistsError,
    RunReader,
    Runs,
    RunSpec,
    SQLiteLog,
    Store,
    StoreError,
    Writer,
)
from rxflow.runs.options import Carrier
from rxflow.testing import ScriptedLLM
from rxflow.types.answers import RunPaused
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import (
    Event,
    FlowCancelled,
    FlowFinished,
    FlowStarted,
    InputReceived,
    InputRequested,
    LLMCancelled,
    MethodCancelled,
    Retracted,
)
from tests.gate import PATIENCE_S, Gate
from tests.loopback import Loopback, Reply
from tests.runs.conftest import LEASE_S, address_of
from tests.runs.flows import Broken, Count, Endless, Patient, Twice
from tests.signals import signals_of
from tests.spans import check_laws
from tests.team import solo

HERE = "tests.runs.flows"


def texts_of(run: Run, after: int = -1) -> list[str]:
    return [str(chunk) for chunk in signals_of(run.observe(after)).items]


def wait_for_chunk(run: Run) -> None:
    """Until the run has said something."""
    run.observe().pipe(rxops.first()).run()


def note_claims(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> list[Future[Any]]:
    """The replies of the store, as they are asked for."""
    claims: list[Future[Any]] = []
    claim = runs.store.claim

    def note(*given: Any) -> Future[Any]:
        claims.append(claim(*given))
        return claims[-1]

    monkeypatch.setattr(runs.store, "claim", note)
    return claims


async def read_all(run: Run, after: int = -1) -> list[Event]:
    with closing(run.read(after)) as reader:
        return [event async for events in reader for event in events]


class TestReading:
    def test_a_run_gives_what_the_flow_gives(self, runs: Runs) -> None:
        run = runs.start(Twice())
        assert run.result(20) == "threefour"
        assert texts_of(run) == ["one", "two", "three", "four"]
        assert (run.status, runs[run.id].status) == ("completed", "completed")

    def test_its_events_are_numbered_from_0_without_gaps(self, runs: Runs) -> None:
        run = runs.start(Twice())
        events = signals_of(run.events()).items
        assert [event.seq for event in events] == list(range(len(events)))
        assert isinstance(events[-1], FlowFinished)

    def test_a_late_reader_loses_nothing(self, runs: Runs) -> None:
        run = runs.start(Count(), {"count": 20})
        assert texts_of(run) == [f"n{number}" for number in range(20)]
        assert texts_of(runs[run.id]) == [f"n{number}" for number in range(20)]

    def test_behind_a_chunk_each_comes_once(self, runs: Runs) -> None:
        run = runs.start(Count(), {"count": 12, "gap_ms": 2})
        first = run.observe().pipe(rxops.take(5), rxops.to_list()).run()
        assert [*map(str, first), *texts_of(run, first[-1].seq)] == [f"n{number}" for number in range(12)]

    def test_a_loop_reads_it_and_has_the_result(self, runs: Runs) -> None:
        run = runs.start(Twice())
        with run.output() as output:
            assert [str(chunk) for chunk in output] == ["one", "two", "three", "four"]
        assert output.result == "threefour"

    def test_async_code_starts_reads_and_awaits_it(self, runs: Runs) -> None:
        async def main() -> None:
            run = await runs.start_async(Twice())
            assert [str(chunk) async for chunk in run.output()] == ["one", "two", "three", "four"]
            assert await run.result_async() == "threefour"

        asyncio.run(main())

    def test_a_crew_is_run_too(self, runs: Runs) -> None:
        run = runs.start(solo(ScriptedLLM("so-be|")))
        assert str(run.result(20)) == "sobe"
        with run.output() as output:
            assert "".join(map(str, output)) == "sobe"
        assert str(output.result) == "sobe"

    def test_operators_of_ours_work_on_it(self, runs: Runs) -> None:
        run = runs.start(Twice())
        assert signals_of(run.events().pipe(ops.only_method("write"), ops.text(), rxops.map(str))).items[-1] == "four"

    def test_a_start_that_is_cancelled_leaves_a_cancelled_run(
        self, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not one that waits for a worker forever."""
        claims = note_claims(runs, monkeypatch)

        async def give_up(run_id: str) -> None:
            starting = asyncio.create_task(runs.start_async(Twice(), run_id=run_id))
            await asyncio.sleep(0)  # it has asked the store for the run
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting

        for number in range(5):
            asyncio.run(give_up(f"r{number}"))
            claims[number].result(20)
            with pytest.raises(RunCancelled, match=r"was cancelled: its start was cancelled$"):
                runs[f"r{number}"].result(20)

    def test_one_that_is_started_in_a_method_is_not_a_part_of_that(self, runs: Runs) -> None:
        class Outer(Flow):
            @start()
            async def begin(self) -> str:
                return (await runs.start_async(Count(), {"count": 3, "gap_ms": 20})).id

        async def main() -> Run:
            run_id: Any = await Outer().kickoff_async()
            run = runs[run_id]
            assert await run.result_async() == "n0n1n2"
            return run

        (begun,) = [event for event in signals_of(asyncio.run(main()).events()).items if isinstance(event, FlowStarted)]
        assert (begun.origin.flow_name, begun.origin.parent_run_id) == ("Count", "")


class TestEnds:
    def test_the_runs_own_error_comes_after_what_had_arrived(self, runs: Runs) -> None:
        run = runs.start(Broken())
        seen = signals_of(run.observe())
        assert [str(chunk) for chunk in seen.items] == ["so"]
        assert seen.ends == [repr(ValueError("out of tea"))]
        assert run.status == "failed"
        with pytest.raises(ValueError, match=r"^out of tea$"):
            run.result(20)

    def test_leaving_cancels_nothing(self, runs: Runs) -> None:
        run = runs.start(Count(), {"count": 5, "gap_ms": 5})
        wait_for_chunk(run)
        assert run.result(20) == "n0n1n2n3n4"

    def test_cancel_says_why(self, runs: Runs) -> None:
        run = runs.start(Endless())
        wait_for_chunk(run)
        runs[run.id].cancel("user closed the tab")
        said = rf"^run '{run.id}' was cancelled: user closed the tab$"
        with pytest.raises(RunCancelled, match=said):
            run.result(20)
        seen = signals_of(run.observe())
        assert ([str(chunk) for chunk in seen.items], run.status) == (["waiting"], "cancelled")
        assert re.match(said, str(seen.errors[0]))
        run.cancel("again")
        assert run.look_up().reason == "user closed the tab"

    def test_what_is_open_is_closed_in_its_log(self, runs: Runs) -> None:
        run = runs.start(Endless())
        wait_for_chunk(run)
        run.cancel("enough")
        events = signals_of(run.events()).items
        check_laws(events)
        assert [(type(event), event.reason) for event in events[-3:]] == [
            (LLMCancelled, "enough"),
            (MethodCancelled, "enough"),
            (FlowCancelled, "enough"),
        ]
        assert events[-3].usage.is_estimated

    def test_closing_the_runs_cancels_what_was_started_there(self) -> None:
        log = MemoryLog()
        with Runs(log) as runs:
            run = runs.start(Endless())
        assert (run.status, run.look_up().reason) == (
            "cancelled",
            "its process ended, or closed the Runs object that started it",
        )

    def test_a_result_is_waited_for_if_a_lease_had_lapsed_for_a_moment(self) -> None:
        class Lapsing(MemoryLog):
            """Its first look finds a lease that has lapsed; then the worker has renewed it."""

            looks = 0

            def look_up(self, run_id: str) -> Future[Head]:
                found = super().look_up(run_id)
                self.looks += 1
                if self.looks > 1:
                    return found
                lapsed: Future[Head] = Future()
                lapsed.set_result(replace(found.result(), status="lost"))
                return lapsed

        with Runs(Lapsing()) as runs:
            assert runs.start(Twice()).result(20) == "threefour"
        with Runs(Lapsing()) as runs:
            assert asyncio.run(runs.start(Twice()).result_async()) == "threefour"

    def test_a_result_that_is_waited_for_when_the_store_is_closed_is_an_error_of_the_store(
        self, store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not a cancellation, which would look like the reader's own."""

        def open_elsewhere() -> tuple[Runs, Gate]:
            elsewhere, is_waiting = Runs(store), Gate()
            wait = elsewhere.store.wait

            def note(run_id: str, after: int) -> Future[None]:
                waiting = wait(run_id, after)
                elsewhere.store.look_up(run_id).result()  # the store has begun to wait
                is_waiting.open()
                return waiting

            monkeypatch.setattr(elsewhere.store, "wait", note)
            return elsewhere, is_waiting

        async def close_while_a_task_waits() -> None:
            elsewhere, is_waiting = open_elsewhere()
            waiting = asyncio.create_task(elsewhere["r"].result_async())
            await is_waiting.passed()
            await asyncio.to_thread(elsewhere.close)
            with pytest.raises(StoreError, match="is closed"):
                await waiting

        with Runs(store) as here:
            wait_for_chunk(here.start(Endless(), run_id="r"))
            elsewhere, is_waiting = open_elsewhere()
            with ThreadPoolExecutor() as threads:
                waiting = threads.submit(elsewhere["r"].result)
                is_waiting.wait()
                elsewhere.close()
                with pytest.raises(StoreError, match="is closed"):
                    waiting.result(20)
            asyncio.run(close_while_a_task_waits())

    def test_result_waits_no_longer_than_it_is_told(self, runs: Runs) -> None:
        run = runs.start(Endless())
        with pytest.raises(TimeoutError):
            run.result(0.05)


@pytest.fixture
def lasting_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not say that it has left counts for an hour: only leaving can end a run."""
    monkeypatch.setattr("rxflow.operators._core.log_reader.READER_S", 3600)


class TestReadingAtOnesOwnPace:
    def test_there_are_all_events_and_then_the_end(self, runs: Runs) -> None:
        run = runs.start(Twice())
        run.result(20)
        assert asyncio.run(read_all(run)) == signals_of(run.events()).items
        assert asyncio.run(read_all(run, after=3)) == signals_of(run.events(after=3)).items

    def test_it_ends_as_the_run_does(self, runs: Runs) -> None:
        run = runs.start(Broken())
        with pytest.raises(ValueError, match=r"^out of tea$"):
            asyncio.run(read_all(run))

    def test_an_event_that_is_not_there_is_refused(self, runs: Runs) -> None:
        run = runs.start(Twice())
        run.result(20)
        with pytest.raises(ValueError, match=r"after=999 is beyond the end"):
            asyncio.run(read_all(run, after=999))

    @pytest.mark.usefixtures("lasting_readers")
    def test_closing_the_reader_leaves_the_run(self, runs: Runs) -> None:
        async def read_first(run: Run) -> None:
            with closing(run.read()) as reader:
                async for events in reader:
                    if any(isinstance(event, StreamChunk) for event in events):
                        assert run.status == "running"
                        return

        run = runs.start(Endless(), when_unread="cancel")
        asyncio.run(read_first(run))
        with pytest.raises(RunCancelled, match=r"its last reader has left$"):
            run.result(20)

    def test_closing_the_reader_ends_a_loop_that_waits(self, runs: Runs) -> None:
        async def read() -> None:
            reader = run.read()
            async for events in reader:
                if any(isinstance(event, StreamChunk) for event in events):
                    asyncio.get_running_loop().call_soon(reader.close)

        run = runs.start(Endless())
        asyncio.run(asyncio.wait_for(read(), PATIENCE_S))
        assert run.status == "running"

    def test_one_that_is_closed_before_the_store_has_told_it_of_the_run_does_not_count(self) -> None:
        class Slow(MemoryLog):
            """Answers what it is asked of a run when the test says so."""

            def __init__(self) -> None:
                super().__init__()
                self.notes: list[Note] = []
                self.held: list[Future[Head]] = []
                self.is_slow = False

            def look_up(self, run_id: str) -> Future[Head]:
                if not self.is_slow:
                    return super().look_up(run_id)
                self.held.append(Future())
                return self.held[-1]

            def note(self, run_id: str, note: Note) -> Future[None]:
                self.notes.append(note)
                return super().note(run_id, note)

        class Waiting(Flow):
            @start()
            async def wait(self) -> None:
                await asyncio.Event().wait()

        async def read(run: Run) -> None:
            head = run.look_up()
            log.is_slow = True
            reader = run.read()
            reading = asyncio.create_task(count_pages(reader))
            await asyncio.sleep(0)
            (held,) = log.held
            reader.close()
            held.set_result(head)
            assert await reading == 0

        async def count_pages(reader: RunReader) -> int:
            return len([page async for page in reader])

        log = Slow()
        with Runs(log) as runs:
            run = runs.start(Waiting(), when_unread=3600)
            asyncio.run(asyncio.wait_for(read(run), PATIENCE_S))
            log.is_slow = False
        assert log.notes == []


class TestWhenUnread:
    @pytest.mark.usefixtures("lasting_readers")
    def test_cancel_ends_it_when_the_last_reader_leaves(self, runs: Runs) -> None:
        run = runs.start(Endless(), when_unread="cancel")
        wait_for_chunk(run)
        with pytest.raises(RunCancelled, match=r"its last reader has left$"):
            run.result(20)

    def test_not_while_another_one_reads(self, runs: Runs) -> None:
        run = runs.start(Count(), {"count": 10, "gap_ms": 20}, when_unread="cancel")
        other = run.output()
        iterator = iter(other)
        next(iterator)
        wait_for_chunk(run)
        assert len([*iterator]) == 9
        assert run.result(20).endswith("n9")

    @pytest.mark.usefixtures("lasting_readers")
    def test_the_provider_is_left_although_the_runs_loop_is_blocked(
        self, provider: Loopback, llm: LLM, runs: Runs
    ) -> None:
        provider.script(Reply(text="one two three", hold_after=1))
        chunk, go, is_blocked, release = (threading.Event() for _ in range(4))

        class Busy(Flow):
            @start()
            async def speak(self) -> Any:
                return await llm.acall("Hello")

            @start()
            async def block(self) -> None:
                await asyncio.to_thread(go.wait, PATIENCE_S)
                is_blocked.set()
                release.wait(PATIENCE_S)

        run = runs.start(Busy(), when_unread="cancel")
        reading = run.observe().subscribe(lambda _: chunk.set())
        assert chunk.wait(PATIENCE_S)
        go.set()
        assert is_blocked.wait(PATIENCE_S)
        reading.dispose()
        provider.wait_until(lambda state: state.disconnects)
        assert run.status == "running"
        release.set()
        with pytest.raises(RunCancelled, match=r"its last reader has left$"):
            run.result(20)

    def test_a_time_runs_from_the_start(self, runs: Runs) -> None:
        run = runs.start(Endless(), when_unread=timedelta(seconds=0.1))
        with pytest.raises(RunCancelled, match=r"nobody has read it for 0.1 s$"):
            run.result(20)

    @pytest.mark.parametrize("given", ["stop", -1, 0, float("nan")])
    def test_anything_else_is_refused(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"^when_unread must be"), Runs() as runs:
            runs.start(Twice(), when_unread=given)


class TestNames:
    def test_an_unknown_run_is_named(self, runs: Runs) -> None:
        said = r"^no run 'trip-7': it never began in this store, or was forgotten$"
        for ask in (lambda: runs["trip-7"], lambda: runs.forget("trip-7")):
            with pytest.raises(LookupError, match=said):
                ask()

    def test_so_is_a_forgotten_one(self, runs: Runs) -> None:
        run = runs.start(Twice(), run_id="trip-7")
        run.result(20)
        runs.forget("trip-7")
        assert runs.list() == []
        for ask in (lambda: run.status, run.result, run.cancel, run.pending, run.restart):
            with pytest.raises(LookupError, match=r"^no run 'trip-7'"):
                ask()
        assert type(signals_of(run.events()).errors[0]) is LookupError

    def test_forgetting_a_run_that_goes_on_stops_it(self, runs: Runs) -> None:
        run = runs.start(Endless())
        wait_for_chunk(run)
        with run.output() as output:
            iterator = iter(output)
            next(iterator)
            runs.forget(run.id)
            with pytest.raises(LookupError):
                next(iterator)

    def test_a_second_start_of_the_same_id_is_refused(self, runs: Runs) -> None:
        runs.start(Twice(), run_id="trip-7").result(20)
        with pytest.raises(RunExistsError, match=r"^run 'trip-7' has begun already; read it with runs\['trip-7'\], or"):
            runs.start(Twice(), run_id="trip-7")
        assert texts_of(runs["trip-7"]) == ["one", "two", "three", "four"]

    def test_they_are_listed_by_status(self, runs: Runs) -> None:
        done, going = runs.start(Twice()), runs.start(Endless())
        done.result(20)
        wait_for_chunk(going)
        assert [run.id for run in runs.list()] == [done.id, going.id]
        assert [run.id for run in runs.list(status="completed")] == [done.id]
        assert [run.id for run in runs.list(status="running")] == [going.id]

    def test_a_flow_is_found_by_its_import_path(self, runs: Runs) -> None:
        assert runs.start(f"{HERE}:Count", {"count": 2}).result(20) == "n0n1"

    @pytest.mark.parametrize("path", ["no.such:Trip", f"{HERE}:Nothing", "Trip", f"{HERE}", ":"])
    def test_a_path_that_leads_nowhere_is_named(self, path: str) -> None:
        with Runs() as runs, pytest.raises(LookupError, match=rf"^no flow or crew at '{path}', which should be"):
            runs.start(path)

    def test_one_that_leads_to_something_else_is_refused(self) -> None:
        with Runs() as runs, pytest.raises(TypeError, match=r"^'math:pi' is not a flow or a crew: 3.14"):
            runs.start("math:pi")

    @pytest.mark.parametrize(("path", "why"), [("json:dumps", "'obj'"), (f"{HERE}:Needy", "'place'")])
    def test_one_that_cannot_be_made_says_why(self, path: str, why: str) -> None:
        with Runs() as runs, pytest.raises(TypeError, match=rf"^'{path}' cannot be created: .*{why}$"):
            runs.start(path)

    def test_mistakes_in_the_inputs_are_the_callers(self) -> None:
        with Runs() as runs, pytest.raises(ValueError, match="has nothing to run"):
            runs.start(Flow())
        assert runs.list() == []

    @pytest.mark.parametrize("name", ["mysql://x", "sqlite:///", "runs.db"])
    def test_a_store_that_does_not_exist(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"^no store '{name}'; use \"sqlite:///runs\.db\""):
            Runs(name)

    @pytest.mark.parametrize(
        ("path", "url"), [("runs.db", "sqlite:///runs.db"), ("/a/runs.db", "sqlite:////a/runs.db")]
    )
    def test_a_path_as_the_store_is_refused_with_its_url(self, path: str, url: str) -> None:
        given: Any = Path(path)
        with pytest.raises(TypeError, match=rf"^store is a path, not a URL: .*'{path}'\); write \"{url}\"$"):
            Runs(given)

    @pytest.mark.parametrize("given", [5, True, b"sqlite:///runs.db", MemoryLog])
    def test_a_store_of_another_type_is_refused(self, given: Any) -> None:
        with pytest.raises(TypeError, match=rf"^store is neither a string nor a Store: {re.escape(repr(given))}; use"):
            Runs(given)


class TestWhere:
    def test_no_file_is_created_for_a_store_that_the_cluster_refuses(self, tmp_path: Path) -> None:
        class Distant:
            """Other machines, which cannot reach any store."""

            def check_store(self, name: object) -> None:
                raise ValueError("out of reach")

            def open(self, store: Store, options: Mapping[str, Any]) -> Carrier:
                raise AssertionError("the store was refused")

        with pytest.raises(ValueError, match=r"^out of reach$"):
            Runs(f"sqlite:///{tmp_path}/runs.db", on=Distant())
        assert list(tmp_path.iterdir()) == []

    def test_a_store_is_closed_if_it_was_opened_for_a_cluster_that_is_not_there(self, tmp_path: Path) -> None:
        class Absent:
            """No machines."""

            def check_store(self, name: object) -> None: ...

            def open(self, store: Store, options: Mapping[str, Any]) -> Carrier:
                raise ConnectionError("nobody answers")

        before = set(threading.enumerate())
        with pytest.raises(ConnectionError, match=r"^nobody answers$"):
            Runs(f"sqlite:///{tmp_path}/runs.db", on=Absent())
        begun = set(threading.enumerate()) - before
        assert [thread for thread in begun if thread.name == "rxflow runs"] == []
        with closing(SQLiteLog(tmp_path / "runs.db")) as log:
            with pytest.raises(ConnectionError, match=r"^nobody answers$"):
                Runs(log, on=Absent())
            assert log.list().result() == []


class TestBeyond:
    def test_after_the_end_is_an_error_that_names_it(self, runs: Runs) -> None:
        run = runs.start(Twice())
        run.result(20)
        last = run.look_up().last
        (error,) = signals_of(run.events(last + 1)).errors
        assert str(error) == f"after={last + 1} is beyond the end of run {run.id!r}, whose last event is {last}"
        assert signals_of(run.events(last)).ends == ["completed"]


class TestRetention:
    @pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
    def test_of_a_run_so_many_events_are_kept(self, kind: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
        with Runs(address_of(kind, request, tmp_path), max_events=10) as runs:
            run = runs.start(Count(), {"count": 20})
            assert run.result(20).endswith("n19")
            head = run.look_up()
            assert head.last - head.first + 1 == 10
            (error,) = signals_of(run.events()).errors
            assert isinstance(error, EventsDroppedError)
            assert len(signals_of(run.events(head.first - 1)).items) == 10
            assert run.pending() == []

    @pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
    def test_a_run_is_forgotten_some_time_after_its_end(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Any
    ) -> None:
        with Runs(address_of(kind, request, tmp_path), keep=0.001) as runs:
            run = runs.start(Twice(), run_id="old")
            signals_of(run.events())
            threading.Event().wait(0.01)
            another = runs.start(Endless())
            wait_for_chunk(another)  # a model that is not asked before the runs are closed is a complaint
            assert [each.id for each in runs.list()] == [another.id]
            with pytest.raises(LookupError):
                runs["old"]

    @pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
    def test_a_paused_run_is_kept_as_long_as_it_waits(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Any
    ) -> None:
        with Runs(address_of(kind, request, tmp_path), keep=0.001) as runs:
            run = runs.start(Patient(), {"seconds": 600})
            with pytest.raises(RunPaused):
                run.result(20)
            threading.Event().wait(0.01)
            runs.store.claim("another", RunSpec(), lambda note: None).result()
            assert (run.status, len(run.pending())) == ("paused", 1)

    @pytest.mark.parametrize("kind", ["sqlite", "redis"])
    def test_a_lost_run_is_forgotten_some_time_after_its_lease(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Any
    ) -> None:
        address = address_of(kind, request, tmp_path)
        with Runs(address, keep=0.001, lease=1) as runs:
            (writer, _) = runs.store.claim("old", RunSpec(), lambda note: None).result()
            runs.store.append(writer, [StreamChunk(content="so", seq=0)]).result()
            runs.store.release(writer)  # as if its process had died
            runs.store.wait("old", 0).result(20)
        with Runs(address, keep=0.001, lease=LEASE_S) as runs:
            threading.Event().wait(0.01)
            runs.store.claim("another", RunSpec(), lambda note: None).result()
            assert [run.id for run in runs.list()] == ["another"]
            (writer, _) = runs.store.claim("old", RunSpec(), lambda note: None).result()
            runs.store.append(writer, [StreamChunk(content="new", seq=0)]).result()
            assert [str(event) for event in runs.store.read("old", -1, 10).result().events] == ["new"]

    @pytest.mark.parametrize("given", [{"keep": 60}, {"max_events": 3}, {"lease": 5}, {"lease": -1}])
    def test_limits_of_a_store_that_is_open_are_its_own(self, given: Any) -> None:
        (name,) = given
        with pytest.raises(ValueError, match=rf"^{name} cannot be set for a MemoryLog .*: give it to the store"):
            Runs(MemoryLog(), **given)

    @pytest.mark.parametrize("bad", [{"keep": 0}, {"max_events": 0}, {"lease": -1}])
    def test_limits_are_above_0(self, bad: Any) -> None:
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
            Runs(**bad)

    @pytest.mark.parametrize("given", ["5", 2.5, True])
    def test_max_events_is_an_integer(self, given: Any) -> None:
        with pytest.raises(TypeError, match=rf"^max_events is not an integer: {given!r}$"):
            Runs(max_events=given)


def test_a_wait_that_takes_too_long_is_given_up(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Future[None]] = []
    wait = runs.store.wait

    def note(run_id: str, after: int) -> Future[None]:
        waits.append(wait(run_id, after))
        return waits[-1]

    monkeypatch.setattr(runs.store, "wait", note)
    run = runs.start(Endless())
    while len(waits) < 3:  # on a busy machine, the time may be over before the wait begins
        with pytest.raises(TimeoutError):
            run.result(0.2)
    assert {each.cancelled() for each in waits} == {True}


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, timedelta(seconds=20)])
def test_a_result_is_awaited_for_any_length_of_time(timeout: Any) -> None:
    with Runs() as runs:
        assert runs.start(Count(), {"count": 20}).result(timeout) == "".join(f"n{number}" for number in range(20))


@pytest.mark.parametrize(
    ("timeout", "kind"),
    [pytest.param(10**400, ValueError, id="huge"), ("soon", TypeError), (float("nan"), TimeoutError)],
)
def test_a_result_is_not_awaited_for_what_is_not_a_time(timeout: Any, kind: type[Exception]) -> None:
    with Runs() as runs, pytest.raises(kind):
        runs.start(Endless()).result(timeout)


@pytest.mark.parametrize("option", ["keep", "lease"])
def test_a_time_that_no_float_can_hold_is_refused(option: str) -> None:
    given: Any = {option: 10**400}
    with pytest.raises(ValueError, match=rf"^{option} must be a time that a float can hold: 1000"):
        Runs(**given)


def test_a_number_before_the_first_event_means_all(runs: Runs) -> None:
    run = runs.start(Twice())
    run.result(20)
    assert [event.seq for event in signals_of(run.events(after=-5)).items] == list(range(run.look_up().last + 1))


def test_no_number_is_too_large_to_be_refused(runs: Runs) -> None:
    run = runs.start(Twice())
    run.result(20)
    (end,) = signals_of(run.events(after=10**30)).ends
    assert end.startswith(f'ValueError("after={10**30} is beyond the end of run ')


@pytest.mark.parametrize("reason", [5, None, b"enough", ["enough"]])
def test_a_reason_that_is_not_a_string_is_refused_and_cancels_nothing(runs: Runs, reason: Any) -> None:
    run = runs.start(Endless())
    with pytest.raises(TypeError, match=rf"^reason is not a string: {re.escape(repr(reason))}$"):
        run.cancel(reason)
    assert run.status in LIVE


@pytest.mark.parametrize("after", ["3", None, 2.5, True])
def test_a_position_that_is_not_an_integer_is_refused_at_the_call(after: Any) -> None:
    with Runs() as runs:
        run = runs.start(Twice())
        logged = partial(ops.from_log, runs.store, run.id)
        readings: list[Callable[[int], Any]] = [run.events, run.observe, run.output, run.read, logged]
        for read in readings:
            with pytest.raises(TypeError, match=rf"^after is not an integer: {after!r}$"):
                read(after)


@pytest.mark.parametrize("status", ["complete", 5, ["failed"]])
def test_a_status_that_no_run_has_is_refused(status: Any) -> None:
    with Runs() as runs, pytest.raises(ValueError, match=r"^status must be one of 'queued', .*; got "):
        runs.list(status=status)


@pytest.mark.parametrize("answers", [5, "yes", ["yes"]])
def test_answers_that_are_not_a_mapping_are_refused(answers: Any) -> None:
    with Runs() as runs:
        run = runs.start(Endless())
        with pytest.raises(TypeError, match=rf"^answers is not a mapping .*: {re.escape(repr(answers))}$"):
            run.resume(answers)


@pytest.mark.parametrize("target", [5, None, Path("trips"), object()])
def test_a_target_that_is_neither_a_flow_nor_a_crew_is_refused(target: Any) -> None:
    with Runs() as runs, pytest.raises(TypeError, match=r"^target is not a flow, a crew or an import path: "):
        runs.start(target)


def test_a_class_in_place_of_a_flow_is_refused_at_each_start() -> None:
    message = r"^target is a class, not a flow or a crew: <class '.*\.Twice'>; write Twice\(\)$"
    flow_class: Any = Twice
    with Runs() as runs:
        with pytest.raises(TypeError, match=message):
            runs.start(flow_class)
        run = runs.start(Endless())
        run.cancel()
        with pytest.raises(TypeError, match=message):
            run.resume(target=flow_class)
        with pytest.raises(TypeError, match=message):
            run.restart(flow_class)


def test_a_reason_that_cannot_be_encoded_cancels_too(runs: Runs) -> None:
    run = runs.start(Endless())
    wait_for_chunk(run)
    run.cancel("the tab \ud83d was closed")
    assert signals_of(run.events()).ends == [repr(RunCancelled(run.id, "the tab \ufffd was closed"))]
    assert run.status == "cancelled"


class TestRestart:
    def test_a_new_generation_takes_back_what_was_said(self, runs: Runs) -> None:
        run = runs.start(f"{HERE}:Broken")
        signals_of(run.events())
        assert run.status == "failed"
        run.restart(Twice())
        assert run.result(20) == "threefour"
        events = signals_of(run.events()).items
        assert [event.seq for event in events] == list(range(len(events)))
        (retracted,) = [event for event in events if isinstance(event, Retracted)]
        assert str(retracted.error) == "out of tea"
        before = [event for event in events[: retracted.seq] if str(event) == "so"]
        assert [retracted.covers(chunk) for chunk in before] == [True]
        assert texts_of(run) == ["so", "one", "two", "three", "four"]
        assert run.look_up().generation == 2

    def test_it_begins_by_the_import_path_of_its_start(self, runs: Runs) -> None:
        run = runs.start(f"{HERE}:Broken")
        signals_of(run.events())
        run.restart()
        assert signals_of(run.events()).ends == [repr(ValueError("out of tea"))]
        assert texts_of(run) == ["so", "so"]

    def test_without_a_path_the_flow_has_to_be_given(self, runs: Runs) -> None:
        run = runs.start(Broken())
        signals_of(run.events())
        with pytest.raises(ValueError, match=r"was not started by an import path, .*: pass it as target"):
            run.restart()

    def test_one_that_is_running_is_refused(self, runs: Runs) -> None:
        run = runs.start(Endless())
        wait_for_chunk(run)
        with pytest.raises(RunExistsError, match=r"is running; cancel it before it is resumed or begins again$"):
            run.restart(Twice())

    def test_one_whose_log_cannot_be_read_has_failed_and_can_begin_again(self) -> None:
        class Unreadable(MemoryLog):
            is_down = False

            def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
                return fail(StoreError("down")) if self.is_down else super().read(run_id, after, limit)

        log = Unreadable()
        with Runs(log) as runs:
            run = runs.start(Broken())
            signals_of(run.events())
            log.is_down = True
            with pytest.raises(StoreError, match=r"^down$"):
                run.restart(Twice())
            assert (run.status, str(run.look_up().error)) == ("failed", "down")
            log.is_down = False
            run.restart(Twice())
            assert run.result(20) == "threefour"


def fail(error: Exception) -> Future[Any]:
    failed: Future[Any] = Future()
    failed.set_exception(error)
    return failed


class TestQuestions:
    def test_those_without_an_answer_are_pending(self, runs: Runs) -> None:
        asked = [InputRequested(origin=Origin(), request_id=each, seq=seq) for seq, each in enumerate("ab")]
        received = InputReceived(origin=Origin(), request_id="a", value="yes", seq=2)
        runs.store.append(Writer("r"), [*asked, received]).result()
        assert runs["r"].pending() == [asked[1]]
        with pytest.raises(
            LookupError, match=r"^no question 'a' is waiting in run 'r': it was already answered, or never asked$"
        ):
            runs["r"].answer("a", "no")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "runs", ["memory", *(pytest.param(store, marks=pytest.mark.slow) for store in ("sqlite", "redis"))], indirect=True
)
def test_500_runs_at_once_all_complete(runs: Runs) -> None:
    async def main() -> list[Any]:
        started = [await runs.start_async(Count(), {"count": 3, "gap_ms": 5}) for _ in range(500)]
        return await asyncio.gather(*(run.result_async() for run in started))

    assert asyncio.run(main()) == ["n0n1n2"] * 500
