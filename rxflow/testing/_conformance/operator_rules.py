"""The rules for operators: the grammar of signals, and the independence of subscriptions."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, SchedulerBase

from rxflow.testing._conformance.harness import (
    Case,
    Puppet,
    Rule,
    Strand,
    Witness,
    rule,
    shortly,
    subscribe_unprotected,
)

Operator = Callable[[Observable[Any]], Observable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The properties that a test declares for its operator, as arguments of :func:`check_operator`.

    A declared behaviour, such as ``recovers``, does not break a rule.
    """

    items: Sequence[Any]
    key: Callable[[Any], object]
    whole: Callable[[Any], object]
    recovers: bool
    holds_back: bool
    resubscribes: bool
    own_scheduler: bool


_STEPS = 10


class Failure(Exception):
    """The error that a check causes on purpose."""


def failing(strand: Strand) -> None:
    """End a strand with an error. Rules that try both kinds of ends use this function and ``Strand.complete``."""
    strand.fail(Failure("the source fails"))


class OperatorCase(Case):
    """A case that checks one rule with one operator. The sources of the operator are puppets."""

    def __init__(self, subject: str, operator: Operator, declared: Declared, *, settling: float) -> None:
        super().__init__(subject, settling=settling)
        self.operator = operator
        self.declared = declared
        self.items = list(declared.items)
        self.half = len(self.items) // 2 or 1

    def apply_to(self, puppet: Puppet) -> Observable[Any]:
        """Apply the operator to a puppet, and return the resulting Observable."""
        return self.operator(puppet.observable)

    def watch(
        self, source: Observable[Any], witness: Witness, scheduler: SchedulerBase | None = None
    ) -> DisposableBase:
        """Subscribe without RxPY's protection; see :func:`subscribe_unprotected`."""
        try:
            return subscribe_unprotected(source, witness, scheduler or self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    def subscribe(self, source: Observable[Any], witness: Witness) -> DisposableBase:
        """Subscribe through RxPY, as programs do."""
        try:
            return source.subscribe(witness, scheduler=self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    async def strand(self, puppet: Puppet, number: int = 1) -> Strand:
        """Return strand ``number`` of the puppet, counted from 1.

        Raises ConformanceError if the puppet has fewer strands. Also raises the error of :meth:`strand_if_any`.
        """
        strand = await self.strand_if_any(puppet, number)
        if strand is None:
            raise self.broken(
                f"it has not subscribed its source{' again' if number > 1 else ''}, so it cannot be checked"
            )
        return strand

    async def strand_if_any(self, puppet: Puppet, number: int = 1) -> Strand | None:
        """Return strand ``number`` of the puppet, counted from 1; None if there are fewer strands.

        If necessary, wait for the strand: an operator that uses a scheduler may subscribe its source later.
        Raises ConformanceError if the puppet has more strands than ``number``, unless ``resubscribes`` is declared.
        """
        for _ in range(_STEPS):
            if len(puppet.strands) < number:
                await asyncio.sleep(0)
        if len(puppet.strands) < number:
            await self.settle()
        if len(puppet.strands) > number and not self.declared.resubscribes:
            raise self.broken(
                f"{number} subscription(s) to it have subscribed its source {len(puppet.strands)}×; "
                "if it is meant to, declare it with resubscribes=True"
            )
        return puppet.strands[number - 1] if len(puppet.strands) >= number else None

    async def outcome(self, end: Callable[[Strand], object], items: Sequence[Any] | None = None) -> Witness:
        """Subscribe, let the source emit ``items``, and call ``end`` to end the source. Return the witness.

        By default, the source emits all items of the case.
        """
        puppet, witness = Puppet(), Witness()
        self.watch(self.apply_to(puppet), witness)
        strand = await self.strand(puppet)
        strand.say(self.items if items is None else items)
        end(strand)
        await self.wait_for_declared_end(witness, puppet)
        return witness

    async def wait_for_declared_end(self, witness: Witness, puppet: Puppet) -> None:
        """Wait until ``witness`` has a terminal.

        If ``resubscribes`` is declared, complete the open strands of ``puppet`` until the terminal comes.
        """
        while self.declared.resubscribes and not witness.terminals:
            await self.settle()
            waiting = [strand for strand in puppet.strands if not strand.is_over]
            if not waiting or len(puppet.strands) > 100:
                break
            for strand in waiting:
                strand.complete()
        await self.wait_for_end(witness)

    def same(self, one: Sequence[Any], other: Sequence[Any]) -> bool:
        """Return whether two outputs are equal by ``key`` and ``whole``."""
        key, whole = self.declared.key, self.declared.whole
        return whole([key(item) for item in one]) == whole([key(item) for item in other])


FIRST: list[Rule[OperatorCase]] = []
"""The rules that are checked first. If one of them is broken, the results of all other rules would mislead."""

GRAMMAR: list[Rule[OperatorCase]] = []

BURST_ITEMS = 10_000
_MAX_EXTRA_FRAMES = 100  # an item may be at most this many stack frames deeper than the first item


@rule("nothing starts before the subscription", FIRST)
async def _lazy(case: OperatorCase) -> None:
    puppet = Puppet()
    case.apply_to(puppet)
    if puppet.strands:
        raise case.broken("putting it into a pipe subscribed the source already")


@rule("exactly one end, and nothing after it", FIRST)
async def _one_end(case: OperatorCase) -> None:
    for end in (Strand.complete, failing):
        witness = await case.outcome(end)
        await case.settle()
        if witness.after_the_end:
            raise case.broken(
                f"after its end came {', '.join(witness.after_the_end)}; it emitted {witness.signals_text}"
            )
        if witness.terminals != 1:
            raise case.broken(f"it emitted {witness.signals_text}")


@rule("signals are serial", GRAMMAR)
async def _serial(case: OperatorCase) -> None:
    puppet, witness = Puppet(), Witness(lingers=True)
    case.watch(case.apply_to(puppet), witness)
    strand = await case.strand(puppet)
    strand.say(case.items)
    strand.complete()
    await case.wait_for_declared_end(witness, puppet)
    if witness.overlaps:
        raise case.broken(witness.overlaps[0])


@rule("subscribe returns, and an error in it becomes on_error", GRAMMAR)
async def _failing_subscribe(case: OperatorCase) -> None:
    error = Failure("the source cannot be subscribed")

    def fail(strand: Strand) -> None:
        raise error

    witness = Witness()
    case.subscribe(case.apply_to(Puppet(fail)), witness)
    await case.wait_for_end(witness)
    if witness.error is not error and not case.declared.recovers:
        raise case.broken(f"the source's subscribe raised {error!r}, and the operator emitted {witness.signals_text}")


@rule("an error of the source is passed on, after the items before it", GRAMMAR)
async def _errors(case: OperatorCase) -> None:
    error = Failure("the source fails")
    for number in (0, case.half, len(case.items)):
        items = case.items[:number]
        completed = await case.outcome(Strand.complete, items)
        failed = await case.outcome(lambda strand: strand.fail(error), items)
        if case.declared.recovers:
            continue
        if completed.error is None and failed.error is not error and not _ends_before_source(case, completed, failed):
            raise case.broken(
                f"the source emitted {items!r} and failed with {error!r}; the operator emitted {failed.signals_text}"
            )
        expected = completed.items[: len(failed.items)] if case.declared.holds_back else completed.items
        if not case.same(failed.items, expected):
            raise case.broken(
                f"if the source emits {items!r} and fails, it emits {shortly(failed.items)}; if the source emits the "
                f"same and completes, it emits {shortly(completed.items)}. If an error is meant to overtake what the "
                "operator still holds, declare it with holds_back=True"
            )


def _ends_before_source(case: OperatorCase, completed: Witness, failed: Witness) -> bool:
    """Return whether the operator ended before its source, as ``take`` does."""
    return failed.completions == 1 and case.same(failed.items, completed.items) and failed.signals == completed.signals


@rule("a source that emits while it is subscribed gives the same as one that emits later", GRAMMAR)
async def _synchronous(case: OperatorCase) -> None:
    def play(strand: Strand) -> None:
        strand.say(case.items)
        strand.complete()

    later = await case.outcome(Strand.complete)
    puppet, witness = Puppet(play if not case.declared.resubscribes else _first_only(play)), Witness()
    case.subscribe(case.apply_to(puppet), witness)
    await case.wait_for_declared_end(witness, puppet)
    if not case.same(witness.items, later.items) or bool(witness.errors) != bool(later.errors):
        raise case.broken(f"at once: {witness.signals_text}; later: {later.signals_text}")


@rule(f"{BURST_ITEMS:,} items at once cause no recursion", GRAMMAR)
async def _many(case: OperatorCase) -> None:
    def play(strand: Strand) -> None:
        strand.say(itertools.islice(itertools.cycle(case.items), BURST_ITEMS))
        strand.complete()

    depths: list[int] = []
    puppet, witness = Puppet(_first_only(play)), Witness(lambda _: _note_depth(depths))
    case.subscribe(case.apply_to(puppet), witness)
    await case.wait_for_declared_end(witness, puppet)
    if isinstance(witness.error, RecursionError):
        raise case.broken(f"it ended with {witness.error!r} after {len(witness.items)} items")
    if depths and max(depths) > depths[0] + _MAX_EXTRA_FRAMES:
        raise case.broken(f"the first item came {depths[0]} calls deep, and a later one {max(depths)}")


@rule("an empty source leads to an end", GRAMMAR)
async def _empty(case: OperatorCase) -> None:
    witness = await case.outcome(Strand.complete, [])
    if witness.terminals != 1:
        raise case.broken(f"it emitted {witness.signals_text}")


def _first_only(play: Any) -> Any:
    """Return a function for ``on_subscribe`` that calls ``play`` with the first strand and completes all others."""
    first = itertools.count()

    def on_subscribe(strand: Strand) -> None:
        if next(first) == 0:
            play(strand)
        else:
            strand.complete()

    return on_subscribe


def _note_depth(depths: list[int]) -> None:
    # Measuring the stack takes microseconds, so only three of every 1000 items are measured. These items are enough to
    # show whether the stack grows.
    if len(depths) % 1000 > 2:
        depths.append(depths[-1])
        return
    depth, frame = 0, sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    depths.append(depth)


SHARING: list[Rule[OperatorCase]] = []


@rule("one subscription after another gives the same", SHARING)
async def _sequential(case: OperatorCase) -> None:
    puppet, seen = Puppet(), list[Witness]()
    piped = case.apply_to(puppet)
    for _ in range(2):
        begun, witness = len(puppet.strands), Witness()
        case.watch(piped, witness)
        strand = await case.strand(puppet, begun + 1)
        strand.say(case.items)
        strand.complete()
        await case.wait_for_declared_end(witness, puppet)
        seen.append(witness)
    _require_same(case, seen, "the first subscription", "the second")


@rule("a disposed subscription leaves nothing to the next", SHARING)
async def _after_a_disposed_one(case: OperatorCase) -> None:
    puppet = Puppet()
    piped = case.apply_to(puppet)
    subscription = case.watch(piped, Witness())
    (await case.strand(puppet)).say(case.items[: case.half])
    case.dispose(subscription)
    begun, witness = len(puppet.strands), Witness()
    case.watch(piped, witness)
    strand = await case.strand(puppet, begun + 1)
    strand.say(case.items)
    strand.complete()
    await case.wait_for_declared_end(witness, puppet)
    fresh = await case.outcome(Strand.complete)
    _require_same(case, [fresh, witness], "a first subscription", "one after another was disposed")


@rule("subscriptions to the same stream, at the same time, share nothing", SHARING)
async def _interleave(case: OperatorCase) -> None:
    alone = await case.outcome(Strand.complete)
    puppet = Puppet()
    piped = case.apply_to(puppet)
    await _side_by_side(case, alone, [puppet, puppet], [piped, piped])


@rule("two streams through the same operator object share nothing", SHARING)
async def _same_operator(case: OperatorCase) -> None:
    alone = await case.outcome(Strand.complete)
    puppets = [Puppet(), Puppet()]
    await _side_by_side(case, alone, puppets, [case.apply_to(puppet) for puppet in puppets])


@rule("the scheduler of the subscription is handed on to the source", SHARING)
async def _scheduler(case: OperatorCase) -> None:
    if case.declared.own_scheduler:
        return
    puppet, scheduler = Puppet(), case.scheduler()
    subscription = case.watch(case.apply_to(puppet), Witness(), scheduler)
    given = (await case.strand(puppet)).scheduler
    case.dispose(subscription)
    if given is not scheduler:
        raise case.broken(
            f"it was subscribed with {scheduler!r}, and the source with {given!r}; "
            "if it is meant to choose one, declare it with own_scheduler=True"
        )


async def _side_by_side(
    case: OperatorCase, alone: Witness, puppets: Sequence[Puppet], streams: Sequence[Observable[Any]]
) -> None:
    """Check two subscriptions at the same time, with sources that emit in turn.

    Each subscription must get the same items as ``alone``.
    """
    strands, witnesses = list[Strand](), list[Witness]()
    for puppet, stream in zip(puppets, streams, strict=True):
        begun, witness = len(puppet.strands), Witness()
        case.watch(stream, witness)
        strands.append(await case.strand(puppet, begun + 1))
        witnesses.append(witness)
    for item in case.items:
        for strand in strands:
            strand.say([item])
    for strand in strands:
        strand.complete()
    for puppet, witness in zip(puppets, witnesses, strict=True):
        await case.wait_for_declared_end(witness, puppet)
        _require_same(case, [alone, witness], "a subscription by itself", "one beside another")


def _require_same(case: OperatorCase, seen: list[Witness], one: str, other: str) -> None:
    if not case.same(seen[0].items, seen[1].items):
        raise case.broken(f"{one} gave {shortly(seen[0].items)}, and {other} {shortly(seen[1].items)}")
