"""Runs that workers of a cluster carry out, with their log in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from reactivex import operators as rxops

from rxflow import Flow
from rxflow.flow import start
from rxflow.runs import MemoryLog, RunCancelled, RunExistsError, Runs
from rxflow.types.answers import RunPaused
from rxflow.types.codec import RecordedObject
from tests.gate import Gate
from tests.loopback.reply import Reply
from tests.loopback.server import Loopback
from tests.runs import flows
from tests.runs.redis_server import RedisServer
from tests.signals import signals_of

if TYPE_CHECKING:
    from rxflow.cluster import Ray

HERE = "tests.runs.flows"


def test_readers_anywhere_follow_a_run(cluster: Ray, redis: RedisServer) -> None:
    with Runs(redis.url, on=cluster) as runs, Runs(redis.url) as elsewhere:
        run = runs.start(f"{HERE}:Count", {"count": 30, "gap_ms": 2})
        for reader in (run, elsewhere[run.id]):
            assert [str(chunk) for chunk in signals_of(reader.observe()).items] == [f"n{each}" for each in range(30)]
        assert elsewhere[run.id].result(20) == "".join(f"n{each}" for each in range(30))


async def start_in_async_code(runs: Runs) -> object:
    run = await runs.start_async(f"{HERE}:Twice")
    return await run.result_async()


def test_async_code_starts_one(cluster: Ray, redis: RedisServer) -> None:
    import asyncio

    with Runs(redis.url, on=cluster) as runs:
        assert asyncio.run(start_in_async_code(runs)) == "threefour"


def test_cancel_by_the_log_closes_the_providers_socket(cluster: Ray, redis: RedisServer) -> None:
    with Loopback() as provider, Runs(redis.url, on=cluster) as runs, Runs(redis.url) as elsewhere:
        provider.script(Reply(text="so be it", hold_after=1))
        run = runs.start(f"{HERE}:Calls", {"url": provider.url})
        run.observe().pipe(rxops.first()).run()
        elsewhere[run.id].cancel("enough")
        provider.wait_until(lambda state: state.disconnects, 10)
        with pytest.raises(RunCancelled, match="enough"):
            run.result(20)


def test_a_run_that_waits_for_a_person_is_resumed_on_a_worker(cluster: Ray, redis: RedisServer) -> None:
    """The worker that asked need not be there any more: the journal is in the store."""
    with Runs(redis.url, on=cluster) as runs:
        run = runs.start("tests.cluster.flows:Asking")
        for message, answer in (("In whose name?", "Ada"), ("How many?", "2")):
            with pytest.raises(RunPaused, match=message.replace("?", r"\?")):
                run.result(20)
            (request,) = run.pending()
            assert request.message == message
            run.answer(request.request_id, answer)
        assert run.result(20) == "Ada, 2"


def test_a_result_that_json_cannot_carry_is_a_stand_in(cluster: Ray, redis: RedisServer) -> None:
    with Runs(redis.url, on=cluster) as runs:
        result = runs.start("tests.cluster.flows:Unwritable").result(20)
        assert isinstance(result, RecordedObject)
        assert "generator" in result.type


def test_closing_cancels_what_was_started_here(cluster: Ray, redis: RedisServer) -> None:
    with Loopback() as provider, Runs(redis.url) as elsewhere:
        provider.script(Reply(text="so be it", hold_after=1))
        with Runs(redis.url, on=cluster) as runs:
            run = runs.start(f"{HERE}:Calls", {"url": provider.url})
            run.observe().pipe(rxops.first()).run()
        provider.wait_until(lambda state: state.disconnects, 10)
        with pytest.raises(
            RunCancelled, match="the program that started it ended, or closed the Runs object that started it"
        ):
            elsewhere[run.id].result(20)


def test_a_worker_that_is_told_to_stop_while_it_begins_a_run_cancels_that_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker's code without Ray: it restarts a run in a thread, which nobody can interrupt."""
    import asyncio

    from rxflow.cluster._actor import RunActor

    is_beginning, may_begin, may_end = Gate(), Gate(), Gate()

    class Waiting(Flow):
        @start()
        async def wait(self) -> None:
            await may_end.passed()

    def begin_late() -> Flow:
        is_beginning.open()
        may_begin.wait()
        return Waiting()

    async def stop_while_it_begins() -> None:
        messages = RunActor().carry_out({"store": store}, "restart", "r", {}, {"target": f"{HERE}:Late"})
        begun = asyncio.ensure_future(anext(messages))
        await is_beginning.passed()
        begun.cancel()
        may_begin.open()
        with pytest.raises(asyncio.CancelledError):
            await begun

    monkeypatch.setattr(flows, "Late", begin_late, raising=False)
    store = MemoryLog()
    with Runs(store) as runs:
        run = runs.start(flows.Broken(), run_id="r")
        signals_of(run.events())
        asyncio.run(stop_while_it_begins())
        with pytest.raises(RunCancelled, match="the program that started it ended, or closed the Runs object"):
            run.result(20)


def test_mistakes_are_raised_where_the_run_is_started(cluster: Ray, redis: RedisServer) -> None:
    with Runs(redis.url, on=cluster) as runs:
        with pytest.raises(LookupError, match=r"no flow or crew at 'tests\.runs\.flows:Nowhere'"):
            runs.start(f"{HERE}:Nowhere")
        run = runs.start(f"{HERE}:Twice")
        with pytest.raises(RunExistsError):
            runs.start(f"{HERE}:Twice", run_id=run.id)
        assert run.result(20) == "threefour"


@pytest.mark.parametrize("store", [None, "unix:///run/redis.sock"])
def test_a_store_that_other_machines_cannot_open_is_refused(store: str | None) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
    from rxflow.cluster import Ray

    said = f"^a cluster needs a store that all its machines can reach, .*; got {store!r}$"
    with pytest.raises(ValueError, match=said):
        Ray().check_store(store)


def test_200_runs_at_once_complete_on_two_workers(cluster: Ray, redis: RedisServer) -> None:
    """Which carry out 64 each at a time: the others wait for their turn."""
    names = [f"one of 200: {number}" for number in range(200)]
    with Runs(redis.url, on=cluster, lease=20) as runs:
        begun = [
            runs.carrier.begin("start", name, target=f"{HERE}:Count", inputs={"count": 5, "gap_ms": 50})
            for name in names
            if runs.carrier is not None
        ]
        for each in begun:
            each.result(60)
        assert {runs[name].result(60) for name in names} == {"n0n1n2n3n4"}
