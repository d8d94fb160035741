"""Spending of a stream: estimated while a model streams, and as the provider reports it once the call has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.operators._core.calls import CallTracker, OpenCall
from rxflow.operators._core.in_run import through
from rxflow.operators._core.items import get_span_id, get_text
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import LLMFinished, LLMStarted
from rxflow.types.usage import BYTES_PER_TOKEN, count_bytes, count_message_bytes

T = TypeVar("T")


class LimitExceeded(Exception):
    """More was spent than allowed. ``text`` is the answer so far."""

    def __init__(self, message: str, limit: float = 0.0, spent: float = 0.0, text: str = "") -> None:
        super().__init__(message, limit, spent, text)
        self.limit = limit
        self.spent = spent
        self.text = text

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of one token, in the unit of the limit."""

    prompt: float
    output: float


class Meter(Protocol):
    """Knows the prices of calls."""

    def get_rate(self, model: str | None) -> Rate:
        """Return the rate for the estimate of a call. ``model`` is None if no event named it. May raise."""
        ...

    def read_report(self, finished: LLMFinished, model: str | None) -> float | None:
        """Return the whole cost of a call as its provider reported it; None if it did not."""
        ...


def limit_spending(
    limit: float,
    create_meter: Callable[[], Meter],
    create_error: Callable[[float, str], LimitExceeded],
    on_limit: Literal["complete", "error"],
) -> Callable[[Observable[T]], Observable[T]]:
    """Create an operator that ends its source when more than ``limit`` is spent.

    ``create_error`` takes what was spent and the answer so far.
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
            account = _Account(observer, limit, create_meter(), create_error if on_limit == "error" else None)
            account.running.disposable = source.subscribe(
                account.on_next, observer.on_error, observer.on_completed, scheduler=subscribed
            )
            return account.running

        return Observable(subscribe)

    return through(operator)


class _MeteredCall(OpenCall):
    """An open call: ``spent`` is the estimate so far, ``per_byte`` the price of a byte of output."""

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
        self.running = SingleAssignmentDisposable()
        self._observer = observer
        self._emit = observer.on_next
        self._limit = limit
        self._meter = meter
        self._create_error = create_error
        self._spent = 0.0
        self._calls: CallTracker[_MeteredCall] = CallTracker()
        self._find = self._calls.get
        self._answer: list[str] = []

    def on_next(self, item: object) -> None:
        text = item.content if isinstance(item, StreamChunk) else get_text(item)
        try:
            if text is None:
                self._on_event(item)
            else:
                self._add(item, text)
        except Exception as error:  # noqa: BLE001 - no price is known: it is the stream's terminal
            self.running.dispose()
            self._observer.on_error(error)
            return
        self._emit(item)  # even if it exceeds the limit: it is paid for
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
            self._answer.append(text)

    def _price(self, call: _MeteredCall) -> None:
        """Price a call at its first text: only then has litellm, which may know the price, certainly been imported."""
        rate = self._meter.get_rate(call.model)
        call.is_priced = True
        call.per_byte = rate.output / BYTES_PER_TOKEN
        call.spent = call.prompt_bytes * rate.prompt / BYTES_PER_TOKEN
        self._spent += call.spent

    def _on_event(self, event: object) -> None:
        if isinstance(event, LLMStarted):
            self._calls.add(_MeteredCall(event, event.model, sum(map(count_message_bytes, event.messages))))
            return
        ended = self._calls.find_ended(event)
        for call in ended:
            self._calls.remove(call)
        if isinstance(event, LLMFinished):
            call = ended[0] if ended else _MeteredCall(event)
            reported = self._meter.read_report(event, call.model)
            if reported is not None:
                self._spent += reported - call.spent

    def _stop(self) -> None:
        self.running.dispose()
        if self._create_error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(self._create_error(self._spent, "".join(self._answer)))


def _is_answer(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TEXT)
