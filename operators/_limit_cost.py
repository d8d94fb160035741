"""``limit_cost``: an upper limit for the cost of a branch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from reactivex import Observable

from rxflow.operators._core.checks import check_choice, check_positive
from rxflow.operators._core.metering import LimitExceeded, Rate, limit_spending
from rxflow.types.events import LLMFinished

T = TypeVar("T")

_TOKENS_PER_PRICE = 1_000_000
_DEMO_MODEL = "rxflow/demo"  # embedded, costs nothing


class CostLimitExceeded(LimitExceeded):
    """A branch cost more than allowed: ``limit`` and ``spent`` in US dollars; ``text`` is the answer so far."""


def limit_cost(
    dollars: float,
    *,
    input_price: float | None = None,
    output_price: float | None = None,
    on_limit: Literal["complete", "error"] = "complete",
) -> Callable[[Observable[T]], Observable[T]]:
    """End a branch that has cost more than ``dollars`` (like ``take_while``), and close its provider's connection.

    The branch is what this operator is piped on: in a flow's method, the crew or the call whose stream the method
    returns. The result of the branch is then the text so far; everything else runs on. (A lane of ``by_task`` only
    shows a task: to end the lane does not stop the task.)

    The cost is estimated from the prompt and the output (text, reasoning, arguments of tool calls), with one token per
    four bytes. When a call ends, the provider's report replaces the estimate: its tokens at the prices given, else its
    cost. The chunk that exceeds the limit still passes, since it is paid for. ::

        source              --a--b--c--d--|
        limit_cost(0.02)    --a--b--c|        (a letter: one cent; the source is disposed)

    Args:
        dollars: the limit, in US dollars.
        input_price, output_price: US dollars per million tokens, for all models of the branch; by default litellm's
            list gives the price of each call's model.
        on_limit: ``"complete"`` completes the branch, ``"error"`` fails.

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
    check_positive(dollars, "limit_cost(dollars)", "US dollars")
    check_choice(on_limit, "limit_cost(on_limit=…)", "complete", "error")
    given = _check_prices(input_price, output_price)

    def create_error(spent: float, text: str) -> CostLimitExceeded:
        message = f"${spent:.6g} were spent; the limit is ${dollars:g} (limit_cost)"
        return CostLimitExceeded(message, dollars, spent, text)

    return limit_spending(dollars, lambda: _Dollars(given), create_error, on_limit)


def _check_prices(input_price: float | None, output_price: float | None) -> Rate | None:
    if input_price is None and output_price is None:
        return None
    if input_price is None or output_price is None:
        raise ValueError(
            "limit_cost takes input_price and output_price together (US dollars for a million tokens); "
            f"got {input_price!r} and {output_price!r}"
        )
    if input_price < 0 or output_price < 0:
        raise ValueError(f"limit_cost: a price cannot be negative; got {input_price!r} and {output_price!r}")
    return Rate(input_price / _TOKENS_PER_PRICE, output_price / _TOKENS_PER_PRICE)


class _Dollars:
    def __init__(self, given: Rate | None) -> None:
        self._given = given
        self._listed: dict[str, Rate] = {_DEMO_MODEL: Rate(0.0, 0.0)}

    def get_rate(self, model: str | None) -> Rate:
        if self._given is not None:
            return self._given
        if model is None:
            raise ValueError(
                "limit_cost has no price: the stream does not name its model. Put limit_cost directly after "
                "observe() or events(), or give input_price and output_price (US dollars for a million tokens)"
            )
        rate = self._listed.get(model)
        if rate is None:
            rate = self._listed[model] = _look_up_rate(model)
        return rate

    def read_report(self, finished: LLMFinished, model: str | None) -> float | None:
        usage = finished.usage
        prompt, output = usage.prompt_tokens or 0, usage.completion_tokens or 0
        if (prompt or output) and (self._given is not None or finished.cost is None):
            rate = self.get_rate(model)
            return prompt * rate.prompt + output * rate.output
        return finished.cost


def _look_up_rate(model: str) -> Rate:
    """Look up a model in litellm's list. If no model needed litellm so far, it is not worth an import."""
    litellm: Any = sys.modules.get("litellm")
    price_of: Callable[..., tuple[float, float]] | None = getattr(litellm, "cost_per_token", None)
    try:
        if price_of is not None:
            return Rate(*price_of(model=model, prompt_tokens=1, completion_tokens=1))
    except Exception:  # noqa: BLE001 - litellm raises various errors for a model that it does not list
        pass
    raise ValueError(
        f"limit_cost has no price for the model {model!r}: litellm does not list it. "
        "Give input_price and output_price (US dollars for a million tokens); 0 and 0 if it costs nothing"
    )
