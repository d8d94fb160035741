"""How a flow asks people: ``self.ask(…)`` in a method, and the history of what they said."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from rxflow._options import Seconds, to_seconds
from rxflow._streaming.emitter import Emitter
from rxflow._streaming.kickoff import run_async, run_blocking
from rxflow._streaming.launch import current_emitter
from rxflow._streaming.observable import EventStream
from rxflow._streaming.questions import Question, Who, answerer_of, asking
from rxflow._streaming.scope import Answerer
from rxflow.types import Event, InputReceived
from rxflow.types.answers import HumanFeedbackResult

if TYPE_CHECKING:
    from rxflow.flow._flow_run import Record
    from rxflow.flow._state import State
    from rxflow.flow.persistence import StateKeeper


class AsksPeople:
    """The part of a flow that speaks with people."""

    input_provider: Who | None = None
    """Who answers :meth:`ask` in this flow: a function, an Observable, or an object with ``request_input``."""

    _record: Record
    _keeper: StateKeeper

    @abstractmethod
    def _read_state(self) -> State:
        """The flow's state as it is now."""

    def ask(
        self, message: str, timeout: Seconds | None = None, metadata: Mapping[str, Any] | None = None
    ) -> str | None:
        """Ask a person, and wait for the answer; in a method that is not async, or a tool that it runs.

        The state is saved first, if the flow has a store. Who answers: see :func:`rxflow.operators.answer_with`.
        If nobody does, the run is paused: nothing after this line is executed.

        Args:
            message: the question.
            timeout: in seconds, or a timedelta; None waits forever.
            metadata: more for whoever answers, beside the question.

        Returns:
            The answer, "" for an empty one; None if the time was up.

        Raises:
            RuntimeError: no run of a flow goes on here.
        """
        return cast("str | None", run_blocking(self._ask(message, timeout, metadata), InputReceived).value)

    async def ask_async(
        self, message: str, timeout: Seconds | None = None, metadata: Mapping[str, Any] | None = None
    ) -> str | None:
        """:meth:`ask` for async methods, which it does not block."""
        return cast("str | None", (await run_async(self._ask(message, timeout, metadata), InputReceived)).value)

    @property
    def human_feedback_history(self) -> list[HumanFeedbackResult]:
        """What people said under ``@human_feedback`` in the last run, oldest first."""
        return list(self._record.feedback)

    @property
    def last_human_feedback(self) -> HumanFeedbackResult | None:
        """The last of :attr:`human_feedback_history`."""
        return self._record.feedback[-1] if self._record.feedback else None

    def _ask(self, message: str, timeout: Seconds | None, metadata: Mapping[str, Any] | None) -> EventStream[Event]:
        if current_emitter() is None:
            raise RuntimeError("ask() belongs into a method of a flow that runs; no run goes on here")
        question: Question[str | None] = Question(
            kind="input",
            message=message,
            answer=cast(Any, str | None),
            schema={"type": "string"},
            arguments=metadata or {},
            timeout=None if timeout is None else to_seconds("timeout", timeout),
        )

        async def save(emitter: Emitter) -> None:
            await self._keeper.save_before_a_wait(emitter, self._read_state)

        return EventStream(lambda scope: asking(scope, question, before=save))

    def _provider(self) -> Answerer | None:
        return None if self.input_provider is None else answerer_of(self.input_provider, self)
