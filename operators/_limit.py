"""``limit_cost``, ``limit_tokens``: end a stream that spends too much. During a call, the spending is estimated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, Protocol, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._prices import estimate_cost
from rxflow._streaming import Holder, stopping
from rxflow.operators._core import (
    CallTracker,
    OpenCall,
    check_choice,
    check_count,
    check_positive,
    get_span_id,
    get_text,
    is_retracted,
    through,
)
from rxflow.types import LLMFinished, LLMStarted, Retracted, StreamChunk, StreamChunkType
from rxflow.types.results import BYTES_PER_TOKEN, UsageMetrics, count_bytes, count_message_bytes

T = TypeVar("T")


class LimitExceeded(Exception):
    """A stream spent too much. ``spent`` and ``limit`` are dollars or tokens. ``text`` joins the answers so far."""

    def __init__(self, message: str, limit: float = 0.0, spent: float = 0.0, text: str = "") -> None:
        super().__init__(message, limit, spent, text)
        self.limit = limit
        self.spent = spent
        self.text = text

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Rate:
    """The prices of one token of the prompt and one token of the output, in the unit of the limit."""

    prompt: float
    output: float


class Meter(Protocol):
    """Calculates what calls cost, in the unit of the limit."""

    def get_rate(self, model: str | None) -> Rate:
        """Return the rate with which the cost of a call is estimated.

        ``model`` is None if no event named the model. May raise an error, for example if the price is unknown.
        """
        ...

    def read_report(self, finished: LLMFinished, model: str | None) -> float | None:
        """Return the whole cost of a finished call, based on the provider's report; None without a report."""
        ...


def limit_spending(
    limit: float,
    create_meter: Callable[[], Meter],
    create_error: Callable[[float, str], LimitExceeded],
    on_limit: Literal["complete", "error"],
) -> Callable[[Observable[T]], Observable[T]]:
    """Create an operator that ends a stream when more than ``limit`` is spent.

    With ``on_limit="error"``, ``create_error`` is called with the amount spent and the joined answers so far.
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
            account = _Account(observer, limit, create_meter(), create_error if on_limit == "error" else None)
            account.running.hold(
                source.subscribe(account.on_next, observer.on_error, observer.on_completed, scheduler=subscribed)
            )
            return account.running

        return Observable(subscribe)

    return through(operator)


class _MeteredCall(OpenCall):
    """An open call. ``spent`` is the estimate so far, and ``per_byte`` is the price of a byte of output."""

    __slots__ = ("is_priced", "model", "per_byte", "prompt_bytes", "spent")

    def __init__(self, item: object, model: str | None = None, prompt_bytes: int = 0) -> None:
        super().__init__(item)
        self.model = model
        self.prompt_bytes = prompt_bytes
        self.is_priced = False
        self.per_byte = 0.0
        self.spent = 0.0


class _Account:
    """The spending of one subscription."""

    def __init__(
        self,
        observer: ObserverBase[Any],
        limit: float,
        meter: Meter,
        create_error: Callable[[float, str], LimitExceeded] | None,
    ) -> None:
        self.running = Holder()
        self._observer = observer
        self._emit = observer.on_next
        self._limit = limit
        self._meter = meter
        self._create_error = create_error
        self._spent = 0.0
        self._calls: CallTracker[_MeteredCall] = CallTracker()
        self._find = self._calls.get
        self._answer: list[tuple[object, str]] = []  # an item of the call, and text

    def on_next(self, item: object) -> None:
        text = item.content if isinstance(item, StreamChunk) else get_text(item)
        try:
            if text is None:
                self._on_event(item)
            else:
                self._add(item, text)
        except Exception as error:  # noqa: BLE001 - a missing price is the stream's terminal
            self.running.dispose()
            self._observer.on_error(error)
            return
        self._emit(item)  # even if the item exceeds the limit, because it is already paid for
        if self._spent > self._limit:
            self._stop()

    def _add(self, item: object, text: str) -> None:
        call = self._find(get_span_id(item)) or self._calls.add(_MeteredCall(item))
        if not call.is_priced:
            self._price(call)
        spent = (len(text) if text.isascii() else count_bytes(text)) * call.per_byte
        call.spent += spent
        self._spent += spent
        if self._create_error is not None and _is_answer(item):
            self._answer.append((call.item, text))

    def _price(self, call: _MeteredCall) -> None:
        """Find the rate of a call, and add the price of its prompt.

        This is done when the first text arrives. By then, the call may have imported litellm. Then
        :func:`_look_up_rate` finds more prices.
        """
        rate = self._meter.get_rate(call.model)
        call.is_priced = True
        call.per_byte = rate.output / BYTES_PER_TOKEN
        call.spent = call.prompt_bytes * rate.prompt / BYTES_PER_TOKEN
        self._spent += call.spent

    def _on_event(self, event: object) -> None:
        if isinstance(event, LLMStarted):
            self._calls.add(_MeteredCall(event, event.model, sum(map(count_message_bytes, event.messages))))
            return
        if isinstance(event, Retracted):
            self._answer = [part for part in self._answer if not is_retracted(part[0], event)]
        ended = self._calls.find_ended(event)
        for call in ended:
            self._calls.remove(call)
        if isinstance(event, LLMFinished):
            call = ended[0] if ended else _MeteredCall(event)
            reported = self._meter.read_report(event, call.model)
            if reported is not None:
                self._spent += reported - call.spent

    def _stop(self) -> None:
        answer = "".join(text for _, text in self._answer)
        error = None if self._create_error is None else self._create_error(self._spent, answer)
        with stopping("a limit was reached" if error is None else str(error)):
            self.running.dispose()
        if error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(error)


def _is_answer(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TEXT)


_TOKENS_PER_PRICE = 1_000_000


class CostLimitExceeded(LimitExceeded):
    """A stream cost more than allowed. ``spent`` and ``limit`` are in US dollars. ``text`` joins the answers so far."""


def limit_cost(
    dollars: float,
    *,
    input_price: float | None = None,
    output_price: float | None = None,
    on_limit: Literal["complete", "error"] = "complete",
) -> Callable[[Observable[T]], Observable[T]]:
    """End a branch that has cost more than ``dollars`` (like ``take_while``), and close the provider's connection.

    The branch is the stream to which this operator is applied, for example the crew or call that a flow's method
    returns. With ``on_limit="complete"``, the result of the branch is the text so far. Everything outside of the branch
    continues. Do not apply this operator to a lane of ``by_task``: ending the lane does not stop the task.

    The cost is estimated from the prompt and the output (text, reasoning, arguments of tool calls), with one token per
    four bytes. When a call finishes, the provider's report replaces the estimate. If prices were given, they are
    applied to the reported tokens. Otherwise the ``cost`` in ``LLMFinished`` is used. The chunk that exceeds the limit
    is still emitted, because it is already paid for. ::

        source              --a--b--c--d--|
        limit_cost(0.02)    --a--b--c|        (each letter costs one cent; the source is disposed)

    Args:
        dollars: the limit, in US dollars.
        input_price, output_price: US dollars per million tokens, for all models of the branch. Give both or neither. By
            default, litellm's list of prices is used.
        on_limit: ``"complete"`` completes the branch; ``"error"`` ends it with an error.

    Example::

        class Report(Flow):
            @start()
            def research(self):
                return self.crew.observe().pipe(ops.limit_cost(0.05))

    Raises:
        CostLimitExceeded: as the stream's error, with ``on_limit="error"``.
        TypeError: ``dollars`` or a price is not a number.
        ValueError: ``dollars`` is not a finite number above 0. A price is negative or not finite. Only one price was
            given. ``on_limit`` is unknown. Also as the stream's error, if no prices were given and none can be found:
            the stream does not name the model, or litellm does not list the model.
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
    for name, price in ("input_price", input_price), ("output_price", output_price):
        check_positive(price, f"limit_cost({name}=…)", "US dollars for a million tokens", allow_zero=True)
    return Rate(input_price / _TOKENS_PER_PRICE, output_price / _TOKENS_PER_PRICE)


class _Dollars:
    def __init__(self, given: Rate | None) -> None:
        self._given = given
        self._listed: dict[str, Rate] = {}

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
        prompt, output = usage.prompt_tokens or 0, usage.completion_tokens
        if self._given is None and finished.cost is not None:
            return finished.cost
        if output is None or not (prompt or output):
            return None
        rate = self.get_rate(model)
        return prompt * rate.prompt + output * rate.output


def _look_up_rate(model: str) -> Rate:
    """Return the rate of a model from litellm's list. The first look-up of a model blocks for some milliseconds.

    Raises:
        ValueError: litellm does not list the model.
    """
    prompt = estimate_cost(model, UsageMetrics(prompt_tokens=1, completion_tokens=0))
    output = estimate_cost(model, UsageMetrics(prompt_tokens=0, completion_tokens=1))
    if prompt is not None and output is not None:
        return Rate(prompt, output)
    # litellm lists some models, such as anthropic/…, under other names. Its function cost_per_token() finds these
    # models. Calls to them use litellm, so litellm is already imported.
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


class TokenLimitExceeded(LimitExceeded):
    """A stream spent too many tokens. ``spent`` and ``limit`` are token counts. ``text`` joins the answers so far."""


def limit_tokens(
    tokens: int, *, on_limit: Literal["complete", "error"] = "complete"
) -> Callable[[Observable[T]], Observable[T]]:
    """End a branch that has spent more than ``tokens`` (like ``take_while``), and close the provider's connection.

    The branch is the stream to which this operator is applied, for example the crew or call that a flow's method
    returns. With ``on_limit="complete"``, the result of the branch is the text so far. Everything outside of the branch
    continues. Do not apply this operator to a lane of ``by_task``: ending the lane does not stop the task.

    While a call streams, its output is counted: text, reasoning and arguments of tool calls, estimated as one token per
    four bytes. When the call finishes, the provider's report replaces the estimate. The reported tokens include the
    tokens of the prompt. The chunk that exceeds the limit is still emitted, because it is already paid for. ::

        source             --a--b--c--d--|
        limit_tokens(2)    --a--b--c|        (each letter is one token; the source is disposed)

    Args:
        tokens: the limit.
        on_limit: ``"complete"`` completes the branch; ``"error"`` ends it with an error.

    Example::

        class Report(Flow):
            @start()
            def research(self):
                return self.crew.observe().pipe(ops.limit_tokens(500))

    Raises:
        TokenLimitExceeded: as the stream's error, with ``on_limit="error"``.
        TypeError: ``tokens`` is not an integer.
        ValueError: ``tokens`` is not above 0, or ``on_limit`` is unknown.
    """
    check_count(tokens, "limit_tokens(tokens)", 1)
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
        if usage.total_tokens or usage.completion_tokens is None:
            return usage.total_tokens or None
        return (usage.prompt_tokens or 0) + usage.completion_tokens or None
