"""A source under trial."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase

from rxflow.testing.conformance.rule import PATIENCE, Case
from rxflow.testing.conformance.witness import Witness, watched

Factory = Callable[[], Observable[Any]]


class SourceCase(Case):
    """A source, made anew for each rule."""

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
        """Subscribe as everybody does."""
        try:
            return source.subscribe(witness, scheduler=self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    def watch(self, source: Observable[Any], witness: Witness) -> DisposableBase:
        """Subscribe below RxPY's safety net."""
        try:
            return watched(source, witness, self.scheduler())
        except Exception as error:
            raise self.broken(f"subscribe raised {error!r}") from error

    async def told_something(self, witness: Witness) -> None:
        """Wait for the first signal; a source without an end need not say any."""
        if not await self.told(witness, lambda: witness.signals > 0) and self.ends:
            raise self.broken("no signal came")

    async def told_enough(self, witness: Witness) -> None:
        """Wait for the end, or where there is none for a while."""
        if self.ends:
            await self.ended(witness)
        else:
            await self.told_something(witness)
            await self.settle()

    def same(self, one: Sequence[Any], other: Sequence[Any]) -> bool:
        """Equal, as far as the key looks; of a stream without an end as many as both have."""
        if not self.ends:
            length = min(len(one), len(other))
            one, other = one[:length], other[:length]
        return [self.key(item) for item in one] == [self.key(item) for item in other]

    async def require_no_tasks(self, before: set[asyncio.Task[Any]], when: str) -> None:
        """Nothing of it may go on on the loop."""
        left = asyncio.all_tasks() - before
        if left:
            _, left = await asyncio.wait(left, timeout=PATIENCE)
        if left:
            raise self.broken(f"{when} it left tasks behind: {left}")
