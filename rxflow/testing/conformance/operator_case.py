"""An operator under trial, and what can be done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, SchedulerBase

from rxflow.testing.conformance.puppet import Puppet, Strand
from rxflow.testing.conformance.rule import Case
from rxflow.testing.conformance.witness import Witness, watched

Operator = Callable[[Observable[Any]], Observable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What an operator is meant to do, so that no rule takes it amiss."""

    items: Sequence[Any]
    key: Callable[[Any], object]
    whole: Callable[[Any], object]
    recovers: bool
    holds_back: bool
    resubscribes: bool
    own_scheduler: bool


_STEPS = 10


class Failure(Exception):
    """What goes wrong in a trial, on purpose."""


def failing(strand: Strand) -> None:
    """An end that is an error."""
    strand.fail(Failure("the source fails"))


class OperatorCase(Case):
    """One operator, on sources that are puppets."""

    def __init__(self, subject: str, operator: Operator, declared: Declared, *, settling: float) -> None:
        super().__init__(subject, settling=settling)
        self.operator = operator
        self.declared = declared
        self.items = list(declared.items)
        self.half = len(self.items) // 2 or 1

    def piped(self, puppet: Puppet) -> Observable[Any]:
        """The operator on a puppet."""
        return self.operator(puppet.observable)

    def watch(
        self, source: Observable[Any], witness: Witness, scheduler: SchedulerBase | None = None
    ) -> DisposableBase:
        """Subscribe below RxPY's safety net."""
        try:
            return watched(source, witness, scheduler or self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    def subscribe(self, source: Observable[Any], witness: Witness) -> DisposableBase:
        """Subscribe as everybody does."""
        try:
            return source.subscribe(witness, scheduler=self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    async def strand(self, puppet: Puppet, number: int = 1) -> Strand:
        """The subscription that the operator makes to its source: one for each of its own."""
        strand = await self.strand_if_any(puppet, number)
        if strand is None:
            raise self.broken(f"it has not subscribed its source{' anew' if number > 1 else ''}, so it cannot be tried")
        return strand

    async def strand_if_any(self, puppet: Puppet, number: int = 1) -> Strand | None:
        """The same where it may do without. By way of a scheduler it can come some steps of the loop later."""
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
        """What comes out where a source says ``items`` (else all), and then ends, after the subscription."""
        puppet, witness = Puppet(), Witness()
        self.watch(self.piped(puppet), witness)
        strand = await self.strand(puppet)
        strand.say(self.items if items is None else items)
        end(strand)
        await self.ended_as_declared(witness, puppet, end)
        return witness

    async def ended_as_declared(self, witness: Witness, puppet: Puppet, end: Callable[[Strand], object]) -> None:
        """Wait for the end, bringing to their end those sources too that are subscribed anew."""
        while self.declared.resubscribes and not witness.terminals:
            await self.settle()
            waiting = [strand for strand in puppet.strands if not strand.is_over]
            if not waiting or len(puppet.strands) > 100:
                break
            for strand in waiting:
                strand.complete()
        await self.ended(witness)

    def same(self, one: Sequence[Any], other: Sequence[Any]) -> bool:
        """Equal, as far as ``key`` and ``whole`` look."""
        key, whole = self.declared.key, self.declared.whole
        return whole([key(item) for item in one]) == whole([key(item) for item in other])
