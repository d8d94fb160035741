"""State that lasts: what is saved and when, how a run goes on from it, and what a store that fails does."""

import asyncio
import importlib
import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field

from rxflow.flow import Flow, listen, router, start
from rxflow.flow.persistence import FlowPersistence, PersistenceError, SQLiteFlowPersistence, persist
from rxflow.types.events import FlowFailed, MethodFailed, MethodFinished
from tests.gate import PATIENCE_S
from tests.signals import outcome


class Memory(FlowPersistence):
    """Keeps states in memory, with the methods after which they were saved."""

    saved: list[tuple[str, str, Any]] = Field(default_factory=list[tuple[str, str, Any]])
    threads: list[str] = Field(default_factory=list[str])

    def init_db(self) -> None:
        pass

    def save_state(self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel) -> None:
        self.threads.append(threading.current_thread().name)
        state = state_data.model_dump() if isinstance(state_data, BaseModel) else state_data
        self.saved.append((flow_uuid, method_name, state))

    def load_state(self, flow_uuid: str) -> dict[str, Any] | None:
        self.threads.append(threading.current_thread().name)
        return next((state for uuid, _, state in reversed(self.saved) if uuid == flow_uuid), None)

    @property
    def methods(self) -> list[str]:
        return [method for _, method, _ in self.saved]


class Broken(Memory):
    """Fails to save after the method ``at``, and to load."""

    at: str = "second"

    def save_state(self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel) -> None:
        if method_name == self.at:
            raise OSError("disk full")
        super().save_state(flow_uuid, method_name, state_data)

    def load_state(self, flow_uuid: str) -> dict[str, Any] | None:
        raise OSError("disk gone")


class Count(BaseModel):
    count: int = 0
    notes: list[str] = []


class Counting(Flow[Count]):
    @start()
    def first(self) -> int:
        self.state.count += 1
        return self.state.count

    @listen(first)
    def second(self) -> int:
        self.state.notes.append("second")
        return self.state.count


class CountingInDict(Flow):
    @start()
    def first(self) -> int:
        self.state["count"] = self.state.get("count", 0) + 1
        return int(self.state["count"])


def saved_by(store: FlowPersistence, flow: type[Flow[Any]] = Counting) -> type[Flow[Any]]:
    return persist(store)(type("Saved", (flow,), {}))


@pytest.fixture
def sqlite(tmp_path: Path) -> SQLiteFlowPersistence:
    return SQLiteFlowPersistence(str(tmp_path / "deep" / "flows.db"))


def test_a_class_saves_after_each_method() -> None:
    store = Memory()
    flow = saved_by(store)()
    flow.kickoff()
    assert store.methods == ["first", "second"]
    assert {uuid for uuid, _, _ in store.saved} == {flow.flow_id}
    assert [state["notes"] for _, _, state in store.saved] == [[], ["second"]]


def test_a_method_saves_alone_whichever_decorator_is_first() -> None:
    store = Memory()

    class Some(Flow):
        @persist(store)
        @start()
        def above(self) -> None: ...

        @listen(above)
        def between(self) -> None: ...

        @router(between)
        @persist(store)
        def below(self) -> str | None:
            return None

    Some().kickoff()
    assert store.methods == ["above", "below"]


def test_a_method_has_a_store_of_its_own_and_the_instance_goes_before_both() -> None:
    of_class, of_method, of_instance = Memory(), Memory(), Memory()

    @persist(of_class)
    class Both(Flow):
        @start()
        def first(self) -> None: ...

        @listen(first)
        @persist(of_method)
        def second(self) -> None: ...

    Both().kickoff()
    assert (of_class.methods, of_method.methods) == (["first"], ["second"])
    Both(persistence=of_instance).kickoff()
    assert of_instance.methods == ["first", "second"]
    assert len(of_class.saved) == len(of_method.saved) == 1


def test_a_store_without_the_decorator_only_restores() -> None:
    store = Memory()
    Counting(persistence=store).kickoff()
    assert store.saved == []


def test_a_bare_decorator_saves_to_the_folder_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RXFLOW_STORAGE_DIR", str(tmp_path))

    @persist
    class Bare(Counting):
        pass

    flow = Bare()
    flow.kickoff()
    assert SQLiteFlowPersistence(tmp_path / "flow_states.db").load_state(flow.flow_id) == {
        "id": flow.flow_id,
        "count": 1,
        "notes": ["second"],
    }


def test_the_state_is_saved_when_the_stream_shows_the_method_as_finished() -> None:
    store = Memory()
    known: list[list[str]] = []

    def look(event: object) -> None:
        if isinstance(event, MethodFinished):
            known.append(store.methods.copy())

    seen = outcome(saved_by(store)().events(), look)
    assert seen.error is None
    assert known == [["first"], ["first", "second"]]


@pytest.mark.parametrize("flow", [Counting, CountingInDict])
def test_a_later_run_goes_on_with_the_saved_state(flow: type[Flow[Any]], sqlite: SQLiteFlowPersistence) -> None:
    first = saved_by(sqlite, flow)()
    assert first.kickoff() == 1
    second = saved_by(sqlite, flow)()
    assert second.kickoff({"id": first.flow_id}) == 2
    assert second.flow_id == first.flow_id
    third = saved_by(sqlite, flow)()
    assert third.kickoff({"id": first.flow_id, "count": 40}) == 41


@pytest.mark.parametrize("flow", [Counting, CountingInDict])
def test_two_that_have_no_id_yet_do_not_share_a_state(flow: type[Flow[Any]], sqlite: SQLiteFlowPersistence) -> None:
    saved = saved_by(sqlite, flow)
    first, second = saved(), saved()
    assert (first.kickoff({"id": None}), second.kickoff({"id": None})) == (1, 1)
    assert first.flow_id != second.flow_id
    assert (sqlite.load_state(second.flow_id) or {})["count"] == 1


def test_a_model_whose_id_may_be_none_is_saved_under_one_of_its_own(sqlite: SQLiteFlowPersistence) -> None:
    class Optional(Count):
        id: str | None = None

    saved = saved_by(sqlite, Counting)
    first, second = saved(initial_state=Optional), saved(initial_state=Optional)
    assert (first.kickoff(), second.kickoff()) == (1, 1)
    assert sqlite.load_state("None") is None
    assert (sqlite.load_state(first.flow_id) or {})["count"] == 1


def test_each_subscription_restores_anew(sqlite: SQLiteFlowPersistence) -> None:
    flow = saved_by(sqlite)()
    flow.kickoff()
    events = flow.events({"id": flow.flow_id})
    results = [seen.result for _ in range(2) for seen in outcome(events).of(MethodFinished)]
    assert results == [2, 2, 3, 3]


def test_a_fork_begins_with_a_copy_under_an_id_of_its_own(sqlite: SQLiteFlowPersistence) -> None:
    source = saved_by(sqlite)()
    source.kickoff()
    fork = saved_by(sqlite)()
    assert fork.kickoff(restore_from_state_id=source.flow_id) == 2
    assert fork.flow_id != source.flow_id
    assert (sqlite.load_state(source.flow_id) or {})["count"] == 1
    assert (sqlite.load_state(fork.flow_id) or {})["count"] == 2


def test_a_fork_may_be_given_its_id(sqlite: SQLiteFlowPersistence) -> None:
    source = saved_by(sqlite)()
    source.kickoff()
    fork = saved_by(sqlite)()
    asyncio.run(fork.kickoff_async({"id": "mine"}, restore_from_state_id=source.flow_id))
    assert fork.flow_id == "mine"
    assert (sqlite.load_state("mine") or {})["count"] == 2


class TestAnIdWithAnAlias:
    class Required(Count):
        id: str = Field(alias="ID")

    class Optional(Count):
        id: str = Field(default="", alias="ID")

    class OneOfTwo(Count):
        id: str = Field(default="", validation_alias=AliasChoices("Id", "ID"))

    @pytest.mark.parametrize("model", [Required, Optional, OneOfTwo])
    def test_continues_under_either_name(self, sqlite: SQLiteFlowPersistence, model: type[Count]) -> None:
        saved = saved_by(sqlite)
        inputs: list[dict[str, Any]] = [{"ID": "one"}, {"id": "one"}, {"ID": "one"}]
        assert [saved(initial_state=model).kickoff(each) for each in inputs] == [1, 2, 3]

    @pytest.mark.parametrize("model", [Required, Optional, OneOfTwo])
    def test_of_none_stands_for_none(self, sqlite: SQLiteFlowPersistence, model: type[Count]) -> None:
        flow = saved_by(sqlite)(initial_state=model)
        before = flow.flow_id
        assert flow.kickoff({"ID": None}) == 1
        assert (flow.flow_id, bool(before)) == (before, True)

    @pytest.mark.parametrize("model", [Required, Optional, OneOfTwo])
    @pytest.mark.parametrize("inputs", [{}, {"ID": "two"}, {"id": "two"}])
    def test_is_a_new_one_in_a_copy(
        self, sqlite: SQLiteFlowPersistence, model: type[Count], inputs: dict[str, Any]
    ) -> None:
        saved = saved_by(sqlite)
        saved(initial_state=model).kickoff({"ID": "one"})
        fork = saved(initial_state=model)
        assert fork.kickoff(inputs, restore_from_state_id="one") == 2
        assert (fork.flow_id == "two") is bool(inputs)
        assert fork.flow_id != "one"
        assert (sqlite.load_state("one") or {})["count"] == 1


def test_a_model_that_writes_other_fields_than_it_reads_is_restored(sqlite: SQLiteFlowPersistence) -> None:
    class Differs(BaseModel):
        model_config = ConfigDict(extra="forbid")
        count: int = Field(default=0, serialization_alias="Count")
        notes: list[str] = []

        @computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return 2 * self.count

        @computed_field(alias="Thrice")  # type: ignore[prop-decorator]
        @property
        def thrice(self) -> int:
            return 3 * self.count

    saved = saved_by(sqlite)
    assert [saved(initial_state=Differs).kickoff({"id": "one"}) for _ in range(2)] == [1, 2]
    assert (sqlite.load_state("one") or {})["Thrice"] == 6


def test_a_copy_whose_id_is_a_number_is_given_its_id(sqlite: SQLiteFlowPersistence) -> None:
    class Numbered(Count):
        id: int = 7

    saved = saved_by(sqlite)
    assert saved(initial_state=Numbered).kickoff() == 1
    fork = saved(initial_state=Numbered)
    assert fork.kickoff({"id": 8}, restore_from_state_id="7") == 2
    assert (fork.flow_id, (sqlite.load_state("7") or {})["count"]) == ("8", 1)
    refused = saved(initial_state=Numbered)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a new id cannot be made for Numbered: .* pass it in the inputs"):
            refused.kickoff(restore_from_state_id="7")
    assert refused.kickoff({"id": 8}) == 3


def test_a_session_of_frames_may_begin_with_a_copy(sqlite: SQLiteFlowPersistence) -> None:
    source = saved_by(sqlite)()
    source.kickoff()

    async def read(fork: Flow[Any]) -> object:
        async with fork.astream(restore_from_state_id=source.flow_id) as session:
            return [frame async for frame in session] and session.result

    with saved_by(sqlite)().stream_events(restore_from_state_id=source.flow_id) as session:
        assert list(session)
    assert session.result == 2
    assert asyncio.run(read(saved_by(sqlite)())) == 2


def test_a_fork_of_a_state_that_is_not_there_begins_anew(
    sqlite: SQLiteFlowPersistence, caplog: pytest.LogCaptureFixture
) -> None:
    flow = saved_by(sqlite)()
    assert flow.kickoff(restore_from_state_id="nobody") == 1
    assert flow.flow_id != "nobody"
    assert "no saved state 'nobody'" in caplog.text


def test_with_several_stores_none_is_restored_from_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    of_class, of_method = Memory(), Memory()

    @persist(of_class)
    class Both(CountingInDict):
        @listen("first")
        @persist(of_method)
        def second(self) -> int:
            self.state["count"] += 10
            return int(self.state["count"])

    assert [Both().kickoff({"id": "x"}) for _ in range(2)] == [11, 11]
    assert caplog.text.count("Both: the state of 'x' is not restored: its decorators name several stores") == 2
    with pytest.raises(ValueError, match="no store to restore from, or several"):
        Both().kickoff(restore_from_state_id="x")
    assert Both(persistence=of_method).kickoff({"id": "x"}) == 22


def test_a_store_of_the_class_that_no_method_uses_does_not_count() -> None:
    unused, used = Memory(), Memory()

    @persist(unused)
    class Both(Flow):
        @persist(used)
        @start()
        def first(self) -> int:
            self.state["count"] = self.state.get("count", 0) + 1
            return int(self.state["count"])

    assert [Both().kickoff({"id": "x"}) for _ in range(2)] == [1, 2]
    assert unused.saved == []


def test_a_fork_without_a_store_is_refused() -> None:
    with pytest.raises(ValueError, match="no store to restore from"):
        Counting().kickoff(restore_from_state_id="x")
    with pytest.raises(ValueError, match="no store to restore from"):
        Counting().events(restore_from_state_id="x")
    with pytest.raises(ValueError, match="no store to restore from"):
        Counting().stream_events(restore_from_state_id="x")
    with pytest.raises(ValueError, match="no store to restore from"):
        Counting().astream(restore_from_state_id="x")


def test_methods_that_name_one_file_restore_from_it(tmp_path: Path) -> None:
    class Twice(Flow):
        @start()
        @persist(SQLiteFlowPersistence(tmp_path / "one.db"))
        def first(self) -> int:
            self.state["count"] = self.state.get("count", 0) + 1
            return int(self.state["count"])

        @listen(first)
        @persist(SQLiteFlowPersistence(tmp_path / "one.db"))
        def second(self) -> int:
            return int(self.state["count"])

    flow = Twice()
    flow.kickoff()
    assert Twice().kickoff({"id": flow.flow_id}) == 2


def test_a_store_that_fails_to_save_fails_the_method_and_says_so() -> None:
    store = Broken()
    seen = outcome(saved_by(store)().events())
    assert isinstance(seen.error, PersistenceError)
    assert str(seen.error) == ("State persistence failed: Broken cannot save Saved after second: OSError: disk full")
    assert isinstance(seen.error.__cause__, OSError)
    assert [type(event) for event in seen.items[-2:]] == [MethodFailed, FlowFailed]
    assert store.methods == ["first"]


def test_a_store_that_fails_to_load_fails_the_run_before_any_method() -> None:
    seen = outcome(saved_by(Broken())().events({"id": "x"}))
    assert isinstance(seen.error, PersistenceError)
    assert "cannot load the state of 'x': OSError: disk gone" in str(seen.error)
    assert not seen.of(MethodFinished)
    assert isinstance(seen.items[-1], FlowFailed)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    flow = saved_by(SQLiteFlowPersistence(tmp_path / "folder"))()
    with pytest.raises(PersistenceError, match=r"SQLite \(.*folder\) cannot save .* OperationalError"):
        flow.kickoff()


def test_what_json_cannot_carry_is_named_and_the_last_state_stays(sqlite: SQLiteFlowPersistence) -> None:
    @persist(sqlite)
    class Grows(Flow):
        @start()
        def first(self) -> None:
            self.state["good"] = 1

        @listen(first)
        def second(self) -> None:
            self.state["lock"] = print

    flow = Grows()
    with pytest.raises(PersistenceError, match="JSON cannot carry the state's 'lock'"):
        flow.kickoff()
    assert sqlite.load_state(flow.flow_id) == {"id": flow.flow_id, "good": 1}


def test_a_saved_state_that_a_newer_model_refuses_is_an_error(sqlite: SQLiteFlowPersistence) -> None:
    sqlite.save_state("old", "first", {"id": "old", "count": "many"})
    with pytest.raises(PersistenceError, match=r"SQLite \(.*\) cannot load .* the saved state does not fit Count"):
        saved_by(sqlite)().kickoff({"id": "old"})


def test_a_store_that_gives_something_else_than_a_state_is_named() -> None:
    class Wrong(Memory):
        def load_state(self, flow_uuid: str) -> Any:
            return [flow_uuid]

    with pytest.raises(PersistenceError, match=r"Wrong cannot load the state of 'x': TypeError: .* returned \['x'\]"):
        saved_by(Wrong())().kickoff({"id": "x"})


def test_an_id_that_was_taken_out_of_the_state_is_an_error() -> None:
    class Forgets(Flow):
        @start()
        def first(self) -> None:
            del self.state["id"]

    with pytest.raises(PersistenceError, match="must have an 'id' field"):
        saved_by(Memory(), Forgets)().kickoff()


def test_the_newest_state_is_written_last_although_an_older_save_is_slow() -> None:
    may_go_on = threading.Event()

    class Slow(Memory):
        def save_state(self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel) -> None:
            if method_name == "quick":
                assert may_go_on.wait(PATIENCE_S)
            super().save_state(flow_uuid, method_name, state_data)

    store = Slow()

    class Two(Flow):
        @start()
        async def quick(self) -> None:
            self.state["quick"] = True

        @start()
        async def slow(self) -> None:
            await asyncio.sleep(0)
            self.state["slow"] = True
            may_go_on.set()

    flow = saved_by(store, Two)()
    flow.kickoff()
    assert store.methods == ["quick", "slow"]
    assert store.load_state(flow.flow_id) == {"id": flow.flow_id, "quick": True, "slow": True}


def test_what_a_store_is_given_does_not_change_any_more() -> None:
    store = Memory()
    saved_by(store)().kickoff()
    assert [state["notes"] for _, _, state in store.saved] == [[], ["second"]]


def test_stores_never_block_the_event_loop() -> None:
    store = Memory()
    flow = saved_by(store)()

    async def main() -> None:
        await flow.kickoff_async({"id": "x"})

    asyncio.run(main())
    assert len(store.threads) == 3
    assert threading.main_thread().name not in store.threads


def test_a_store_may_be_async() -> None:
    class Async(Memory):
        async def save_state(  # type: ignore[override]
            self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel
        ) -> None:
            await asyncio.sleep(0)
            super().save_state(flow_uuid, method_name, state_data)

    store = Async()
    saved_by(store)().kickoff()
    assert store.methods == ["first", "second"]


def test_a_verbose_save_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    @persist(Memory(), verbose=True)
    class Loud(Counting):
        pass

    flow = Loud()
    flow.kickoff()
    assert caplog.text.count(f"Saving the state of Loud to Memory, with the ID {flow.flow_id}") == 2


def test_subclasses_inherit_the_decorator() -> None:
    store = Memory()
    parent = saved_by(store)
    type("Child", (parent,), {})().kickoff()
    assert store.methods == ["first", "second"]


def test_what_is_not_a_store_is_refused() -> None:
    with pytest.raises(TypeError, match=r"write @persist\(Memory\(…\)\)"):
        persist(Memory)
    with pytest.raises(TypeError, match="takes a store"):
        persist("flows.db")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="persistence must be a store"):
        Counting(persistence="flows.db")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="db_path must be a file"):
        SQLiteFlowPersistence(":memory:")


def test_a_method_that_is_only_persisted_is_refused() -> None:
    @persist(Memory())
    def first(self: Flow) -> None: ...

    with pytest.raises(ValueError, match="nothing would run it"):
        type("Flawed", (Flow,), {"first": first})


def test_several_flows_write_one_file_at_once(sqlite: SQLiteFlowPersistence) -> None:
    def save(number: int) -> None:
        for turn in range(20):
            sqlite.save_state(f"flow {number}", "method", {"id": f"flow {number}", "turn": turn})

    threads = [threading.Thread(target=save, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(sqlite.load_state(f"flow {number}") or {})["turn"] for number in range(4)] == [19] * 4


def test_a_file_of_crewai_is_read(tmp_path: Path) -> None:
    path = tmp_path / "crewai.db"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE flow_states (id INTEGER PRIMARY KEY AUTOINCREMENT, flow_uuid TEXT NOT NULL,"
            " method_name TEXT NOT NULL, timestamp DATETIME NOT NULL, state_json TEXT NOT NULL)"
        )
        database.execute(
            "INSERT INTO flow_states (flow_uuid, method_name, timestamp, state_json) VALUES"
            """ ('old', 'first', '2026-01-01', '{"id": "old", "count": 7}')"""
        )
    database.close()
    assert saved_by(SQLiteFlowPersistence(path))().kickoff({"id": "old"}) == 8


@pytest.mark.parametrize("path", ["base", "decorators", "sqlite"])
def test_crewais_import_paths_lead_here(path: str) -> None:
    module = importlib.import_module(f"rxflow.flow.persistence.{path}")
    here = importlib.import_module("rxflow.flow.persistence")
    assert all(getattr(module, name) is getattr(here, name) for name in module.__all__)
