"""``limit_tokens``: a branch may say so much, and no more."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Literal, TypeVar

from reactivex import Observable

from rxflow.operators._core.arguments import one_of, positive
from rxflow.operators._core.spending import LimitExceeded, Rate, limited
from rxflow.types.events import LLMFinished

T = TypeVar("T")


class TokenLimitExceeded(LimitExceeded):
    """More tokens were spent than allowed: ``limit``, ``spent``, and ``text``, the answer text that had come."""


def limit_tokens(
    tokens: int, *, on_limit: Literal["complete", "error"] = "complete"
) -> Callable[[Observable[T]], Observable[T]]:
    """End a branch that has spent more than ``tokens``, and close its provider's connection. What else runs goes on.

    The branch is what this is piped on: in a flow's method, the crew or the call whose stream the method returns. Its
    result is then the text that had come. (A lane of ``by_task`` only shows a task: ending the lane does not stop it.)

    Counted is what models say: text, reasoning, arguments of tool calls, estimated as a token for every four bytes.
    When a call ends and its provider reports the usage, that takes the estimate's place, with the prompt's tokens. The
    chunk that exceeds the limit still passes, as it is paid for. ::

        source             --a--b--c--d--|
        limit_tokens(2)    --a--b--c|        (a letter: one token; the source is disposed)

    Args:
        tokens: how many may be spent.
        on_limit: ``"error"`` fails where ``"complete"`` just ends.

    Example::

        class Report(Flow):
            @start()
            def research(self):
                return self.crew.observe().pipe(ops.limit_tokens(500))

    Raises:
        TokenLimitExceeded: as the stream's error, with ``on_limit="error"``.
        ValueError: ``tokens`` is not above 0, or ``on_limit`` is another word.
    """
    positive(tokens, "limit_tokens(tokens)", "tokens")
    one_of(on_limit, "limit_tokens(on_limit=…)", "complete", "error")

    def excess(spent: float, text: str) -> TokenLimitExceeded:
        message = f"{ceil(spent)} tokens were spent, and the limit is {tokens} (limit_tokens)"
        return TokenLimitExceeded(message, tokens, ceil(spent), text)

    return limited(tokens, _Tokens, excess, on_limit)


class _Tokens:
    def rate(self, model: str | None) -> Rate:
        return Rate(prompt=0.0, output=1.0)

    def reported(self, finished: LLMFinished, model: str | None) -> float | None:
        usage = finished.usage
        return usage.total_tokens or usage.prompt_tokens + usage.completion_tokens or None
