"""The rules for sources."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase

from rxflow.testing._conformance.harness import (
    SIGNAL_TIMEOUT_S,
    Case,
    Rule,
    Witness,
    rule,
    shortly,
    subscribe_unprotected,
)
from rxflow.testing._conformance.operator_rules import Failure

Factory = Callable[[], Observable[Any]]


class SourceCase(Case):
    """A case that checks one rule with a source. ``factory`` creates the source, and may be called several times."""

    def __init__(
        self,
        subject: str,
        factory: Factory,
        *,
        key: Callable[[Any], object],
        ends: bool,
        settling: float,
        real_time: bool,
    ) -> None:
        super().__init__(subject, settling=settling, real_time=real_time)
        self.factory = factory
        self.ends = ends
        self.key = key

    def subscribe(self, source: Observable[Any], witness: Witness) -> DisposableBase:
        """Subscribe through RxPY, as programs do."""
        try:
            return source.subscribe(witness, scheduler=self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    def watch(self, source: Observable[Any], witness: Witness) -> DisposableBase:
        """Subscribe without RxPY's protection; see :func:`subscribe_unprotected`."""
        try:
            return subscribe_unprotected(source, witness, self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    async def wait_for_first(self, witness: Witness) -> None:
        """Wait for the first signal. Raises ConformanceError if no signal comes and the source is one that ends."""
        if not await self.wait_until(witness, lambda: witness.signals > 0) and self.ends:
            raise self.broken("no signal came")

    async def wait_for_all(self, witness: Witness) -> None:
        """Wait for the end. If the source never ends, wait for its first signal and then for the settling time."""
        if self.ends:
            await self.wait_for_end(witness)
        else:
            await self.wait_for_first(witness)
            await self.settle()

    def same(self, one: Sequence[Any], other: Sequence[Any]) -> bool:
        """Return whether two outputs are equal by ``key``.

        Outputs of a source that never ends are compared up to the length of the shorter output.
        """
        if not self.ends:
            length = min(len(one), len(other))
            one, other = one[:length], other[:length]
        return [self.key(item) for item in one] == [self.key(item) for item in other]

    async def require_no_tasks(self, before: set[asyncio.Task[Any]], when: str) -> None:
        """Require that the loop's tasks, except those in ``before``, end within ``SIGNAL_TIMEOUT_S`` of loop time."""
        left = asyncio.all_tasks() - before
        if left:
            _, left = await asyncio.wait(left, timeout=SIGNAL_TIMEOUT_S)
        if left:
            raise self.broken(f"{when} it left tasks behind: {left}")


SOURCE: list[Rule[SourceCase]] = []


@rule("subscribe returns, and one end comes, with nothing after it", SOURCE)
async def _one_end(case: SourceCase) -> None:
    case.dispose(case.subscribe(case.factory(), Witness()))
    witness = Witness()
    case.watch(case.factory(), witness)
    await case.wait_for_all(witness)
    await case.settle()
    if witness.after_the_end:
        raise case.broken(f"after its end came {', '.join(witness.after_the_end)}; it emitted {witness.signals_text}")
    if witness.terminals != case.ends:
        raise case.broken(f"it emitted {witness.signals_text}")


@rule("signals are serial", SOURCE)
async def _serial(case: SourceCase) -> None:
    witness = Witness(lingers=True)
    subscription = case.watch(case.factory(), witness)
    await case.wait_for_all(witness)
    case.dispose(subscription)
    if witness.overlaps:
        raise case.broken(witness.overlaps[0])


@rule("it is cold: one subscription after another gives the same", SOURCE)
async def _sequential(case: SourceCase) -> None:
    source, seen = case.factory(), [Witness(), Witness()]
    for witness in seen:
        subscription = case.subscribe(source, witness)
        await case.wait_for_all(witness)
        case.dispose(subscription)
    _require_same(case, seen[0], seen[1])


@rule("it is cold: two subscriptions at the same time do not disturb each other", SOURCE)
async def _interleave(case: SourceCase) -> None:
    source, seen = case.factory(), [Witness(), Witness()]
    subscriptions = [case.subscribe(source, witness) for witness in seen]
    for witness in seen:
        await case.wait_for_all(witness)
    for subscription in subscriptions:
        case.dispose(subscription)
    _require_same(case, seen[0], seen[1])


@rule("disposing one of two subscriptions leaves the other alone", SOURCE)
async def _other_is_disposed(case: SourceCase) -> None:
    source, seen = case.factory(), [Witness(), Witness()]
    subscriptions = [case.subscribe(source, witness) for witness in seen]
    await case.wait_for_first(seen[0])
    case.dispose(subscriptions[0])
    await case.wait_for_all(seen[1])
    case.dispose(subscriptions[1])
    whole = Witness()
    subscription = case.subscribe(case.factory(), whole)
    await case.wait_for_all(whole)
    case.dispose(subscription)
    _require_same(case, whole, seen[1])


@rule("disposed before its first item, it emits nothing", SOURCE)
async def _before_the_first(case: SourceCase) -> None:
    witness = Witness()
    subscription = case.watch(case.factory(), witness)
    count_before = witness.signals  # the number of signals that came while subscribing
    case.dispose(subscription)
    case.dispose(subscription)
    await case.settle()
    if witness.signals != count_before:
        raise case.broken(f"disposed at once, it emitted {witness.signals_text}")


@rule("signals stop with the disposal", SOURCE)
async def _stops(case: SourceCase) -> None:
    witness = Witness()
    subscription = case.watch(case.factory(), witness)
    await case.wait_for_first(witness)
    case.dispose(subscription)
    count_before = witness.signals
    await case.settle()
    case.require_silence(witness, count_before)


@rule("no signal follows after the observer has disposed during a signal", SOURCE)
async def _from_inside(case: SourceCase) -> None:
    subscriptions: list[DisposableBase] = []

    def on_item(_: object) -> None:
        if subscriptions:  # empty until subscribe() has returned the subscription
            case.dispose(subscriptions[0])
            disposed_at.append(witness.signals)

    disposed_at: list[int] = []
    witness = Witness(on_item)
    subscriptions.append(case.subscribe(case.factory(), witness))
    await case.wait_for_first(witness)
    await case.settle()
    if disposed_at and witness.signals > disposed_at[0]:
        raise case.broken(f"disposed during an item, it emitted {witness.signals_text}")


@rule("disposing is quick and idempotent, from any thread, and never raises", SOURCE)
async def _elsewhere(case: SourceCase) -> None:
    witness = Witness()
    subscription = case.subscribe(case.factory(), witness)
    await case.wait_for_first(witness)
    case.dispose_elsewhere(subscription)
    count_before = witness.signals
    case.dispose(subscription)
    case.dispose_elsewhere(subscription)
    await case.settle()
    case.require_silence(witness, count_before)


@rule("disposing after the end does nothing", SOURCE)
async def _after_the_end(case: SourceCase) -> None:
    witness = Witness()
    subscription = case.watch(case.factory(), witness)
    await case.wait_for_all(witness)
    case.dispose(subscription)
    case.dispose(subscription)
    await case.settle()
    if witness.after_the_end:
        raise case.broken(f"it emitted {witness.signals_text}")


@rule("nothing of it continues after its end or disposal", SOURCE)
async def _leaves_nothing(case: SourceCase) -> None:
    before = asyncio.all_tasks()
    for enough in _ways(case):
        witness = Witness()
        subscription = case.subscribe(case.factory(), witness)
        await enough(witness)
        case.dispose(subscription)
        await case.require_no_tasks(before, "ended or disposed")


@rule("an ended or disposed stream keeps no reference to its observer", SOURCE)
async def _forgets(case: SourceCase) -> None:
    for enough in _ways(case):
        source = case.factory()
        observer = await _use(case, source, enough)
        await case.settle()
        case.require_forgotten(observer, "ended or disposed,")
        del source


@rule("an observer's error is reported", SOURCE, may_report=True)
async def _raising(case: SourceCase) -> None:
    error = Failure("the observer cannot take it")

    def on_item(_: object) -> None:
        raise error

    witness = Witness(on_item)
    try:
        subscription = case.factory().subscribe(witness, scheduler=case.scheduler())
    except Failure:
        return  # the source emits during subscribe, and the subscriber gets the error
    await case.wait_for_first(witness)
    await case.settle()
    if case.reports:
        case.dispose(subscription)
    else:
        # asyncio reports the error of an unawaited task only when the task is garbage-collected. So drop everything
        # that may keep the task alive. Do not dispose, because the error of a cancelled task is not reported.
        error.__traceback__ = None
        del subscription
        gc.collect()
    is_heard_of = bool(case.reports) or any(each is error for each in witness.errors)
    if witness.items and not is_heard_of:
        raise case.broken(
            f"on_next raised {error!r}; neither on_error nor the loop's exception handler nor subscribe got the error"
        )


def _ways(case: SourceCase) -> list[Callable[[Witness], Awaitable[None]]]:
    """Return three ways to wait before a source is disposed: not at all, for its first signal, and for its end.

    If the source never ends, the third way waits for the first signal and then for the settling time.
    """

    async def not_at_all(witness: Witness) -> None:
        """Do not wait, so that the source is disposed at once."""

    return [not_at_all, case.wait_for_first, case.wait_for_all]


async def _use(case: SourceCase, source: Observable[Any], enough: Callable[[Witness], Awaitable[None]]) -> Any:
    """Subscribe, wait by calling ``enough``, and dispose. Return a weak reference to the observer.

    The observer is created in this function, so that no variable of the caller keeps it alive.
    """
    witness = Witness()
    subscription = case.subscribe(source, witness)
    await enough(witness)
    case.dispose(subscription)
    return witness.release()


def _require_same(case: SourceCase, one: Witness, other: Witness) -> None:
    if not case.same(one.items, other.items) or type(one.error) is not type(other.error):
        raise case.broken(
            f"one subscription got {_describe_signals(case, one)}; the other one {_describe_signals(case, other)}"
        )


def _describe_signals(case: SourceCase, witness: Witness) -> str:
    return f"{shortly([case.key(item) for item in witness.items])} and {witness.error!r}"
