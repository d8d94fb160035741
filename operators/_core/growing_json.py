"""Reads JSON that a model is still writing, as far as the JSON has arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

from pydantic_core import from_json, to_json

from rxflow._text import find_json, has_fields
from rxflow.operators._core.text import join_surrogates

V = TypeVar("V")

_FINENESS = 128  # a text is read again when it has grown by 1/128 of its length


def parse(text: str, *, partial: bool = False) -> Any:
    """Parse JSON. With ``partial``, the end of the JSON may be missing. Raises ValueError if the text is not JSON."""
    # Pass bytes, because pydantic refuses a str with a lone surrogate as "not a string".
    return from_json(text.encode(errors="surrogatepass"), allow_partial="trailing-strings" if partial else False)


def read_object(text: str) -> dict[str, Any]:
    """Parse a JSON object. A blank text counts as an empty object. Raises ValueError if the text is not an object."""
    data = parse(text.strip() or "{}")
    if not isinstance(data, dict):
        raise ValueError(f"not a JSON object: {text!r}")
    return cast(dict[str, Any], data)


_NUMBER = "+-.0123456789Ee"


class GrowingJson(Generic[V]):
    """Reads JSON that arrives in pieces, perhaps with other text around the JSON.

    ``read`` creates a value from JSON text, or raises ValueError if the text does not fit yet. Each reading parses the
    unfinished JSON from its beginning. To save time, a long text is read again only when it has grown by 1/128. So all
    readings together take at most about 130 times as long as one reading of the final text. If a second object follows
    the first one, later values come from the second object.
    """

    def __init__(self, read: Callable[[str], V]) -> None:
        self._read = read
        self._pieces: list[str] = []
        self._length = 0
        self._due = 0
        self._start = 0  # the JSON before this index is complete, and is not read again
        self._seen = b""
        self._accepted = b""
        self._last: V | None = None

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        text = "".join(self._pieces)
        return text if text.isascii() else "".join(join_surrogates(text))

    def feed(self, piece: str) -> Sequence[V]:
        """Add the next piece, and read the text if it has grown enough. Return the new values, usually none or one."""
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length < self._due:
            return ()
        self._due = self._length + self._length // _FINENESS
        text = self.text
        self._pieces = [text]
        values: list[V] = []
        for data in self._read_spans(text):
            values += self._grown(data)
        return values

    def _read_spans(self, text: str) -> Iterator[Any]:
        """Parse and yield each object or list that was not complete at the last reading."""
        for span in find_json(text, self._start):
            self._start = span.start if span.end is None else span.end
            try:
                data = _so_far(text[span.start :]) if span.end is None else parse(text[span.start : span.end])
            except ValueError:
                continue
            yield data

    def _grown(self, data: Any) -> Sequence[V]:
        seen = to_json(data)
        if seen == self._seen:
            return ()
        self._seen = seen
        for candidate in _less_and_less(data):
            written = to_json(candidate)
            if written == self._accepted:
                break
            try:
                value = self._read(written.decode())
            except ValueError:  # the value does not fit, perhaps because its last part is incomplete
                continue
            if self._last is not None and not has_fields(value):
                break  # this later object has no fields of the pydantic model, so it is not the answer
            self._accepted = written
            return self.if_new(value)
        return ()

    def if_new(self, value: V) -> Sequence[V]:
        """Return a tuple with ``value`` if it differs from the previous value; otherwise an empty tuple."""
        if value == self._last:
            return ()
        self._last = value
        return (value,)


def _so_far(text: str) -> Any:
    """Parse the beginning of an object or list. Raises ValueError if that is not possible."""
    data = parse(text, partial=True)
    if text[-1].isdigit() and isinstance(_edge_of(data), int | float):
        # More digits may follow, and the 1 of an unfinished 12 would be a wrong value. So replace the number by a
        # minus sign: the parser leaves out a number without digits.
        data = parse(text.rstrip(_NUMBER) + "-", partial=True)
    return data


def _containers(data: Any) -> Iterator[dict[str, Any] | list[Any]]:
    """Yield the objects and lists at the growing end of ``data``, from the outermost to the innermost.

    These are ``data``, its last value, the last value of that value, and so on. The series ends before a value that is
    empty, or that is neither an object nor a list.
    """
    while isinstance(data, dict | list) and data:
        container = cast(dict[str, Any] | list[Any], data)
        yield container
        data = container[next(reversed(container))] if isinstance(container, dict) else container[-1]


def _edge_of(data: Any) -> Any:
    """Return the innermost last value in ``data``, which the model is writing now."""
    for container in _containers(data):
        data = container[next(reversed(container))] if isinstance(container, dict) else container[-1]
    return data


def _less_and_less(data: Any) -> Iterator[Any]:
    """Yield ``data``, and then shorter and shorter forms of it.

    Each step removes the last element of one container. The first step shortens the innermost growing container, and
    the last step shortens the outermost one. All forms are the same object, which is shortened in place.
    """
    yield data
    for container in reversed(list(_containers(data))):
        if isinstance(container, dict):
            container.popitem()
        else:
            container.pop()
        yield data
