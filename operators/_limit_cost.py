"""``limit_cost``: a branch may cost so much, and no more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from reactivex import Observable

from rxflow.operators._core.arguments import one_of, positive
from rxflow.operators._core.spending import LimitExceeded, Rate, limited
from rxflow.types.events import LLMFinished

T = TypeVar("T")

_MILLION = 1_000_000
_FREE = "rxflow/demo"  # the embedded model


class CostLimitExceeded(LimitExceeded):
    """It cost more than allowed: ``limit`` and ``spent`` in US dollars, and ``text``, the answer text that had come."""


def limit_cost(
    dollars: float,
    *,
    input_price: float | None = None,
    output_price: float | None = None,
    on_limit: Literal["complete", "error"] = "complete",
) -> Callable[[Observable[T]], Observable[T]]:
    """End a branch that has cost more than ``dollars``, and close its provider's connection. What else runs goes on.

    The branch is what this is piped on: in a flow's method, the crew or the call whose stream the method returns. Its
    result is then the text that had come. (A lane of ``by_task`` only shows a task: ending the lane does not stop it.)

    The cost is estimated from the prompt and from what the model says (text, reasoning, arguments of tool calls), with
    a token for every four bytes. When a call ends, what its provider reports takes the estimate's place: its tokens at
    the prices given, else its cost. The chunk that exceeds the limit still passes, as it is paid for. ::

        source              --a--b--c--d--|
        limit_cost(0.02)    --a--b--c|        (a letter: one cent; the source is disposed)

    Args:
        dollars: how much may be spent.
        input_price, output_price: US dollars for a million tokens, for all models of the branch; else litellm's list
            says what the model of each call costs.
        on_limit: ``"error"`` fails where ``"complete"`` just ends.

    Example::

        class Report(Flow):
            @start()
            def research(self):
                return self.crew.observe().pipe(ops.limit_cost(0.05))

    Raises:
        CostLimitExceeded: as the stream's error, with ``on_limit="error"``.
        ValueError: ``dollars`` is not above 0, a price is negative, or only one of them was given; and as the stream's
            error: no price was given, and litellm does not know the model.
    """
    positive(dollars, "limit_cost(dollars)", "US dollars")
    one_of(on_limit, "limit_cost(on_limit=…)", "complete", "error")
    given = _given(input_price, output_price)

    def excess(spent: float, text: str) -> CostLimitExceeded:
        message = f"${spent:.6g} were spent, and the limit is ${dollars:g} (limit_cost)"
        return CostLimitExceeded(message, dollars, spent, text)

    return limited(dollars, lambda: _Dollars(given), excess, on_limit)


def _given(input_price: float | None, output_price: float | None) -> Rate | None:
    if input_price is None and output_price is None:
        return None
    if input_price is None or output_price is None:
        raise ValueError(
            "limit_cost takes input_price and output_price together (US dollars for a million tokens); "
            f"got {input_price!r} and {output_price!r}"
        )
    if input_price < 0 or output_price < 0:
        raise ValueError(f"limit_cost: a price cannot be negative; got {input_price!r} and {output_price!r}")
    return Rate(input_price / _MILLION, output_price / _MILLION)


class _Dollars:
    def __init__(self, given: Rate | None) -> None:
        self._given = given
        self._listed: dict[str, Rate] = {_FREE: Rate(0.0, 0.0)}

    def rate(self, model: str | None) -> Rate:
        if self._given is not None:
            return self._given
        if model is None:
            raise ValueError(
                "limit_cost has no price: the stream does not say which model speaks. Put limit_cost directly after "
                "observe() or events(), or give input_price and output_price (US dollars for a million tokens)"
            )
        rate = self._listed.get(model)
        if rate is None:
            rate = self._listed[model] = _listed_rate(model)
        return rate

    def reported(self, finished: LLMFinished, model: str | None) -> float | None:
        usage = finished.usage
        if (usage.prompt_tokens or usage.completion_tokens) and (self._given is not None or finished.cost is None):
            rate = self.rate(model)
            return usage.prompt_tokens * rate.prompt + usage.completion_tokens * rate.output
        return finished.cost


def _listed_rate(model: str) -> Rate:
    """What litellm's list says. It is imported when a model that needs it speaks; for others it is not worth that."""
    litellm: Any = sys.modules.get("litellm")
    price_of: Callable[..., tuple[float, float]] | None = getattr(litellm, "cost_per_token", None)
    try:
        if price_of is not None:
            return Rate(*price_of(model=model, prompt_tokens=1, completion_tokens=1))
    except Exception:  # noqa: BLE001 - it raises what it likes for a model that it does not list
        pass
    raise ValueError(
        f"limit_cost has no price for the model {model!r}: litellm does not list it. "
        "Give input_price and output_price (US dollars for a million tokens); 0 and 0 where it costs nothing"
    )
