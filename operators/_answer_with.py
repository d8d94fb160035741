"""``answer_with``: answers the questions of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow._streaming import EventStream, Who, answerer_of

T = TypeVar("T")


def answer_with(who: Who) -> Callable[[Observable[T]], Observable[T]]:
    """Answer the questions of a run (like ``flat_map``, where the answers go back into the run).

    Questions come from ``self.ask``, ``@human_feedback``, ``Task(human_input=True)`` and
    ``@tool(needs_approval=True)``. ::

        flow.observe().pipe(ops.answer_with(lambda request: "yes"))

        source                 S-a-?           (asks; without an answer it would be paused)
        answers                    --y|        (subscribed by the question)
        answer_with(answers)   S-a-?-Yb-F|     (? is InputRequested, Y is InputReceived)

    Example::

        flow.observe().pipe(ops.answer_with(lambda request: input(request.message)))

    If a run has several ``answer_with``, the one nearest to the run is asked first. If none of them answers, a program
    in a terminal asks there; any other program pauses the run when everything else is done. An answer that does not fit
    the question raises a ValueError, which ends the run. An answer that comes after the time-out or after the end of
    the run is ignored.

    Args:
        who: a function of the :class:`~rxflow.types.events.InputRequested`, sync (in a worker thread) or async, that
            returns the answer, an Observable of it, or None to leave the question to the next ``answer_with``; an
            Observable, whose first item after the question is the answer; an :class:`Inbox`, which holds questions for
            other threads; or a provider in CrewAI's form, with ``request_input`` or ``request_feedback``.

    Raises:
        TypeError: ``who`` is none of these; or the source is not a run: put operators of RxPY after this one.
    """
    answerer = answerer_of(who)

    def apply(source: Observable[T]) -> Observable[T]:
        if not isinstance(source, EventStream) or not source.is_run:
            raise TypeError(
                f"answer_with answers the questions of a run, and {type(source).__name__} is not one: put it after "
                "observe() or events(), and before operators of RxPY"
            )
        return source.with_answerer(answerer)

    return apply
