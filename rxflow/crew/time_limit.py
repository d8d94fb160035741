"""``max_execution_time``: one deadline for all that an agent does on a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from rxflow.crew.assignment import Assignment


class TimeLimit:
    """Begins when it is made; all attempts at an answer and their judging share it."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._seconds = assignment.persona.agent.max_execution_time
        self._end = None if self._seconds is None else asyncio.get_running_loop().time() + self._seconds

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """Stop the body at the deadline.

        Raises:
            TimeoutError: it was over; says whose, and for which task.
        """
        deadline = asyncio.timeout_at(self._end)
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimeoutError(
                f"agent {self._assignment.persona.role!r} was not done with task {self._assignment.title!r} "
                f"within max_execution_time={self._seconds} seconds"
            ) from error
