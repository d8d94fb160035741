"""What a subscription was told, as a test looks at it."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase

from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import Event
from tests.gate import PATIENCE_S, Gate

E = TypeVar("E")


class Signals:
    """The items, and every terminal; those too that come after the first."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.errors: list[BaseException] = []
        self.ends: list[str] = []
        self.ended = Gate()

    def on_next(self, item: Any) -> None:
        self.items.append(item)

    def on_error(self, error: BaseException) -> None:
        self.errors.append(error)
        self.ends.append(repr(error))
        self.ended.open()

    def on_completed(self) -> None:
        self.ends.append("completed")
        self.ended.open()

    def subscribe_to(self, source: Observable[Any]) -> DisposableBase:
        return source.subscribe(self.on_next, self.on_error, self.on_completed)

    def until_ended(self, source: Observable[Any], within: float = PATIENCE_S) -> Self:
        """Subscribe, and wait for the first terminal."""
        self.subscribe_to(source)
        try:
            self.ended.wait(within)
        except AssertionError as error:
            raise AssertionError(f"no terminal within {within} s; so far: {self.items}") from error
        return self

    @property
    def terminals(self) -> int:
        return len(self.ends)

    @property
    def completions(self) -> int:
        return self.terminals - len(self.errors)


class Outcome(Signals):
    """All events of one run, and the error that it ended with."""

    def __init__(self, hear: Callable[[Event], object]) -> None:
        super().__init__()
        self._hear = hear

    def on_next(self, item: Event) -> None:
        super().on_next(item)
        self._hear(item)

    @property
    def events(self) -> list[Event]:
        return self.items

    @property
    def error(self) -> BaseException | None:
        return self.errors[0] if self.errors else None

    def of(self, kind: type[E]) -> list[E]:
        """The events of one type, in their order."""
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """The only event of one type."""
        (event,) = self.of(kind)
        return event

    @property
    def texts(self) -> list[str]:
        return [each.content for each in self.of(StreamChunk) if each.chunk_type is StreamChunkType.TEXT]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def signals_of(source: Observable[Any]) -> Signals:
    return Signals().until_ended(source)


def outcome(source: Observable[Event], on_next: Callable[[Event], object] = lambda _: None) -> Outcome:
    """``on_next`` sees each event as it comes."""
    return Outcome(on_next).until_ended(source)
