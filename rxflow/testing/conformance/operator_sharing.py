"""Rules about an operator that is used more than once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reactivex import Observable

from rxflow.testing.conformance.operator_case import OperatorCase
from rxflow.testing.conformance.puppet import Puppet, Strand
from rxflow.testing.conformance.rule import Rule, rule
from rxflow.testing.conformance.witness import Witness, shortly

SHARING: list[Rule[OperatorCase]] = []


@rule("one subscription after another gives the same", SHARING)
async def _sequential(case: OperatorCase) -> None:
    puppet, seen = Puppet(), list[Witness]()
    piped = case.piped(puppet)
    for _ in range(2):
        begun, witness = len(puppet.strands), Witness()
        case.watch(piped, witness)
        strand = await case.strand(puppet, begun + 1)
        strand.say(case.items)
        strand.complete()
        await case.ended_as_declared(witness, puppet, Strand.complete)
        seen.append(witness)
    _require_same(case, seen, "the first subscription", "the second")


@rule("a disposed subscription leaves nothing to the next", SHARING)
async def _after_a_disposed_one(case: OperatorCase) -> None:
    puppet = Puppet()
    piped = case.piped(puppet)
    subscription = case.watch(piped, Witness())
    (await case.strand(puppet)).say(case.items[: case.half])
    case.dispose(subscription)
    begun, witness = len(puppet.strands), Witness()
    case.watch(piped, witness)
    strand = await case.strand(puppet, begun + 1)
    strand.say(case.items)
    strand.complete()
    await case.ended_as_declared(witness, puppet, Strand.complete)
    fresh = await case.outcome(Strand.complete)
    _require_same(case, [fresh, witness], "a first subscription", "one after another was disposed")


@rule("subscriptions to the same stream, at the same time, share nothing", SHARING)
async def _interleaved(case: OperatorCase) -> None:
    alone = await case.outcome(Strand.complete)
    puppet = Puppet()
    piped = case.piped(puppet)
    await _side_by_side(case, alone, [puppet, puppet], [piped, piped])


@rule("two streams through the same operator object share nothing", SHARING)
async def _same_operator(case: OperatorCase) -> None:
    alone = await case.outcome(Strand.complete)
    puppets = [Puppet(), Puppet()]
    await _side_by_side(case, alone, puppets, [case.piped(puppet) for puppet in puppets])


@rule("the scheduler of the subscription is handed on to the source", SHARING)
async def _scheduler(case: OperatorCase) -> None:
    if case.declared.own_scheduler:
        return
    puppet, scheduler = Puppet(), case.scheduler()
    subscription = case.watch(case.piped(puppet), Witness(), scheduler)
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
    """Two subscriptions whose sources take turns; each must give what it gives alone."""
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
        await case.ended_as_declared(witness, puppet, Strand.complete)
        _require_same(case, [alone, witness], "a subscription by itself", "one beside another")


def _require_same(case: OperatorCase, seen: list[Witness], one: str, other: str) -> None:
    if not case.same(seen[0].items, seen[1].items):
        raise case.broken(f"{one} gave {shortly(seen[0].items)}, and {other} {shortly(seen[1].items)}")
