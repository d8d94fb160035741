"""Rules about how an operator is stopped, and how it treats its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import operators as ops

from rxflow.testing._conformance.harness import Puppet, Rule, Strand, Witness, rule
from rxflow.testing._conformance.operator_rules import Failure, OperatorCase, failing

DISPOSAL: list[Rule[OperatorCase]] = []


@rule("signals stop with the disposal, even if the source continues", DISPOSAL)
async def _stops(case: OperatorCase) -> None:
    puppet, witness = Puppet(stubborn=True), Witness()
    subscription = case.watch(case.apply_to(puppet), witness)
    strand = await case.strand(puppet)
    strand.say(case.items[: case.half])
    case.dispose(subscription)
    count_before = witness.signals
    try:
        strand.say(case.items[case.half :])
        strand.complete()
    except Exception as error:
        raise case.broken(f"a source that went on after the disposal got {error!r}") from error
    await case.settle()
    case.require_silence(witness, count_before)


@rule("no signal follows after the observer has disposed during a signal", DISPOSAL)
async def _from_inside(case: OperatorCase) -> None:
    subscriptions: list[Any] = []
    disposed_at: list[int] = []

    def on_item(_: object) -> None:
        if subscriptions:  # empty while subscribe() runs, because nothing can be disposed until it returns
            case.dispose(subscriptions[0])
            disposed_at.append(witness.signals)

    puppet, witness = Puppet(), Witness(on_item)
    subscriptions.append(case.subscribe(case.apply_to(puppet), witness))
    strand = await case.strand_if_any(puppet)  # None if on_item() disposed before the source was subscribed
    if strand is not None:
        strand.say(case.items)
        strand.complete()
    await case.settle()
    if disposed_at and witness.signals > disposed_at[0]:
        raise case.broken(f"disposed during an item, it emitted {witness.signals_text}")


@rule("disposing also disposes the source, at once", DISPOSAL)
async def _source_too(case: OperatorCase) -> None:
    for number in (0, case.half):
        puppet = Puppet()
        subscription = case.subscribe(case.apply_to(puppet), Witness())
        strand = await case.strand(puppet)
        strand.say(case.items[:number])
        case.dispose(subscription)
        if any(not strand.is_over for strand in puppet.strands):
            raise case.broken(f"after {number} item(s) it was disposed, and its source was not")


@rule("the source is disposed as soon as downstream has enough", DISPOSAL)
async def _enough(case: OperatorCase) -> None:
    puppet, witness = Puppet(), Witness()
    case.subscribe(case.apply_to(puppet).pipe(ops.take(1)), witness)
    strand = await case.strand_if_any(puppet)
    if strand is not None:
        for item in case.items:
            if not witness.terminals:
                strand.say([item])
        if not witness.terminals:
            strand.complete()
            await case.wait_for_declared_end(witness, puppet)
    if any(not strand.is_over for strand in puppet.strands):
        raise case.broken("take(1) after it had its item, and the source stayed subscribed")


@rule("disposing is quick and idempotent, from any thread, and never raises", DISPOSAL)
async def _elsewhere(case: OperatorCase) -> None:
    puppet, witness = Puppet(), Witness()
    subscription = case.subscribe(case.apply_to(puppet), witness)
    (await case.strand(puppet)).say(case.items[: case.half])
    count_before = witness.signals
    case.dispose_elsewhere(subscription)
    case.dispose(subscription)
    case.dispose_elsewhere(subscription)
    await case.settle()
    if any(not strand.is_over for strand in puppet.strands):
        raise case.broken("it was disposed from another thread, and its source was not")
    case.require_silence(witness, count_before)
    ended = Puppet(), Witness()
    subscription = case.subscribe(case.apply_to(ended[0]), ended[1])
    (await case.strand(ended[0])).complete()
    await case.wait_for_declared_end(ended[1], ended[0])
    case.dispose(subscription)


@rule("the source is subscribed once, and disposed at the end", DISPOSAL)
async def _once(case: OperatorCase) -> None:
    for end in (Strand.complete, failing):
        puppet, witness = Puppet(), Witness()
        case.subscribe(case.apply_to(puppet), witness)
        strand = await case.strand(puppet)
        strand.say(case.items)
        end(strand)
        await case.wait_for_declared_end(witness, puppet)
        await case.settle()
        await case.strand(puppet)
        if any(not strand.is_over for strand in puppet.strands):
            raise case.broken(f"it emitted {witness.signals_text}, and a source is still subscribed")


@rule("an ended or disposed stream keeps no reference to its observer", DISPOSAL)
async def _forgets(case: OperatorCase) -> None:
    def disposed(puppet: Puppet, dispose: Callable[[], None]) -> None:
        dispose()

    def completed(puppet: Puppet, dispose: Callable[[], None]) -> None:
        puppet.strands[0].complete()

    def failed(puppet: Puppet, dispose: Callable[[], None]) -> None:
        failing(puppet.strands[0])

    for way in (disposed, completed, failed):
        puppet = Puppet()
        piped = case.apply_to(puppet)
        observer = await _use(case, puppet, piped, way)
        await case.settle()
        for strand in puppet.strands[1:]:
            strand.complete()
        await case.settle()
        case.require_forgotten(observer, f"once {way.__name__},")
        del piped


async def _use(
    case: OperatorCase, puppet: Puppet, piped: Any, end: Callable[[Puppet, Callable[[], None]], None]
) -> Any:
    """Subscribe, emit half of the items, and call ``end``. Return a weak reference to the observer.

    The observer is created in this function, so that no variable of the caller keeps it alive.
    """
    witness = Witness()
    subscription = case.subscribe(piped, witness)
    (await case.strand(puppet)).say(case.items[: case.half])
    end(puppet, lambda: case.dispose(subscription))
    return witness.release()


@rule("a source that never emits can be disposed", DISPOSAL)
async def _never(case: OperatorCase) -> None:
    puppet, witness = Puppet(), Witness()
    subscription = case.watch(case.apply_to(puppet), witness)
    await case.strand(puppet)
    await case.settle()
    case.dispose(subscription)
    if any(not strand.is_over for strand in puppet.strands):
        raise case.broken("it was disposed, and its source was not")
    if witness.terminals > 1:
        raise case.broken(f"it emitted {witness.signals_text}")


@rule("an observer's error is reported, and the source does not stay subscribed forever", DISPOSAL, may_report=True)
async def _raising(case: OperatorCase) -> None:
    error = Failure("the observer cannot take it")

    def on_item(_: object) -> None:
        raise error

    puppet, witness = Puppet(), Witness(on_item)
    subscription = case.subscribe(case.apply_to(puppet), witness)
    strand = await case.strand_if_any(puppet)  # None if on_item() raised before the source was subscribed
    is_heard_of = False
    try:
        if strand is not None:
            strand.say(case.items)
            strand.complete()
    except Failure:
        is_heard_of = True  # the source got the error from on_next()
    if not witness.items and not witness.terminals:
        await case.settle()
    if not witness.items:
        return  # the observer got no item, so it did not raise
    is_heard_of = is_heard_of or bool(case.reports) or any(each is error for each in witness.errors)
    if not is_heard_of:
        raise case.broken(
            f"on_next raised {error!r}; neither the source nor on_error nor the loop's exception handler got the error"
        )
    case.dispose(subscription)
    if any(not strand.is_over for strand in puppet.strands):
        raise case.broken("after on_next had raised, disposing did not dispose the source")
