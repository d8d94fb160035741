"""A branch on another machine: an Observable like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from reactivex import operators as rxops

pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")

from rxflow.crew.crew import Crew
from rxflow.types.codec import RecordedObject, encode
from rxflow.types.events import Event, FlowFinished, FlowStarted, MethodStarted, Started
from tests.cluster.flows import Branching
from tests.loopback.reply import Reply, Request
from tests.loopback.server import Loopback
from tests.loopback.state import State
from tests.runs.flows import Count, Twice
from tests.signals import signals_of

if TYPE_CHECKING:
    from rxflow.cluster import Ray

HERE = "tests.runs.flows"
THERE = "tests.cluster.flows"


def shape_of(events: list[Event]) -> list[Any]:
    """What must be the same wherever a branch runs."""
    names: dict[str, int] = {"": -1}

    def number(span_id: str) -> int:
        return names.setdefault(span_id, len(names))

    shape: list[Any] = []
    for event in events:
        origin: Any = getattr(event, "origin", event)
        spans = number(origin.span_id), number(origin.parent_span_id)
        shape.append((type(event).__name__, event.seq, origin.namespace, origin.flow_method, spans))
    return shape


class TestBranches:
    def test_its_chunks_arrive_as_from_a_flow_in_this_process(self, cluster: Ray) -> None:
        seen = signals_of(cluster.on(Count).observe({"count": 30, "gap_ms": 1}))
        assert [str(chunk) for chunk in seen.items] == [f"n{number}" for number in range(30)]
        assert seen.ends == ["completed"]

    def test_it_is_cold_and_each_subscription_is_a_run_of_its_own(self, cluster: Ray) -> None:
        events = cluster.on(f"{HERE}:Count").events({"count": 2})
        runs = [signals_of(events).items for _ in range(2)]
        assert [len(each) for each in runs] == [8, 8]
        first, second = (each[0].origin for each in runs)
        assert first.span_id != second.span_id

    def test_in_a_flow_its_labels_and_spans_are_those_of_a_branch_here(self, nodes: Any) -> None:
        from rxflow.cluster import close_workers

        far, near = (signals_of(Branching().events({"far": far})).items for far in (True, False))
        close_workers()
        assert shape_of(far) == shape_of(near)
        (method,) = (each for each in far if isinstance(each, MethodStarted) and each.origin.flow_method == "branch")
        (inner,) = (each for each in far if isinstance(each, FlowStarted) and each.seq > 0)
        assert inner.origin.parent_span_id == method.origin.span_id
        assert {each.origin.run_id for each in far if isinstance(each, Started)} == {method.origin.run_id}

    def test_disposing_closes_the_providers_socket(self, cluster: Ray) -> None:
        with Loopback() as provider:
            provider.script(*(Reply(text="so be it", hold_after=1) for _ in range(5)))

            def is_closed(state: State) -> bool:
                return len(state.disconnects) == len(state.requests)

            for _ in range(5):
                taken = cluster.on(f"{HERE}:Calls").observe({"url": provider.url}).pipe(rxops.take(1))
                assert len(signals_of(taken).items) == 1
                provider.wait_until(is_closed, 10)

    def test_disposing_before_it_has_begun_starts_nothing_that_stays(self, cluster: Ray) -> None:
        with Loopback() as provider:
            provider.answer(lambda request: Reply(text="so be it", hold_after=1))
            assert signals_of(cluster.on(Twice).observe()).ends == ["completed"]  # its worker is there
            for _ in range(5):
                cluster.on(f"{HERE}:Calls").observe({"url": provider.url}).subscribe().dispose()
            assert str(signals_of(cluster.on(Twice).observe()).items[0]) == "one"
            provider.wait_until(lambda state: len(state.disconnects) == len(state.requests), 10)

    def test_its_error_is_the_flows_own(self, cluster: Ray) -> None:
        seen = signals_of(cluster.on(f"{HERE}:Broken").observe())
        assert [str(chunk) for chunk in seen.items] == ["so"]
        assert seen.ends == ["ValueError('out of tea')"]

    def test_what_json_cannot_carry_comes_as_a_stand_in(self, cluster: Ray) -> None:
        seen = signals_of(cluster.on(f"{THERE}:Unwritable").events())
        assert seen.ends == ["completed"]
        assert isinstance(seen.items[-1], FlowFinished)
        assert isinstance(seen.items[-1].result, RecordedObject)

    def test_a_key_stays_in_the_workers_environment(self, nodes: Any) -> None:
        from rxflow.cluster import Ray

        key = "sk-only-on-the-worker"
        given: list[str] = []

        def answer(request: Request) -> Reply:
            given.append(request.headers["authorization"])
            return Reply(text="so")

        with Loopback() as provider, Ray(workers=1, runtime_env={"env_vars": {"CLUSTER_TEST_KEY": key}}) as cluster:
            provider.answer(answer)
            seen = signals_of(cluster.on(f"{THERE}:Keyed").events({"url": provider.url}))
        assert given == [f"Bearer {key}"]
        assert seen.ends == ["completed"]
        assert not [line for line in map(encode, seen.items) if key.encode() in line]


class TestTargets:
    @pytest.mark.parametrize("target", ["", "trips", "trips:", ":Trip"])
    def test_what_is_not_an_import_path_is_refused(self, target: str) -> None:
        name_target = pytest.importorskip("rxflow.cluster.ray", reason="needs rxflow[ray]").name_target
        with pytest.raises(ValueError, match=r"^not an import path such as 'package\.module:Name'"):
            name_target(target)

    def test_a_class_and_an_object_of_a_module_have_one(self) -> None:
        name_target = pytest.importorskip("rxflow.cluster.ray", reason="needs rxflow[ray]").name_target
        assert name_target(Count) == "tests.runs.flows:Count"
        assert name_target(OF_THIS_MODULE) == f"{__name__}:OF_THIS_MODULE"

    def test_an_object_that_has_none_is_refused(self) -> None:
        name_target = pytest.importorskip("rxflow.cluster.ray", reason="needs rxflow[ray]").name_target

        class Local(Count):
            pass

        from_a_file = type("FromAFile", (Count,), {"__module__": "of_no_folder"})
        for target in (Local, Count(), Crew(agents=[], tasks=[]), from_a_file):
            with pytest.raises(ValueError, match="cannot be found by name on another machine: put it into a module"):
                name_target(target)

    def test_one_that_leads_nowhere_on_the_worker_is_the_streams_error(self, cluster: Ray) -> None:
        (error,) = signals_of(cluster.on(f"{HERE}:Nowhere").events()).errors
        assert isinstance(error, LookupError)
        assert "no flow or crew at 'tests.runs.flows:Nowhere'" in str(error)


OF_THIS_MODULE = Count()
