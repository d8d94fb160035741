"""The state of a resumed run: what it was, and nothing that an unfinished method had saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from rxflow import operators as ops
from rxflow._streaming.journal import Journal
from rxflow.flow import Flow, listen, persist, start
from rxflow.flow.persistence import SQLiteFlowPersistence
from rxflow.types.codec import decode, encode
from rxflow.types.events import (
    Event,
    FlowFinished,
    FlowPaused,
    InputRequested,
    MethodStarted,
    StateChanged,
)
from tests.signals import outcome


def states_of(events: Sequence[Event]) -> Sequence[Mapping[str, Any]]:
    return [event.state for event in events if isinstance(event, StateChanged)]


class TestTheStateOfAResumedRun:
    def test_is_the_one_that_was_restored_from_a_store(self, tmp_path: Path) -> None:
        store = SQLiteFlowPersistence(tmp_path / "flows.db")

        @persist(store)
        class Counts(Flow):
            @start()
            def count(self) -> int:
                before = self.state.get("count", 0)
                self.ask("Go on?")
                self.state["count"] = before + 1
                return int(self.state["count"])

        def yes(_: InputRequested) -> str:
            return "yes"

        inputs = {"id": "one"}
        assert Counts(input_provider=yes).kickoff(inputs) == 1
        paused = outcome(Counts().events(inputs))
        for cut in range(1, len(paused.events) + 1):
            store.save_state("one", "count", {"id": "one", "count": 5})
            past = [decode(encode(event)) for event in paused.events[:cut]]
            # until a method begins, the state is read from the store again
            expected = 2 if any(isinstance(event, MethodStarted) for event in past) else 6
            seen = outcome(Counts().events(inputs).resume_from(Journal(past)).pipe(ops.answer_with(yes)))
            assert (seen.errors, seen.of(FlowFinished)[-1].result) == ([], expected)
            assert store.load_state("one") == {"id": "one", "count": expected}

    def test_is_not_what_an_unfinished_method_had_saved_before_it_asked(self, tmp_path: Path) -> None:
        store = SQLiteFlowPersistence(tmp_path / "flows.db")

        @persist(store)
        class Counts(Flow):
            @start()
            def count(self) -> int:
                self.state["count"] = self.state.get("count", 0) + 1
                self.ask("Go on?")
                return int(self.state["count"])

        for inputs, expected in (({"id": "new"}, 1), ({"id": "old"}, 6)):
            store.save_state("old", "count", {"id": "old", "count": 5})
            paused = outcome(Counts().events(inputs))
            (request,) = paused.one(FlowPaused).pending
            assert store.load_state(inputs["id"]) == {**inputs, "count": expected}
            journal = Journal(paused.events, {request.request_id: "yes"})
            assert outcome(Counts().events(inputs).resume_from(journal)).one(FlowFinished).result == expected

    def test_has_no_key_that_a_method_deleted(self) -> None:
        class Deletes(Flow):
            @start()
            def first(self) -> None:
                del self.state["draft"]

            @listen(first)
            def second(self) -> list[str]:
                self.ask("Go on?")
                return sorted(self.state)

        first = Deletes(initial_state={"draft": 1})
        paused = outcome(first.events({"topic": "rain"}))
        (request,) = paused.one(FlowPaused).pending
        journal = Journal(paused.events, {request.request_id: "yes"})
        again = Deletes(initial_state={"draft": 1}).events({"topic": "rain"})
        assert outcome(again.resume_from(journal)).one(FlowFinished).result == ["id", "topic"]

    def test_keeps_its_values_beside_one_that_json_cannot_carry(self) -> None:
        class Nested(BaseModel):
            raw: bytes = b"\xff"
            pages: int = 3

        class Bytes(Flow):
            @start()
            def first(self) -> None:
                self.state["count"] = 5
                self.state["raw"] = b"\xff"
                self.state["parts"] = [1, {"raw": b"\xff", 2: None}]
                self.state["nested"] = Nested()

            @listen(first)
            def second(self) -> dict[str, Any]:
                self.ask("Go on?")
                return {name: value for name, value in self.state.items() if name != "id"}

        paused = outcome(Bytes().events())
        (request,) = paused.one(FlowPaused).pending
        journal = Journal(paused.events, {request.request_id: "yes"})
        assert outcome(Bytes().events().resume_from(journal)).one(FlowFinished).result == {
            "count": 5,
            "raw": "b'\\xff'",
            "parts": [1, {"raw": "b'\\xff'", "2": None}],
            "nested": {"raw": "b'\\xff'", "pages": 3},
        }

    @pytest.mark.parametrize("has_changed", [False, True])
    def test_has_the_lists_as_they_were_although_a_method_had_changed_them(self, has_changed: bool) -> None:
        class Appends(Flow):
            @start()
            def first(self) -> None:
                if has_changed:
                    self.state["others"] = [0]

            @listen(first)
            def second(self) -> Any:
                self.state["items"].append(1)
                self.state.setdefault("others", [0]).append(1)
                self.ask("Go on?")
                return self.state["items"], self.state["others"]

        paused = outcome(Appends().events({"items": []}))
        (request,) = paused.one(FlowPaused).pending
        for _ in range(2):
            journal = Journal(paused.events, {request.request_id: "yes"})
            seen = outcome(Appends().events({"items": []}).resume_from(journal))
            assert seen.one(FlowFinished).result == ([1], [0, 1])

    def test_has_the_results_as_they_were_although_a_method_had_changed_them(self) -> None:
        class Appends(Flow):
            @start()
            def first(self) -> list[int]:
                return []

            @listen(first)
            def second(self, items: list[int]) -> list[int]:
                items.append(1)
                self.ask("Go on?")
                return items

        paused = outcome(Appends().events())
        (request,) = paused.one(FlowPaused).pending
        for _ in range(2):
            journal = Journal(paused.events, {request.request_id: "yes"})
            seen = outcome(Appends().events().resume_from(journal))
            assert seen.one(FlowFinished).result == [1]

    def test_needs_no_id(self) -> None:
        class Numbered(BaseModel):
            id: int | None = None

        class Asks(Flow[Numbered]):
            @start()
            def first(self) -> str:
                return f"{self.state.id}: {self.ask('Go on?')}"

        paused = outcome(Asks().events())
        (request,) = paused.one(FlowPaused).pending
        seen = outcome(Asks().events().resume_from(Journal(paused.events, {request.request_id: "yes"})))
        assert (seen.errors, [event.result for event in seen.of(FlowFinished)]) == ([], ["None: yes"])

    def test_leaves_out_the_inputs_that_a_strict_model_does_not_have(self) -> None:
        class Strict(BaseModel):
            model_config = ConfigDict(extra="forbid")
            topic: str = "nothing"

        class Asks(Flow[Strict]):
            @start()
            def first(self) -> str:
                return f"{self.state.topic}: {self.ask('Go on?')}"

        inputs = {"topic": "rain", "more": 1}
        paused = outcome(Asks().events(inputs))
        (request,) = paused.one(FlowPaused).pending
        journal = Journal(paused.events, {request.request_id: "yes"})
        seen = outcome(Asks().events(inputs).resume_from(journal))
        assert (seen.errors, seen.one(FlowFinished).result) == ([], "rain: yes")
