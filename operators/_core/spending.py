"""What a stream spends: estimated while a model speaks, and as the provider says once the call has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.operators._core.lift import through
from rxflow.operators._core.texts import place_of, text_of
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import LLMFinished, LLMStarted

T = TypeVar("T")

BYTES_A_TOKEN = 4
"""Of UTF-8 text, on average. A tokenizer would take milliseconds a call, and none knows all models."""


class LimitExceeded(Exception):
    """More was spent than allowed. ``text`` is the answer text that had come."""

    def __init__(self, message: str, limit: float = 0.0, spent: float = 0.0, text: str = "") -> None:
        super().__init__(message, limit, spent, text)
        self.limit = limit
        self.spent = spent
        self.text = text

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Rate:
    """What one token costs."""

    prompt: float
    output: float


class Meter(Protocol):
    """Knows what calls cost."""

    def rate(self, model: str | None) -> Rate:
        """For the estimates of a call; ``model`` is None where the stream does not say. May raise."""
        ...

    def reported(self, finished: LLMFinished, model: str | None) -> float | None:
        """What a call cost in all; None where the provider does not say."""
        ...


def limited(
    limit: float,
    meter: Callable[[], Meter],
    excess: Callable[[float, str], LimitExceeded],
    on_limit: Literal["complete", "error"],
) -> Callable[[Observable[T]], Observable[T]]:
    """An operator that ends its source when more than ``limit`` has been spent.

    ``excess`` makes the error out of what was spent and the text that had come.
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
            account = _Account(observer, limit, meter(), excess if on_limit == "error" else None)
            account.running.disposable = source.subscribe(
                account.on_next, observer.on_error, observer.on_completed, scheduler=subscribed
            )
            return account.running

        return Observable(subscribe)

    return through(operator)


class _Call:
    """One call that goes on: what it is estimated to have spent, and what a byte of output adds to that."""

    __slots__ = ("byte", "spent")

    def __init__(self, byte: float, spent: float) -> None:
        self.byte = byte
        self.spent = spent


class _Account:
    """The spending of one subscription."""

    def __init__(
        self,
        observer: ObserverBase[Any],
        limit: float,
        meter: Meter,
        excess: Callable[[float, str], LimitExceeded] | None,
    ) -> None:
        self.running = SingleAssignmentDisposable()
        self._observer = observer
        self._emit = observer.on_next
        self._limit = limit
        self._meter = meter
        self._excess = excess
        self._spent = 0.0
        self._calls: dict[str, _Call] = {}
        self._asked: dict[str, tuple[str, int]] = {}  # model, and bytes of the prompt
        self._text: list[str] = []

    def on_next(self, item: object) -> None:
        text = item.content if isinstance(item, StreamChunk) else text_of(item)
        try:
            if text is None:
                self._hear(item)
            else:
                self._add(item, text)
        except Exception as error:  # noqa: BLE001 - no price is known: it is the stream's terminal
            self.running.dispose()
            self._observer.on_error(error)
            return
        self._emit(item)  # also what exceeds the limit: it is spent
        if self._spent > self._limit:
            self._stop()

    def _add(self, item: object, text: str) -> None:
        place = place_of(item)
        call = self._calls.get(place)
        if call is None:
            call = self._calls[place] = self._begin(place)
        spent = (len(text) if text.isascii() else size_of(text)) * call.byte
        call.spent += spent
        self._spent += spent
        if self._excess is not None and _is_answer(item):
            self._text.append(text)

    def _begin(self, place: str) -> _Call:
        """Only with the first word is it sure that litellm, which may know the price, has been imported."""
        model, prompt = self._asked.get(place, (None, 0))
        rate = self._meter.rate(model)
        call = _Call(rate.output / BYTES_A_TOKEN, prompt * rate.prompt / BYTES_A_TOKEN)
        self._spent += call.spent
        return call

    def _hear(self, event: object) -> None:
        if isinstance(event, LLMStarted):
            self._asked[place_of(event)] = event.model, sum(map(_size_of_message, event.messages))
        elif isinstance(event, LLMFinished):
            place = place_of(event)
            call = self._calls.pop(place, None)
            model, _ = self._asked.pop(place, (None, 0))
            reported = self._meter.reported(event, model)
            if reported is not None:
                self._spent += reported - (call.spent if call is not None else 0.0)

    def _stop(self) -> None:
        self.running.dispose()
        if self._excess is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(self._excess(self._spent, "".join(self._text)))


def _is_answer(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TEXT)


def size_of(text: str) -> int:
    """Bytes in UTF-8; a half surrogate, which a model's JSON can hold, counts too."""
    return len(text.encode("utf-8", "surrogatepass"))


def _size_of_message(message: Mapping[str, Any]) -> int:
    """The text of a message, alone or in parts; images are not counted."""
    content = message.get("content")
    if isinstance(content, str):
        return size_of(content)
    parts = cast("Sequence[Any]", content) if isinstance(content, Sequence) else ()
    return sum(size_of(str(cast(Any, part).get("text") or "")) for part in parts if isinstance(part, Mapping))
