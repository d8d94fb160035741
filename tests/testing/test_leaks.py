"""Runs, threads and tasks that outlive their test are found, and said with the line that began them."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from reactivex.abc import DisposableBase

from rxflow import _hooks
from rxflow._streaming.bridge import from_async
from rxflow.flow import Flow, start
from rxflow.llm import _io as io_loop
from rxflow.testing import leaks
from rxflow.testing._scripted import ScriptedLLM
from rxflow.testing.leaks import Runs, assert_nothing_is_left, watching_runs, what_is_left
from tests.gate import PATIENCE_S, Gate


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.5)


def nothing_is_left(runs: Runs | None = None) -> bool:
    """Once all has had the time that it takes on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "GRACE_S", PATIENCE_S)
        return what_is_left(runs) == []


@pytest.fixture
def runs() -> Iterator[Runs]:
    with watching_runs() as runs:
        yield runs


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that a test harness keeps from test to test."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(asyncio.sleep(0))  # what was cancelled ends
    loop.close()


async def subscribed() -> DisposableBase:
    return ScriptedLLM("a-").observe("x").subscribe()


def test_a_run_on_a_loop_that_goes_on_is_left(runs: Runs, loop: asyncio.AbstractEventLoop) -> None:
    subscription = loop.run_until_complete(subscribed())
    (left,) = what_is_left(runs)
    assert "a run, subscribed at" in left
    assert "test_leaks.py" in left
    assert 'in subscribed: return ScriptedLLM("a-").observe("x").subscribe()' in left
    subscription.dispose()
    assert nothing_is_left(runs)


def test_a_run_that_has_ended_is_not_left(runs: Runs, loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> str:
        return str(await ScriptedLLM("ab|").acall("x"))

    assert loop.run_until_complete(main()) == "ab"
    assert len(runs) == 1
    assert nothing_is_left(runs)


def test_a_run_whose_loop_has_ended_is_not_left(runs: Runs) -> None:
    asyncio.run(subscribed())
    assert nothing_is_left(runs)


def test_a_run_on_a_loop_in_another_thread_has_a_moment_to_end(runs: Runs, loop: asyncio.AbstractEventLoop) -> None:
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        subscription = asyncio.run_coroutine_threadsafe(subscribed(), loop).result(PATIENCE_S)
        assert len(what_is_left(runs)) == 1
        loop.call_soon_threadsafe(subscription.dispose)
        assert nothing_is_left(runs)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_a_run_on_the_loop_of_the_check_is_left(runs: Runs, loop: asyncio.AbstractEventLoop) -> None:
    subscription = loop.run_until_complete(subscribed())

    async def check() -> None:
        with pytest.raises(AssertionError, match="a run, subscribed at"):
            assert_nothing_is_left(runs)

    loop.run_until_complete(check())
    subscription.dispose()
    assert nothing_is_left(runs)


def test_a_run_on_a_blocked_loop_is_left(runs: Runs, loop: asyncio.AbstractEventLoop) -> None:
    begun, gate = Gate(), Gate()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        subscription = asyncio.run_coroutine_threadsafe(subscribed(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(begun.open)
        loop.call_soon_threadsafe(gate.wait)
        begun.wait()
        (left,) = what_is_left(runs)
        assert "a run, subscribed at" in left
        gate.open()
        loop.call_soon_threadsafe(subscription.dispose)
        assert nothing_is_left(runs)
    finally:
        gate.open()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_a_blocked_io_loop_is_left() -> None:
    begun, gate = Gate(), Gate()

    async def block() -> None:
        begun.open()
        gate.wait()

    blocked = io_loop.submit(block())
    begun.wait()
    try:
        assert what_is_left() == ["the I/O loop, which is blocked"]
    finally:
        gate.open()
        blocked.result(PATIENCE_S)
    assert nothing_is_left()


@pytest.mark.parametrize("module", ["rxflow_demo", "reactivex_demo.parts"])
def test_a_line_of_a_module_with_a_name_like_ours_is_named(
    runs: Runs, loop: asyncio.AbstractEventLoop, module: str
) -> None:
    code = compile("def work(source): return source.subscribe()", "demo.py", "exec")
    names: dict[str, Any] = {"__name__": module}
    exec(code, names)

    async def main() -> DisposableBase:
        return cast("DisposableBase", names["work"](ScriptedLLM("a-").observe("x")))

    loop.run_until_complete(main()).dispose()
    assert [(begun.file, begun.function) for begun in runs] == [("demo.py", "work")]
    assert nothing_is_left(runs)


def test_a_run_on_a_thread_of_its_own_is_left_with_its_line(runs: Runs) -> None:
    subscription = ScriptedLLM("a-").observe("x").subscribe()
    try:
        with pytest.raises(
            AssertionError, match=r"the test left behind:\n    the thread 'rxflow run', of a run that was"
        ):
            assert_nothing_is_left(runs)
        (left,) = what_is_left(runs)
        assert 'subscription = ScriptedLLM("a-").observe("x").subscribe()' in left
    finally:
        subscription.dispose()
    assert nothing_is_left(runs)


def test_a_thread_of_a_method_is_left_with_where_it_stands(runs: Runs) -> None:
    begun, gate = Gate(), Gate()

    class Waiting(Flow):
        @start()
        def work(self) -> None:
            begun.open()
            gate.wait()

    subscription = Waiting().observe().subscribe()
    begun.wait()
    try:
        left = "\n".join(what_is_left(runs))
        assert "the thread 'rxflow work', which stands at" in left
        assert "the thread 'rxflow run', of a run that was subscribed at" in left
    finally:
        subscription.dispose()
        gate.open()
    assert nothing_is_left(runs)


def test_a_thread_that_an_earlier_test_left_is_not_this_ones(runs: Runs) -> None:
    gate = Gate()
    earlier = threading.Thread(target=gate.wait, name="rxflow run")
    earlier.start()
    try:
        with watching_runs() as later:
            assert nothing_is_left(later)
    finally:
        gate.open()
        earlier.join()


def test_a_task_of_ours_on_the_io_loop_is_left() -> None:
    began = Gate()

    subscriptions: list[DisposableBase] = []

    async def work(emit: Callable[[str], None]) -> None:
        began.open()
        await asyncio.Event().wait()

    async def main() -> None:
        subscriptions.append(from_async(work).subscribe())

    io_loop.submit(main()).result(PATIENCE_S)
    began.wait()
    (left,) = what_is_left()
    assert left.startswith("a task on the I/O loop: <Task")
    subscriptions[0].dispose()
    assert nothing_is_left()


def test_nobody_is_told_of_runs_outside() -> None:
    before = _hooks.on_start
    with watching_runs() as outer:
        with watching_runs() as inner:
            asyncio.run(subscribed())
        asyncio.run(subscribed())
    assert (len(outer), len(inner)) == (1, 1)
    assert _hooks.on_start is before


def test_looking_costs_next_to_nothing() -> None:
    assert_nothing_is_left()
    times: list[float] = []
    for _ in range(20):
        at = time.perf_counter()
        with watching_runs() as runs:
            pass
        assert_nothing_is_left(runs)
        times.append(time.perf_counter() - at)
    assert min(times) < 0.001


def test_looking_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from rxflow.testing import leaks, plugin\n"
        "with leaks.watching_runs() as runs: pass\n"
        "leaks.assert_nothing_is_left(runs)\n"
        "heavy = {'litellm', 'httpx', 'aiohttp', 'openai', 'trio'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "import threading\n"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
