"""``limit_tokens``: an upper limit for the tokens of a branch."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Literal, TypeVar

from reactivex import Observable

from rxflow.operators._core.checks import check_choice, check_positive
from rxflow.operators._core.metering import LimitExceeded, Rate, limit_spending
from rxflow.types.events import LLMFinished

T = TypeVar("T")


class TokenLimitExceeded(LimitExceeded):
    """A branch spent more tokens than allowed: ``limit`` and ``spent``; ``text`` is the answer so far."""


def limit_tokens(
    tokens: int, *, on_limit: Literal["complete", "error"] = "complete"
) -> Callable[[Observable[T]], Observable[T]]:
    """End a branch that has spent more than ``tokens`` (like ``take_while``), and close its provider's connection.

    The branch is what this operator is piped on: in a flow's method, the crew or the call whose stream the method
    returns. The result of the branch is then the text so far; everything else runs on. (A lane of ``by_task`` only
    shows a task: to end the lane does not stop the task.)

    The output of the models counts: text, reasoning, arguments of tool calls, estimated as one token per four bytes.
    When a call ends and its provider reports the usage, that replaces the estimate, and includes the prompt. The chunk
    that exceeds the limit still passes, since it is paid for. ::

        source             --a--b--c--d--|
        limit_tokens(2)    --a--b--c|        (a letter: one token; the source is disposed)

    Args:
        tokens: the limit.
        on_limit: ``"complete"`` completes the branch, ``"error"`` fails.

    Example::

        class Report(Flow):
            @start()
            def research(self):
                return self.crew.observe().pipe(ops.limit_tokens(500))

    Raises:
        TokenLimitExceeded: as the stream's error, with ``on_limit="error"``.
        ValueError: ``tokens`` is not above 0, or ``on_limit`` is another word.
    """
    check_positive(tokens, "limit_tokens(tokens)", "tokens")
    check_choice(on_limit, "limit_tokens(on_limit=…)", "complete", "error")

    def create_error(spent: float, text: str) -> TokenLimitExceeded:
        message = f"{ceil(spent)} tokens were spent; the limit is {tokens} (limit_tokens)"
        return TokenLimitExceeded(message, tokens, ceil(spent), text)

    return limit_spending(tokens, _Tokens, create_error, on_limit)


class _Tokens:
    def get_rate(self, model: str | None) -> Rate:
        return Rate(prompt=0.0, output=1.0)

    def read_report(self, finished: LLMFinished, model: str | None) -> float | None:
        usage = finished.usage
        return usage.total_tokens or (usage.prompt_tokens or 0) + (usage.completion_tokens or 0) or None
