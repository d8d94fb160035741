"""Rules about what an operator tells its observer."""

from __future__ import annotations

import itertools
import sys
from typing import Any

from rxflow.testing.conformance.operator_case import Failure, OperatorCase, failing
from rxflow.testing.conformance.puppet import Puppet, Strand
from rxflow.testing.conformance.rule import Rule, rule
from rxflow.testing.conformance.witness import Witness, shortly

FIRST: list[Rule[OperatorCase]] = []
"""Where one of these is broken, the others would say confusing things."""

GRAMMAR: list[Rule[OperatorCase]] = []

MANY = 10_000
_DEEPER = 100  # frames by which the last of many items may come deeper than the first


@rule("nothing begins before it is subscribed", FIRST)
async def _lazy(case: OperatorCase) -> None:
    puppet = Puppet()
    case.piped(puppet)
    if puppet.strands:
        raise case.broken("putting it into a pipe subscribed the source already")


@rule("exactly one end, and nothing after it", FIRST)
async def _one_end(case: OperatorCase) -> None:
    for end in (Strand.complete, failing):
        witness = await case.outcome(end)
        await case.settle()
        if witness.after_the_end:
            raise case.broken(f"after its end came {', '.join(witness.after_the_end)}; it was told {witness.told}")
        if witness.terminals != 1:
            raise case.broken(f"it was told {witness.told}")


@rule("signals are serial", GRAMMAR)
async def _serial(case: OperatorCase) -> None:
    puppet, witness = Puppet(), Witness(lingers=True)
    case.watch(case.piped(puppet), witness)
    strand = await case.strand(puppet)
    strand.say(case.items)
    strand.complete()
    await case.ended_as_declared(witness, puppet, Strand.complete)
    if witness.overlaps:
        raise case.broken(witness.overlaps[0])


@rule("subscribe returns, and what fails in it comes as on_error", GRAMMAR)
async def _failing_subscribe(case: OperatorCase) -> None:
    error = Failure("the source cannot be subscribed")

    def fail(strand: Strand) -> None:
        raise error

    witness = Witness()
    case.subscribe(case.piped(Puppet(fail)), witness)
    await case.ended(witness)
    if witness.error is not error and not case.declared.recovers:
        raise case.broken(f"the source raised {error!r} when it was subscribed, and it was told {witness.told}")


@rule("an error of the source goes through, after what had arrived before it", GRAMMAR)
async def _errors(case: OperatorCase) -> None:
    error = Failure("the source fails")
    for number in (0, case.half, len(case.items)):
        items = case.items[:number]
        completed = await case.outcome(Strand.complete, items)
        failed = await case.outcome(lambda strand: strand.fail(error), items)
        if case.declared.recovers:
            continue
        if completed.error is None and failed.error is not error and not _ended_before(case, completed, failed):
            raise case.broken(f"the source said {items!r} and failed with {error!r}, and it was told {failed.told}")
        expected = completed.items[: len(failed.items)] if case.declared.holds_back else completed.items
        if not case.same(failed.items, expected):
            raise case.broken(
                f"where the source said {items!r} and failed, these came: {shortly(failed.items)}; where it said the "
                f"same and completed, these: {shortly(completed.items)}. If an error is meant to overtake what the "
                "operator still holds, declare it with holds_back=True"
            )


def _ended_before(case: OperatorCase, completed: Witness, failed: Witness) -> bool:
    """It had enough before the source came to its end, as ``take`` does."""
    return failed.completions == 1 and case.same(failed.items, completed.items) and failed.signals == completed.signals


@rule("a source that emits while it is subscribed gives the same as one that emits later", GRAMMAR)
async def _synchronous(case: OperatorCase) -> None:
    def play(strand: Strand) -> None:
        strand.say(case.items)
        strand.complete()

    later = await case.outcome(Strand.complete)
    puppet, witness = Puppet(play if not case.declared.resubscribes else _first_only(play)), Witness()
    case.subscribe(case.piped(puppet), witness)
    await case.ended_as_declared(witness, puppet, Strand.complete)
    if not case.same(witness.items, later.items) or bool(witness.errors) != bool(later.errors):
        raise case.broken(f"at once: {witness.told}; later: {later.told}")


@rule(f"{MANY:,} items at once do not nest", GRAMMAR)
async def _many(case: OperatorCase) -> None:
    def play(strand: Strand) -> None:
        strand.say(itertools.islice(itertools.cycle(case.items), MANY))
        strand.complete()

    depths: list[int] = []
    puppet, witness = Puppet(_first_only(play)), Witness(lambda _: _note_depth(depths))
    case.subscribe(case.piped(puppet), witness)
    await case.ended_as_declared(witness, puppet, Strand.complete)
    if isinstance(witness.error, RecursionError):
        raise case.broken(f"it ended with {witness.error!r} after {len(witness.items)} items")
    if depths and max(depths) > depths[0] + _DEEPER:
        raise case.broken(f"the first item came {depths[0]} calls deep, and a later one {max(depths)}")


@rule("an empty source comes to an end", GRAMMAR)
async def _empty(case: OperatorCase) -> None:
    witness = await case.outcome(Strand.complete, [])
    if witness.terminals != 1:
        raise case.broken(f"it was told {witness.told}")


def _first_only(play: Any) -> Any:
    """Play on the first subscription; others just end."""
    first = itertools.count()

    def on_subscribe(strand: Strand) -> None:
        if next(first) == 0:
            play(strand)
        else:
            strand.complete()

    return on_subscribe


def _note_depth(depths: list[int]) -> None:
    # Walking the stack costs microseconds: now and then is enough to see it grow.
    if len(depths) % 1000 > 2:
        depths.append(depths[-1])
        return
    depth, frame = 0, sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    depths.append(depth)
