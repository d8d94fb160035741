"""Leaves as Observables: the rules of Reactive Streams for what a coroutine emits."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial, partialmethod
from typing import Any

import pytest
import reactivex as rx
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxflow._streaming.bridge import from_async, from_coroutine, on_loop
from rxflow._streaming.emitter import Emitter
from rxflow._streaming.scope import Run, Scope
from tests.gate import PATIENCE_S, Gate
from tests.signals import Signals

Emit = Callable[[Any], None]


async def others_done() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=PATIENCE_S)


class TestFromAsync:
    def test_it_emits_and_completes(self) -> None:
        async def work(emit: Emit) -> None:
            emit(1)
            await asyncio.sleep(0)
            emit(2)

        async def main() -> None:
            seen = Signals()
            seen.subscribe_to(from_async(work))
            await seen.ended.passed()
            assert (seen.items, seen.ends) == ([1, 2], ["completed"])

        asyncio.run(main())

    def test_subscribing_returns_before_the_work_begins(self) -> None:
        async def work(emit: Emit) -> None:
            emit(1)

        async def main() -> None:
            seen = Signals()
            seen.subscribe_to(from_async(work))
            assert seen.items == []
            await seen.ended.passed()

        asyncio.run(main())

    def test_an_error_ends_it_after_what_was_emitted(self) -> None:
        async def work(emit: Emit) -> None:
            emit(1)
            raise ValueError("no more")

        async def main() -> None:
            seen = Signals()
            seen.subscribe_to(from_async(work))
            await seen.ended.passed()
            assert (seen.items, seen.ends) == ([1], ["ValueError('no more')"])

        asyncio.run(main())

    def test_nothing_comes_after_the_terminal(self) -> None:
        async def main() -> None:
            kept: list[Emit] = []

            async def work(emit: Emit) -> None:
                kept.append(emit)

            seen = Signals()
            seen.subscribe_to(from_async(work))
            await seen.ended.passed()
            kept[0](1)
            await others_done()
            assert (seen.items, seen.ends) == ([], ["completed"])

        asyncio.run(main())

    def test_each_subscription_does_the_work_anew(self) -> None:
        async def main() -> None:
            begun = 0

            async def work(emit: Emit) -> None:
                nonlocal begun
                begun += 1
                emit(begun)

            source = from_async(work)
            assert begun == 0
            first, second = Signals(), Signals()
            for seen in (first, second):
                seen.subscribe_to(source)
            await first.ended.passed()
            await second.ended.passed()
            assert (first.items, second.items) == ([1], [2])

        asyncio.run(main())

    def test_disposing_cancels_the_work_and_says_nothing(self) -> None:
        async def main() -> None:
            inside, cancelled = asyncio.Event(), asyncio.Event()

            async def work(emit: Emit) -> None:
                inside.set()
                try:
                    await Gate().passed()
                finally:
                    emit("too late")
                    cancelled.set()

            seen = Signals()
            subscription = seen.subscribe_to(from_async(work))
            await inside.wait()
            subscription.dispose()
            subscription.dispose()
            await cancelled.wait()
            await others_done()
            assert (seen.items, seen.ends) == ([], [])

        asyncio.run(main())

    def test_disposing_before_the_first_step_starts_nothing(self) -> None:
        async def main() -> None:
            begun: list[bool] = []

            async def work(emit: Emit) -> None:
                begun.append(True)

            seen = Signals()
            seen.subscribe_to(from_async(work)).dispose()
            await others_done()
            assert (begun, seen.ends) == ([], [])

        asyncio.run(main())

    def test_disposing_from_another_thread_does_not_wait_for_the_loop(self) -> None:
        async def main() -> None:
            inside, cancelled = asyncio.Event(), asyncio.Event()

            async def work(emit: Emit) -> None:
                inside.set()
                try:
                    await Gate().passed()
                finally:
                    cancelled.set()

            seen = Signals()
            subscription = seen.subscribe_to(from_async(work))
            await inside.wait()
            thread = threading.Thread(target=subscription.dispose)
            thread.start()
            thread.join(PATIENCE_S)  # the loop stands still
            assert not thread.is_alive()
            await cancelled.wait()
            assert seen.ends == []

        asyncio.run(main())

    def test_disposing_after_the_loop_has_ended_does_nothing(self) -> None:
        async def main() -> Any:
            return from_async(lambda emit: Gate().passed()).subscribe(on_error=lambda error: None)

        asyncio.run(main()).dispose()

    def test_the_end_of_the_loop_is_an_error_of_the_stream(self) -> None:
        """Else a reader in another thread would wait for ever."""

        async def main() -> Signals:
            seen = Signals()
            seen.subscribe_to(from_async(lambda emit: Gate().passed()))
            await asyncio.sleep(0)
            return seen

        assert asyncio.run(main()).ends == ["CancelledError()"]

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["disposed", "ended"])
    def test_no_reference_to_the_observer_is_kept(self, how: str) -> None:
        async def main() -> None:
            held, inside = Gate(), asyncio.Event()

            async def work(emit: Emit) -> None:
                inside.set()
                if how == "disposed":
                    try:
                        await Gate().passed()
                    except asyncio.CancelledError:
                        await held.passed()  # it swallows the cancellation and lives on

            seen = Signals()
            kept = weakref.ref(seen)
            source = from_async(work)
            subscription = seen.subscribe_to(source)
            await inside.wait()
            if how == "disposed":
                subscription.dispose()
                await asyncio.sleep(0)
            else:
                await others_done()
            del seen, subscription
            gc.collect()
            assert kept() is None
            held.open()
            await others_done()
            del source

        asyncio.run(main())

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["by itself", "in a leaf of a run"])
    def test_an_error_that_is_kept_keeps_no_observer(self, way: str) -> None:
        async def work(emit: Emit) -> None:
            raise ValueError("x")

        async def forward(emitter: Emitter) -> None:
            await emitter.forward(from_async(work))

        async def main() -> tuple[BaseException, weakref.ref[Signals]]:
            seen = Signals()
            scope = Scope(Run(asyncio.get_running_loop()))
            subscription = seen.subscribe_to(from_async(work) if way == "by itself" else from_coroutine(scope, forward))
            await seen.ended.passed()
            del subscription
            return seen.errors[0], weakref.ref(seen)

        error, kept = asyncio.run(main())
        gc.collect()
        assert isinstance(error, ValueError)
        assert kept() is None


class TestFromCoroutine:
    """The same rules for a leaf of a run, which also emits through what it runs in its place."""

    @staticmethod
    def scope() -> Scope:
        return Scope(Run(asyncio.get_running_loop()))

    def test_its_chunks_carry_its_labels(self) -> None:
        async def work(emitter: Emitter) -> None:
            emitter.text("a")
            emitter.text("b")

        async def main() -> None:
            seen = Signals()
            leaf = from_coroutine(self.scope().within("m", flow_method="m"), work)
            seen.subscribe_to(leaf)
            await seen.ended.passed()
            assert [(chunk.content, chunk.flow_method) for chunk in seen.items] == [("a", "m"), ("b", "m")]

        asyncio.run(main())

    def test_nothing_comes_after_the_terminal(self) -> None:
        async def main() -> None:
            kept: list[Emitter] = []

            async def work(emitter: Emitter) -> None:
                kept.append(emitter)

            seen = Signals()
            seen.subscribe_to(from_coroutine(self.scope(), work))
            await seen.ended.passed()
            kept[0].text("late")
            assert (seen.items, seen.ends) == ([], ["completed"])

        asyncio.run(main())

    def test_what_somebody_else_awaits_goes_on_until_the_run_is_disposed(self) -> None:
        async def main() -> None:
            stopped = asyncio.Event()

            async def inner(emitter: Emitter) -> None:
                try:
                    await Gate().passed()
                finally:
                    stopped.set()

            async def work(emitter: Emitter) -> None:
                left.append(asyncio.create_task(emitter.forward(from_coroutine(emitter.scope, inner))))
                await asyncio.sleep(0)
                await asyncio.sleep(0)

            left: list[asyncio.Task[None]] = []
            seen = Signals()
            scope = self.scope()
            seen.subscribe_to(from_coroutine(scope, work))
            await seen.ended.passed()
            assert not stopped.is_set()
            scope.run.leftovers.dispose()
            await asyncio.wait_for(stopped.wait(), PATIENCE_S)
            with pytest.raises(asyncio.CancelledError):
                await left[0]

        asyncio.run(main())

    def test_an_inner_error_is_raised_where_it_runs(self) -> None:
        async def main() -> None:
            async def inner(emitter: Emitter) -> None:
                emitter.text("a")
                raise ValueError("inner")

            async def work(emitter: Emitter) -> None:
                with pytest.raises(ValueError, match="inner"):
                    await emitter.forward(from_coroutine(emitter.scope, inner))
                emitter.text("b")

            seen = Signals()
            seen.subscribe_to(from_coroutine(self.scope(), work))
            await seen.ended.passed()
            assert ([chunk.content for chunk in seen.items], seen.ends) == (["a", "b"], ["completed"])

        asyncio.run(main())

    def test_disposing_from_another_thread_stops_what_runs_inside_while_the_loop_stands_still(self) -> None:
        async def main() -> None:
            inside = asyncio.Event()
            source: Subject[Any] = Subject()

            async def work(emitter: Emitter) -> None:
                inside.set()
                await emitter.forward(source)

            seen = Signals()
            leaf = from_coroutine(self.scope(), work)
            subscription = seen.subscribe_to(leaf)
            await inside.wait()
            assert len(source.observers) == 1
            thread = threading.Thread(target=subscription.dispose)
            thread.start()
            thread.join(PATIENCE_S)
            assert source.observers == []
            await others_done()
            assert seen.ends == []

        asyncio.run(main())

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_leaf_may_be_disposed_just_as_a_wait_in_a_thread_ends(
        self, fails: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def main() -> None:
            source: Subject[Any] = Subject()
            inside = asyncio.Event()

            def begin(_: object) -> Subject[Any]:
                inside.set()
                return source

            async def work(emitter: Emitter) -> None:
                await emitter.invoke(emitter.forward_blocking, rx.defer(begin))

            def dispose_first_and(done: Future[None], settle: Callable[..., None], value: Any) -> None:
                monkeypatch.undo()
                thread = threading.Thread(target=subscription.dispose)
                thread.start()
                thread.join(PATIENCE_S)
                settle(done, value)

            seen = Signals()
            subscription = seen.subscribe_to(from_coroutine(self.scope(), work))
            await inside.wait()
            for name in ("set_result", "set_exception"):
                monkeypatch.setattr(Future, name, partialmethod(dispose_first_and, getattr(Future, name)))
            if fails:
                source.on_error(ValueError())
            else:
                source.on_completed()
            await others_done()
            assert seen.ends == []

        asyncio.run(main())

    def test_a_dispose_action_that_raises_is_reported_and_the_rest_is_disposed(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, report: reported.append(report["exception"]))
            inside = asyncio.Event()

            async def work(emitter: Emitter) -> None:
                for number in range(3):
                    emitter.own(Disposable(partial(dispose, number)))
                inside.set()
                await asyncio.Event().wait()

            subscription = Signals().subscribe_to(from_coroutine(self.scope(), work))
            await inside.wait()
            subscription.dispose()
            await others_done()

        def dispose(number: int) -> None:
            disposed.append(number)
            if number != 1:
                raise ValueError(number)

        disposed: list[int] = []
        reported: list[BaseException] = []
        asyncio.run(main())
        assert disposed == [0, 1, 2]
        assert [each.args for each in reported] == [(0,), (2,)]

    def test_a_thread_that_waits_inside_is_let_go_at_once(self) -> None:
        async def main() -> None:
            source: Subject[Any] = Subject()
            ended: list[type[BaseException]] = []
            inside, left = Gate(), Gate()

            def blocking(emitter: Emitter) -> None:
                inside.open()
                try:
                    emitter.forward_blocking(source)
                except BaseException as error:
                    ended.append(type(error))
                    raise
                finally:
                    left.open()

            async def work(emitter: Emitter) -> None:
                await emitter.invoke(blocking, emitter)

            seen = Signals()
            leaf = from_coroutine(self.scope(), work)
            subscription = seen.subscribe_to(leaf)
            await inside.passed()
            subscription.dispose()
            left.wait()  # the loop stands still
            assert ended == [asyncio.CancelledError]
            await others_done()
            assert seen.ends == []

        asyncio.run(main())


class TestOnLoop:
    def test_items_of_another_thread_arrive_on_the_loop_in_their_order(self) -> None:
        async def main() -> None:
            threads: set[int] = set()
            seen = Signals()
            source: Subject[int] = Subject()

            def on_next(item: int) -> None:
                threads.add(threading.get_ident())
                seen.on_next(item)

            def produce() -> None:
                for number in range(100):
                    source.on_next(number)
                source.on_completed()

            on_loop(source, asyncio.get_running_loop()).subscribe(on_next, seen.on_error, seen.on_completed)
            await asyncio.to_thread(produce)
            await seen.ended.passed()
            assert threads == {threading.get_ident()}
            assert seen.items == list(range(100))
            assert seen.ends == ["completed"]

        asyncio.run(main())

    def test_nothing_overtakes_an_item_that_had_to_hop(self) -> None:
        async def main() -> None:
            seen = Signals()
            source: Subject[str] = Subject()
            seen.subscribe_to(on_loop(source, asyncio.get_running_loop()))
            thread = threading.Thread(target=source.on_next, args=("from the thread",))
            thread.start()
            thread.join()
            source.on_next("from the loop")
            source.on_completed()
            await seen.ended.passed()
            assert seen.items == ["from the thread", "from the loop"]

        asyncio.run(main())
