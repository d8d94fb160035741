"""``answer_with``: answers the questions of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxflow._streaming import EventStream, Who, answerer_of

T = TypeVar("T")


def answer_with(who: Who) -> Callable[[Observable[T]], Observable[T]]:
    """Answer the questions of a run (like ``flat_map``, but the answers go back into the run).

    Questions come from ``self.ask``, ``@human_feedback``, ``Task(human_input=True)`` and
    ``@tool(needs_approval=True)``. ::

        flow.observe().pipe(ops.answer_with(lambda request: "yes"))

        source                 S-a-?           (? is the question; without an answer, the run would pause)
        answers                    --y|        (subscribed when the question is asked)
        answer_with(answers)   S-a-?-Yb-F|     (? is InputRequested, Y is InputReceived)

    Example::

        flow.observe().pipe(ops.answer_with(lambda request: input(request.message)))

    If a run has several ``answer_with``, the first one in the pipe is asked first. If none of them answers, the
    question is asked at the console, if the program has one. Without a console, the run pauses when all other work is
    done.

    If the answer of a function or an Observable does not fit the question, the run ends with a ValueError. A person at
    the console is asked again. If a function or an Observable answers after the question's time-out, or after the end
    of the run, the answer is ignored.

    Args:
        who: a function, an Observable, an :class:`Inbox`, or a provider. A function gets the
            :class:`~rxflow.types.events.InputRequested`. It returns the answer, an Observable of the answer, or None to
            leave the question to the next ``answer_with``. It may be async; a sync function runs in a worker thread. An
            Observable answers with its first item after the question. An :class:`Inbox` holds questions until other
            code answers them. A provider is an object in CrewAI's form, with a method ``request_input`` or
            ``request_feedback``.

    Raises:
        TypeError: ``who`` is none of these, or is a function that cannot be called with one argument. Also raised if
            the source is not a run, for example because an operator of RxPY comes before this operator.
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
